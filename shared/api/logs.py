"""Logs a machine can read: each line a JSON object. Prompts are in none of them unless asked for."""

from __future__ import annotations

import json
import logging
from typing import Any

from starlette.requests import ClientDisconnect


class JsonFormatter(logging.Formatter):
    """A record as one line; what was given as `extra={"fields": {...}}` beside its message."""

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told)


def is_news(record: logging.LogRecord) -> bool:
    """Whether a record tells of anything but a caller who left before the call was whole."""
    return not (record.exc_info and isinstance(record.exc_info[1], ClientDisconnect))


def log_to_stderr() -> None:
    """The other commands keep logs off the terminal; of a server they are the only sign."""
    logging.disable(logging.NOTSET)
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    handler.addFilter(is_news)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in ("shared", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.INFO)
