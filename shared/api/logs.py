"""Logs a machine can read: each line a JSON object. Prompts are in none of them unless asked for."""

from __future__ import annotations

import json
import logging
from typing import Any


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


def log_to_stderr() -> None:
    """The other commands keep logs off the terminal; of a server they are the only sign."""
    logging.disable(logging.NOTSET)
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in ("shared", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.INFO)
