"""What a server does beside its jobs: it loads the checkpoint, and it removes what is old."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from shared.api.options import ApiOptions
from shared.backends import Backend
from shared.checkpoints import get_checkpoint
from shared.contract import collect, parse_request
from shared.errors import CygnetError, DiskFull, OutputUnwritable
from shared.settings import settings
from shared.store import Store

log = logging.getLogger(__name__)

_PRUNE_SECONDS = 60

_ROWS = 2**18
"""Bytes that a job's rows take, with room to spare."""


async def warm_up(backend: Backend) -> None:
    """Draw one small picture, so that the first request finds the weights loaded."""
    side = get_checkpoint(settings().checkpoint).min_size
    smallest = {"prompt": "a swan", "steps": 1, "width": side, "height": side}
    try:
        await collect(backend.generate(parse_request(smallest)))
    except CygnetError as error:  # each request will get it too
        log.error("the checkpoint could not be loaded: %s", error)
    except Exception:
        log.exception("the checkpoint could not be loaded")


async def check_room(store: Store) -> str:
    """Why a picture could not be kept now; empty if it could."""
    usual = get_checkpoint(settings().checkpoint)
    try:
        size = 3 * usual.width * usual.height + _ROWS
        await asyncio.to_thread(store.check_room, size)
    except DiskFull:
        return "The disk is full."
    except OutputUnwritable:
        return "The folder of pictures cannot be written."
    return ""


async def prune(store: Store, options: ApiOptions, then: Callable[[], None]) -> None:
    """Remove what is old, every so often, until cancelled; `then` finds the room that is made."""
    while True:
        try:
            await asyncio.to_thread(store.prune, options.keep_seconds, options.keep_bytes)
        except (CygnetError, OSError) as error:
            log.error("what is old could not be removed: %s", error)
        then()
        await asyncio.sleep(_PRUNE_SECONDS)
