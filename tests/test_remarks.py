"""What the result remarks is said at every door that shows a result."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import json
import logging
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.api import ApiOptions, create_api
from shared.api.deliverer import message
from shared.backends import config
from shared.backends.api_client import ApiBackend
from shared.backends.fake import FakeBackend
from shared.backends.modal.wire import as_event
from shared.backends.router import Router
from shared.cli import batch, generate
from shared.cli.__main__ import main
from shared.contract import Done, Event, GenerationRequest, collect, parse_request
from shared.gallery import Gallery
from shared.mcp import replies
from shared.mcp.jobs import Jobs
from shared.store import Store

SAID = "2 of 5 tokens of the prompt are unknown to this checkpoint: \U0001f98a, \u732b."
