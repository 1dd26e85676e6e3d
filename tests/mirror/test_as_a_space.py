"""The Space as Spaces run it: its own files, its own environment, `python app.py`.

The environment is a new one, filled by the call of pip that Spaces make; Cygnet is not installed there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client
from playwright.sync_api import BrowserContext, Page, expect

from shared.backends.local import LocalBackend
from shared.backends.space_client import SpaceBackend
from shared.contract import ImageReady, Queued, Step, collect, parse_request
from shared.images import read_recipe
from shared.mirror import tree
from shared.mirror.card import read_card
from shared.settings import Acceleration
from tests.engine.conftest import one_thread
from tests.space.browser import (
    brightness,
    browser,
    context,
    draw,
    drawn,
    drop,
    previews_seen,
    visit,
    watch_previews,
)

__all__ = ["browser", "context", "one_thread"]

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

REQUEST = parse_request(
    {"prompt": "a red fox, 3d render", "seed": 7, "checkpoint": "cygnet-tiny-fast"}
)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository of the Space."""
    folder = tmp_path_factory.mktemp("as-a-space") / "app"
    tree.build(folder)
    return folder


@pytest.fixture(scope="module")
def python(folder: Path) -> Iterator[Path]:
    """The interpreter of an environment as Spaces make it."""
    subprocess.run([sys.executable, "-m", "venv", str(folder.parent / "venv")], check=True)
    python = folder.parent / "venv/bin/python"
    sdk_version = read_card((folder / "README.md").read_text()).sdk_version
    added = (f"gradio[oauth,mcp]=={sdk_version}", "uvicorn>=0.14.0", "websockets>=10.4", "spaces")
    install = ["-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check"]
    done = subprocess.run(
        [python, *install, "--requirement", "requirements.txt", *added],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    yield python
    shutil.rmtree(folder.parent / "venv")  # more than a gigabyte


@pytest.fixture(scope="module")
def url(folder: Path, python: Path) -> Iterator[str]:
    """The address of the app, once it answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder.parent),
        "SYSTEM": "spaces",
        "SPACE_ID": "swan/cygnet",
        "OMP_NUM_THREADS": "1",  # as in this process: sums in another order round differently
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_SERVER_PORT": str(port),
    }
    log = folder.parent / "log"
    with log.open("w") as written:
        command = [python, "app.py"]
        app = subprocess.Popen(command, cwd=folder, env=environment, stdout=written, stderr=written)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(url).is_success:
                    break
            assert app.poll() is None, log.read_text()
            time.sleep(0.1)
        else:
            pytest.fail(log.read_text() or "the app does not answer")
        yield url
    finally:
        app.terminate()
        app.wait(timeout=60)


def test_cygnet_is_not_installed_there(python: Path) -> None:
    found = "import importlib.util as u; print(u.find_spec('shared'), u.find_spec('modal'))"
    ran = subprocess.run([python, "-Ic", found], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["None", "None"]


def test_the_official_client_draws_with_it(url: str) -> None:
    client: Any = Client(url, verbose=False)
    fields = REQUEST.model_dump()
    job = client.submit(**fields, api_name="/generate")
    job.result(timeout=120)
    [picture] = [event["image"] for event in job.outputs() if event["type"] == "image"]
    assert read_recipe(Path(picture)).fields == fields
    client.close()


async def test_our_backend_gets_the_local_backends_picture_byte_for_byte(url: str) -> None:
    local, space = LocalBackend(Acceleration(device="cpu")), SpaceBackend(url)
    _, expected = await collect(local.generate(REQUEST))
    events = [event async for event in space.generate(REQUEST)]
    assert [event.image for event in events if isinstance(event, ImageReady)] == expected
    assert isinstance(events[0], Queued)
    steps = [event for event in events if isinstance(event, Step)]
    assert len(steps) == REQUEST.steps and all(step.preview for step in steps)
    status = await space.status()
    assert status.warm and "cygnet-tiny" in status.checkpoints
    await local.aclose()
    await space.aclose()


def test_the_same_process_offers_the_http_api(url: str) -> None:
    models = httpx.get(f"{url}/v1/models").json()["data"]
    assert "cygnet-tiny" in [model["id"] for model in models]


PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}


def download(tab: Page) -> bytes:
    """The file of the picture on the page."""
    with tab.expect_download() as download:
        tab.get_by_role("link", name="Download").click()
    return download.value.path().read_bytes()


@pytest.mark.parametrize("context", [PHONE | {"color_scheme": "dark"}], ids=["dark"], indirect=True)
def test_a_person_draws_stops_and_restores_on_a_phone_in_the_dark(
    url: str, context: BrowserContext
) -> None:
    tab = visit(context.new_page(), url)
    assert brightness(tab) < 60
    watch_previews(tab)
    draw(tab, "a red fox, 3d render")
    drawn(tab)
    assert previews_seen(tab) > 1
    fox = download(tab)
    seed = str(read_recipe(fox).fields["seed"])

    tab.fill("#pictures input", "16")
    draw(tab, "a blue whale")
    tab.wait_for_selector(".preview")
    tab.click("#stop")
    tab.wait_for_selector("#draw:visible")
    assert tab.locator("figure img").count() < 16
    expect(tab.locator("#prompt textarea")).to_have_value("a blue whale")
    expect(tab.get_by_role("alert")).to_have_count(0)

    drop(tab, fox)
    expect(tab.locator("#prompt textarea")).to_have_value("a red fox, 3d render")
    expect(tab.locator("#seed input")).to_have_value(seed)
    expect(tab.locator("#pictures input")).to_have_value("1")
    tab.click("#draw")
    expect(tab.locator(".stage .prompt")).to_have_text("a red fox, 3d render")
    drawn(tab)
    assert download(tab) == fox
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
