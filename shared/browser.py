"""Opens the page for whoever started the server in a terminal, if a browser can show it there."""

from __future__ import annotations

import os
import sys
import threading
import webbrowser

from shared.settings import settings


def open_page(address: str) -> bool:
    """Whether a browser was asked to show the page; it is not waited for."""
    if not (settings().open_browser and sys.stdout.isatty() and _has_desktop()):
        return False
    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        return False
    if type(browser) is webbrowser.GenericBrowser:  # one of text, which would take the terminal
        return False
    threading.Thread(target=browser.open, args=[address], daemon=True).start()
    return True


def _has_desktop() -> bool:
    """Whether a window that opens is seen by the person at this terminal."""
    if "SSH_CONNECTION" in os.environ:
        return False
    if sys.platform in ("darwin", "win32"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
