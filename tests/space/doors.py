"""The programs that serve the page, each as its users start it, with a secret beside them."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
SERVE = [sys.executable, "-m", "shared.cli", "serve", "--backend", "fake", "--port"]
SPACE = [sys.executable, "-m", "space.app"]
DOORS = {
    "serve": ([*SERVE, "{port}"], ""),
    "serve with keys": ([*SERVE, "{port}"], "right other"),
    "a Space": (SPACE, ""),
    "a Space with keys": (SPACE, "right other"),
}


class Door:
    """A server, and the secret beside it that nobody may have. `client` shows a key where one is asked."""

    def __init__(self, client: httpx.Client, folder: Path, keys: str, is_public: bool) -> None:
        self.client = client
        self.folder = folder
        self.data = folder / "data"
        self.keys = keys
        self.is_public = is_public
        self.log = folder / "log"
        self.secret = folder / "secret.txt"
        self.word = f"the-secret-of-this-machine-{os.urandom(8).hex()}"
        self.secret.write_text(self.word)
        self.secret.chmod(0o600)
        (folder / "link").symlink_to(self.secret)
        (folder / "above").symlink_to(folder)

    def has_told(self, answer: httpx.Response) -> bool:
        return any(told in answer.text for told in (self.word, "SQLite format", "PATH="))

    def copies(self) -> list[Path]:
        """Files, wherever the server may have put one, in which the secret is."""
        places = (self.data, Path(tempfile.gettempdir()) / "gradio")
        files = [path for place in places for path in place.rglob("*") if path.is_file()]
        word = self.word.encode()
        return [path for path in files if word in path.read_bytes()]


def environment(data: Path, keys: str = "", port: int = 0) -> dict[str, str]:
    given = {name: value for name, value in os.environ.items() if not name.startswith("CYGNET_")}
    return given | {
        "CYGNET_BACKEND": "fake",
        "CYGNET_DATA_DIR": str(data),
        "CYGNET_API_KEY": keys,
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_SERVER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture(scope="module", params=DOORS)
def door(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Door]:
    command, keys = DOORS[request.param]
    folder = tmp_path_factory.mktemp("door")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (folder / "log").open("w") as log:
        app = subprocess.Popen(
            [word.format(port=port) for word in command],
            cwd=ROOT,
            env=environment(folder / "data", keys, port),
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{port}"
    headers = {"Authorization": f"Bearer {keys.split()[0]}"} if keys else {}
    try:
        while True:
            assert app.poll() is None, (folder / "log").read_text()
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/healthz").is_success:
                    break
            time.sleep(0.05)  # that it never answers is left to the time limit
        with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
            yield Door(client, folder, keys, "Space" in request.param and not keys)
    finally:
        app.terminate()
        app.wait(timeout=60)
