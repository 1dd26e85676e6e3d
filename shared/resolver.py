"""Names become addresses in threads of their own, and no caller's slow names hold up another's.

A name server that does not answer keeps its thread for as long as the system waits for it, whatever the
caller does meanwhile. So a place is free again when its thread is.
"""

from __future__ import annotations

import asyncio
import functools
import socket
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

_THREADS = 32
_PLACES = 4
"""For each caller: as few as leave some for others, though several callers are slow at once."""


class Resolver:
    """Looks names up for callers that it tells apart by `owner`."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="cygnet-names")
        self._places = defaultdict[str, asyncio.Semaphore](lambda: asyncio.Semaphore(_PLACES))

    async def addresses(self, host: str, owner: str) -> list[str]:
        """The numbers that a name stands for. Raises `OSError` or `UnicodeError` if there are none."""
        places = self._places[owner]
        await places.acquire()
        look_up = functools.partial(socket.getaddrinfo, host, None, type=socket.SOCK_STREAM)
        looking = asyncio.get_running_loop().run_in_executor(self._threads, look_up)

        def free(_: object) -> None:
            places.release()
            if not looking.cancelled():
                looking.exception()  # seen, where nobody waits any more

        looking.add_done_callback(free)
        return [str(entry[4][0]) for entry in await asyncio.shield(looking)]

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
