"""What a file that is read may cost, whoever sent it."""

from __future__ import annotations

import threading

from shared.checkpoints import CHECKPOINTS
from shared.errors import UnreadableImage

MAX_FILE_BYTES = 64 * 2**20
MAX_PIXELS = 8192 * 8192
"""Of a picture that is named or laid out, without being unpacked."""

MAX_DECODED = 4 * max(checkpoint.max_size for checkpoint in CHECKPOINTS) ** 2
"""Pixels of a picture that is unpacked: twice the largest side that can be drawn, because other programs
often double their pictures' sides afterwards."""

MAX_TEXT = 64 * 2**10
MAX_JSON = 2**20
"""Characters of another program's JSON, which may hold a whole graph of nodes."""

AT_ONCE = threading.BoundedSemaphore(2)
"""Held while a foreign file is read or unpacked, at whatever door: so many times its cost, and no more."""


def unreadable(fault: str) -> UnreadableImage:
    return UnreadableImage(
        f"The picture cannot be read: {fault}.", "Give a whole PNG, WebP or JPEG file."
    )
