"""`cygnet serve` as a person starts it: in a terminal, with a desktop around it or without."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from shared.api.logs import log_to_stderr

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent


class Terminal:
    """What a command wrote to a terminal so far."""

    def __init__(self, process: subprocess.Popen[bytes], screen: int) -> None:
        self.process, self._screen, self.text = process, screen, ""

    def until(self, pattern: str) -> re.Match[str]:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if found := re.search(pattern, self.text):
                return found
            with contextlib.suppress(OSError):  # nobody writes any more
                self.text += os.read(self._screen, 65536).decode().replace("\r\n", "\n")
        raise AssertionError(self.text)


@contextlib.contextmanager
def serving(folder: Path, **environment: str) -> Iterator[Terminal]:
    """A server in a terminal, with a desktop whose browser writes down what it is asked to show."""
    browser = folder / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" >> {folder}/shown\n')
    browser.chmod(0o755)
    desktop = {"DISPLAY": ":0", "BROWSER": f"{browser} %s &"}
    kept = {"PYTHONPATH": str(ROOT), "CYGNET_DATA_DIR": str(folder / "data"), "TERM": "dumb"}
    outside = {name: value for name, value in os.environ.items() if name != "SSH_CONNECTION"}
    controller, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "shared.cli", "serve", "--backend", "fake", "--port", "0"],
        stdout=terminal,
        stderr=terminal,
        env=outside | desktop | kept | environment,
    ) as process:
        os.close(terminal)
        try:
            yield Terminal(process, controller)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)
            os.close(controller)


def test_the_address_comes_last_and_the_page_opens(tmp_path: Path) -> None:
    with serving(tmp_path) as terminal:
        address = terminal.until(r"Press Ctrl-C to stop.*\n(http://127\.0\.0\.1:\d+)\n")[1]
        for _ in range(300):
            if (tmp_path / "shown").exists():
                break
            time.sleep(0.1)
        assert (tmp_path / "shown").read_text().split() == [address]
        for path in ("/", "/healthz", "/config", "/v1/models"):
            assert httpx.get(address + path, trust_env=False).status_code == 200
        assert httpx.get(address + "/v1/nothing", trust_env=False).status_code == 404
        terminal.until(r"call.*status 404")
    after = terminal.text.partition(f"{address}\n")[2].splitlines()
    [failed] = [line for line in after if line.strip("^C")]
    assert re.match(r"\d\d:\d\d:\d\d  call  method GET  path /v1/nothing  status 404", failed)


@pytest.mark.parametrize(
    "environment",
    [
        {"CYGNET_OPEN_BROWSER": "false"},
        {"DISPLAY": ""},
        {"SSH_CONNECTION": "10.0.0.1 1 10.0.0.2 22"},
    ],
    ids=str,
)
def test_no_browser_is_opened_where_it_is_not_wanted_or_not_seen(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    with serving(tmp_path, **environment) as terminal:
        address = terminal.until(r"http://127\.0\.0\.1:\d+\n")[0].strip()
        assert httpx.get(f"{address}/healthz", trust_env=False).status_code == 200
    assert not (tmp_path / "shown").exists()


def test_a_log_that_no_person_reads_is_whole_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.root.handlers[:], logging.root.level
    try:
        log_to_stderr()
        fields = {"status": 200, "path": "/"}
        logging.getLogger("shared.api").info("call", extra={"fields": fields})
    finally:
        logging.root.handlers[:], logging.root.level = before
    told = json.loads(capsys.readouterr().err)
    assert (told["message"], told["status"], told["path"]) == ("call", 200, "/")
