"""The browser of the tests: the machine's own Chromium, else the one that playwright fetches.

    python -m tests.chromium

fetches playwright's where there is none, and says nothing if it cannot: the tests do, at their end.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

NO_BROWSER = "there is no Chromium on this machine"


@functools.cache
def find() -> str | None:
    """The program; None if there is none."""
    for name in ("chromium", "google-chrome", "chromium-browser"):
        if program := shutil.which(name):
            return program
    with ThreadPoolExecutor(1) as thread:  # a test that asks may run in a loop
        own = thread.submit(_playwrights_own).result()
    return own if Path(own).is_file() else None


def _playwrights_own() -> str:
    with sync_playwright() as playwright:
        return playwright.chromium.executable_path


def launch_options() -> dict[str, Any]:
    """For `playwright.chromium.launch`. A machine without a Chromium skips the test; in CI it fails."""
    program = find()
    if program is None:
        if os.environ.get("CI"):
            pytest.fail(NO_BROWSER)
        pytest.skip(NO_BROWSER)
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    return {"executable_path": program, "args": quiet}


def left_out(skipped: list[Any]) -> str | None:
    """What to say after the tests if some of them, given as pytest's reports, had no browser."""
    number = sum(NO_BROWSER in str(report.longrepr) for report in skipped)
    if not number:
        return None
    python = os.path.relpath(sys.executable)
    return (
        f"{number} tests of the page were left out, for want of a browser. "
        f"To get one: {python} -m playwright install --with-deps chromium"
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    options = launch_options()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**options)
        yield browser
        browser.close()


def main() -> None:
    if find() is None:
        fetch = [sys.executable, "-m", "playwright", "install", "chromium"]
        subprocess.run(fetch, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
