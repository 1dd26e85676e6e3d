"""How soon the page is there: ours beside a bare Gradio page, in one run on one machine.

python -m benchmarks.page

Two servers stand side by side, and a browser without a cache opens them in turn. The first paint is
Chromium's own first-contentful-paint; "usable" is when the button can be pressed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from benchmarks.local import cpu

ROOT = Path(__file__).parents[1]

HELLO = """
import gradio as gr
page = gr.Interface(lambda name: f"Hello {name}", "textbox", "textbox")
page.launch(server_port=PORT, ssr_mode=False, quiet=True)
"""

OURS = """
import sys
from shared.cli import main
sys.exit(main(["serve", "--backend", "fake", "--port", "PORT"]))
"""

PAINT = """() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime"""


@contextlib.contextmanager
def serving(program: str, port: int) -> Iterator[str]:
    """A server that is there, in a process of its own."""
    with tempfile.TemporaryDirectory() as data:
        command = [sys.executable, "-c", program.replace("PORT", str(port))]
        environment = {"PATH": "/usr/bin:/bin", "CYGNET_DATA_DIR": data, "HOME": data}
        environment["GRADIO_ANALYTICS_ENABLED"] = "False"
        server = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        url = f"http://127.0.0.1:{port}/"
        try:
            while not _answers(port):
                assert server.poll() is None, "the server has ended"
            yield url
        finally:
            server.terminate()
            server.wait()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2):
        return True
    return False


def opened(browser: Browser, url: str) -> tuple[float, float]:
    """Seconds to the first paint, and until it can be used."""
    context = browser.new_context()
    tab = context.new_page()
    tab.goto(url, wait_until="commit")
    tab.wait_for_selector("button.primary:visible")
    usable = tab.evaluate("performance.now()") / 1000
    painted = tab.evaluate(PAINT) / 1000
    context.close()
    return painted, usable


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--port", type=int, default=7790)
    args = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with (
        sync_playwright() as playwright,
        serving(HELLO, args.port) as hello,
        serving(OURS, args.port + 1) as ours,
    ):
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        taken: dict[str, list[tuple[float, float]]] = {hello: [], ours: []}
        for turn in range(args.repetitions + 1):
            for url, rows in taken.items():
                row = opened(browser, url)
                if turn:  # the first warms the servers up
                    rows.append(row)
        browser.close()
    print(f"{cpu()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}.")
    print(f"Gradio {version('gradio')}, Chromium {browser.version}.")
    print(f"Medians of {args.repetitions} repetitions, the two pages taking turns.\n")
    print("| | ours | bare Gradio | ratio |\n| --- | ---: | ---: | ---: |")
    names = ("first paint, s", "usable, s")
    for column, name in enumerate(names):
        one, other = (statistics.median(row[column] for row in taken[url]) for url in (ours, hello))
        print(f"| {name} | {one:.2f} | {other:.2f} | **{one / other:.2f}x** |")


if __name__ == "__main__":
    main()
