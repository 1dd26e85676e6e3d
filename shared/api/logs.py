"""Logs: on a terminal lines for a person, anywhere else each line a JSON object for a machine.

Prompts are in none of them unless asked for.
"""

from __future__ import annotations

import json
import logging
import sys
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


class TerminalFormatter(logging.Formatter):
    """A record as a person reads it: the time of day, the message, and what goes with it."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s  %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = getattr(record, "fields", {})
        told = [f"{name} {value}" for name, value in fields.items() if name != "request_id"]
        return "  ".join([super().formatMessage(record), *told])


def is_news(record: logging.LogRecord) -> bool:
    """Whether a record tells of anything but a caller who left before the call was whole."""
    return not (record.exc_info and isinstance(record.exc_info[1], ClientDisconnect))


def is_for_a_person(record: logging.LogRecord) -> bool:
    """Of the calls, and a page makes dozens, only those that failed."""
    return record.getMessage() != "call" or record.__dict__["fields"]["status"] >= 400


def log_to_stderr() -> None:
    """The other commands keep logs off the terminal; of a server they are the only sign."""
    logging.disable(logging.NOTSET)
    handler = logging.StreamHandler()
    handler.addFilter(is_news)
    level = logging.INFO
    if sys.stderr.isatty():
        handler.setFormatter(TerminalFormatter())
        handler.addFilter(is_for_a_person)
        level = logging.WARNING  # how uvicorn starts and stops is nobody's news
    else:
        handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("shared").setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").setLevel(level)
