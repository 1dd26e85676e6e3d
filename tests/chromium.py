"""The browser of the tests: the machine's own Chromium, because playwright's would have to be fetched."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright


def launch_options() -> dict[str, Any]:
    """For `playwright.chromium.launch`. A machine without a Chromium skips the test; in CI it fails."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("there is no Chromium; install it")
        pytest.skip("there is no Chromium on this machine")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    return {"executable_path": program, "args": quiet}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    options = launch_options()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**options)
        yield browser
        browser.close()
