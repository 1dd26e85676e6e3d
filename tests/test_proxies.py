"""What is this machine's stays on it, whatever proxies the environment names; the rest goes through them."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from shared import http_clients, proxies
from shared.backends import open_backend
from shared.backends.api_client import ApiBackend
from shared.backends.config import BackendConfig
from shared.backends.space_client import SpaceBackend
from shared.cli import main
from shared.contract import collect, parse_request
from shared.errors import BackendUnavailable, CygnetError, InvalidSetting, PackageMissing
from shared.mcp.client import Target, list_tools
from shared.settings import settings

ROOT = Path(__file__).parents[1]
KINDS = ("http_proxy", "https_proxy", "all_proxy")
SECRET = "hunter2"
PROMPT = "a fox that is nobody's business"

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Recorder:
    """A proxy that notes what it is sent, and refuses it."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.url = ""
        self._loop = asyncio.new_event_loop()

    @contextlib.contextmanager
    def listening(self) -> Iterator[Recorder]:
        """In a thread, so that it answers while the test waits for a command."""
        server = self._loop.run_until_complete(asyncio.start_server(self._note, "127.0.0.1", 0))
        self.url = f"http://reader:{SECRET}@127.0.0.1:{server.sockets[0].getsockname()[1]}"
        thread = threading.Thread(target=self._loop.run_forever)
        thread.start()
        yield self
        self._loop.call_soon_threadsafe(self._loop.stop)
        thread.join()
        server.close()
        self._loop.run_until_complete(server.wait_closed())
        self._loop.close()

    async def _note(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heard.append(await reader.read(2**16))
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()


@pytest.fixture(scope="module")
def one_recorder() -> Iterator[Recorder]:
    with Recorder().listening() as recorder:
        yield recorder


@pytest.fixture
def recorder(one_recorder: Recorder) -> Recorder:
    """It has heard nothing yet."""
    one_recorder.heard.clear()
    return one_recorder


VALUES = {
    "one that records": "RECORDER",
    "as desktops write it": f"socks://reader:{SECRET}@127.0.0.1:7890",
    "without its package": f"socks5h://reader:{SECRET}@127.0.0.1:7890",
    "garbage": "::://[",
}


@pytest.fixture(scope="module", params=VALUES.values(), ids=[*VALUES])
def value(request: pytest.FixtureRequest, one_recorder: Recorder) -> str:
    return one_recorder.url if request.param == "RECORDER" else request.param


@pytest.fixture(scope="module")
def server(value: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`cygnet serve`, started with that proxy in all variables; its address."""
    names = [*KINDS, *map(str.upper, KINDS)]
    own = {"CYGNET_DATA_DIR": str(tmp_path_factory.mktemp("data"))} | dict.fromkeys(names, value)
    command = [sys.executable, "-m", "shared.cli", "serve", "--backend", "fake", "--port", "0"]
    with subprocess.Popen(
        command, env=os.environ | own, cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        address = process.stdout.readline().strip()
        assert address, "it does not start"
        yield address
        process.terminate()


@pytest.fixture(params=[str.lower, str.upper], ids=["small", "capital"])
def environment(
    request: pytest.FixtureRequest, value: str, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That proxy in this process, and the server as every backend's address."""
    for kind in KINDS:
        monkeypatch.setenv(request.param(kind), value)
    for variable in ("CYGNET_API_URL", "CYGNET_MODAL_URL", "CYGNET_SPACE"):
        monkeypatch.setenv(variable, server)
    settings.cache_clear()


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("backend", ["api", "modal", "space"])
def test_the_command_line_draws_on_a_server_of_this_machine(
    backend: str, folder: Path, recorder: Recorder
) -> None:
    asked = [PROMPT, "--backend", backend, "--out", "fox.png", "--quiet"]
    assert main(["generate", *asked]) == 0
    assert (folder / "fox.png").is_file()
    assert recorder.heard == []


@pytest.mark.usefixtures("environment")
def test_a_batch_draws_on_a_server_of_this_machine(folder: Path, recorder: Recorder) -> None:
    (folder / "prompts.txt").write_text(f"{PROMPT}\na swan\n")
    assert main(["batch", "prompts.txt", "--backend", "api", "--out", "out"]) == 0
    assert len(list((folder / "out").glob("*.png"))) == 2
    assert recorder.heard == []


@pytest.mark.usefixtures("environment")
def test_backends_of_this_machine_are_seen(
    capsys: pytest.CaptureFixture[str], recorder: Recorder
) -> None:
    assert main(["backends", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert all(rows[name]["healthy"] for name in ("api", "modal", "space"))
    assert recorder.heard == []


@pytest.mark.usefixtures("environment")
def test_an_mcp_server_of_this_machine_is_called(
    server: str, capsys: pytest.CaptureFixture[str], recorder: Recorder
) -> None:
    assert main(["mcp", "tools", "--server", f"{server}/mcp", "--json"]) == 0
    assert "generate_image" in capsys.readouterr().out
    assert recorder.heard == []


# The engine's process is started anew for each of these, so that one variable has to do.


@pytest.mark.parametrize("value", ["RECORDER", VALUES["as desktops write it"]], indirect=True)
def test_an_agent_draws_on_this_machine_over_stdio(
    value: str, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    for kind in KINDS:
        monkeypatch.setenv(kind, value)
    monkeypatch.setenv("CYGNET_DATA_DIR", str(folder / "data"))
    words = ["--prompt", PROMPT, "--checkpoint", "cygnet-tiny-fast", "--seed", "7"]
    call = ["mcp", "call", "--save", "out", "--quiet", "generate_image", *words]
    assert main(call) == 0
    assert len(list((folder / "out").glob("*.png"))) == 1
    assert recorder.heard == []


ELSEWHERE = "http://studio.example:8000"


def backends(address: str) -> list[Any]:
    quick: Any = {"wait": lambda *_: 0.0}
    return [ApiBackend(address, SECRET, **quick), SpaceBackend(address, key=SECRET, **quick)]


@pytest.mark.parametrize("variable", [*KINDS, *map(str.upper, KINDS)])
async def test_calls_to_the_network_go_through_the_proxy(
    variable: str, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, recorder.url)
    scheme = "https" if "https" in variable.lower() else "http"
    for backend in backends(ELSEWHERE.replace("http", scheme)):
        recorder.heard.clear()
        assert not (await backend.status()).healthy
        await backend.aclose()
        assert recorder.heard and b"studio.example:8000" in recorder.heard[0]
    recorder.heard.clear()
    with pytest.raises(CygnetError):
        await list_tools(Target(f"{scheme}://studio.example:8000/mcp"))
    assert b"studio.example:8000" in recorder.heard[0]
    recorder.heard.clear()


async def test_what_no_proxy_names_is_called_directly(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("all_proxy", recorder.url)
    for spared in ("studio.example", ".example", "studio.example:8000", "a.b, studio.example", "*"):
        monkeypatch.setenv("no_proxy", spared)
        assert proxies.proxy_for("http", "studio.example", 8000) is None, spared
        assert spared == "*" or proxies.proxy_for("http", "other.org", 8000), spared


@pytest.mark.parametrize("variable", [*KINDS, *map(str.upper, KINDS)])
@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (f"socks://reader:{SECRET}@127.0.0.1:7890", InvalidSetting),
        (f"socks4://reader:{SECRET}@127.0.0.1:7890", InvalidSetting),
        (f"ftp://reader:{SECRET}@127.0.0.1:7890", InvalidSetting),
        (f"{SECRET}://127.0.0.1:7890", InvalidSetting),
        (f"http://reader:{SECRET}@127.0.0.1:port", InvalidSetting),
        (f"http://reader:{SECRET}@[127.0.0.1", InvalidSetting),
        (f"http://reader:{SECRET}@ 127.0.0.1:7890", InvalidSetting),
        (f"http://{SECRET}:99999", InvalidSetting),
        ("://", InvalidSetting),
        ("http://", InvalidSetting),
        (f"socks5://reader:{SECRET}@127.0.0.1:7890", PackageMissing),
        (f"SOCKS5h://reader:{SECRET}@127.0.0.1:7890", PackageMissing),
    ],
)
async def test_a_proxy_that_cannot_be_used_is_named_without_its_password(
    variable: str, value: str, kind: type[CygnetError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    scheme = "https" if "https" in variable.lower() else "http"
    address = ELSEWHERE.replace("http", scheme)
    told: list[CygnetError] = []
    for backend in backends(address):
        with pytest.raises(kind, match=variable) as refused:
            await collect(backend.generate(parse_request({"prompt": "a fox"})))
        told.append(refused.value)
        assert variable in (await backend.status()).detail
        await backend.aclose()
    with pytest.raises(kind, match=variable) as refused:
        await list_tools(Target(f"{address}/mcp"))
    for error in (*told, refused.value):
        assert SECRET not in str(error)
        assert not error.began
        assert variable in error.next_step


async def test_a_proxy_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://reader:{SECRET}@127.0.0.1:1")
    api, space = backends(ELSEWHERE)
    for backend in (api, space):
        with pytest.raises(BackendUnavailable, match=r"the proxy of http_proxy") as refused:
            await collect(backend.generate(parse_request({"prompt": "a fox"})))
        assert SECRET not in str(refused.value)
        await backend.aclose()


def test_the_hub_is_called_by_the_same_rule(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    http_clients.keep_the_hub_to_it()
    session = huggingface_hub.get_session()
    monkeypatch.setenv("http_proxy", recorder.url)
    assert session.get(f"{ELSEWHERE}/api").status_code == 502
    assert b"studio.example" in recorder.heard.pop()
    with pytest.raises(Exception, match="refused"):
        session.get("http://127.0.0.1:1/api")
    assert recorder.heard == []
    monkeypatch.setenv("http_proxy", "socks://127.0.0.1:7890")
    with pytest.raises(Exception, match="http_proxy") as refused:
        session.get(f"{ELSEWHERE}/api")
    assert isinstance(http_clients.proxy_fault(refused.value), InvalidSetting)


LOOPBACK = "127.0.0.1 127.8.9.10 127.1 2130706433 0x7f.1 0.0.0.0 0 localhost LOCALHOST localhost. a.localhost"
LOOPBACK += " ::1 [::1] :: ::ffff:127.0.0.1"


@pytest.mark.parametrize("host", LOOPBACK.split())
def test_this_machine_is_known_under_each_of_its_names(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:7890")
    assert proxies.proxy_for("http", host, 8000) is None
    assert proxies.proxy_for("https", host) is None


@pytest.mark.parametrize(
    "host", ["8.8.8.8", "10.0.0.1", "localhost.example", "notlocalhost", "128.0.0.1", "::2", ""]
)
def test_another_machine_is_not_taken_for_this_one(host: str) -> None:
    assert not proxies.is_this_machine(host)


def test_small_letters_go_before_capitals_and_emptied_ones_name_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://capital:1")
    monkeypatch.setenv("http_proxy", "http://small:1")
    assert proxies.proxy_for("http", "a.example") == proxies.Proxy("http://small:1", "http_proxy")
    monkeypatch.setenv("http_proxy", "")
    assert proxies.proxy_for("http", "a.example") is None
    monkeypatch.delenv("http_proxy")
    found = proxies.proxy_for("http", "a.example")
    assert found == proxies.Proxy("http://capital:1", "HTTP_PROXY")
    assert "capital" not in repr(found)


def test_the_environment_is_as_it_was_after_proxies_were_hidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks://127.0.0.1:7890")
    before = dict(os.environ)
    with pytest.raises(ZeroDivisionError), proxies.hidden():
        assert "ALL_PROXY" not in os.environ
        raise ZeroDivisionError
    assert dict(os.environ) == before


def test_an_import_that_fails_for_another_reason_is_no_missing_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> Any:
        raise ImportError("libcudart.so.12: cannot open shared object file")

    monkeypatch.setattr("shared.backends._OPENERS", {"fake": broken})
    with pytest.raises(ImportError, match="libcudart"):
        open_backend(BackendConfig(name="fake", kind="fake"))


# Where a client is made, and of what: by name of the module, and what makes one.
MAKERS = {
    "httpx": {"Client", "AsyncClient", "get", "post", "put", "delete", "head", "request", "stream"},
    "requests": {"get", "post", "put", "delete", "head", "request", "Session"},
    "urllib.request": {"urlopen", "build_opener", "OpenerDirector", "urlretrieve"},
    "http.client": {"HTTPConnection", "HTTPSConnection"},
    "urllib3": {"PoolManager", "request"},
    "aiohttp": {"ClientSession", "request"},
    "websockets": {"connect"},
    "gradio_client": {"Client"},
    "openai": {"OpenAI", "AsyncOpenAI"},
    "mcp.client.streamable_http": {"create_mcp_http_client"},
    "mcp.client.sse": {"sse_client"},
}
MAKERS["httpx2"] = MAKERS["httpx"]
TRANSPORTS = {"HTTPTransport", "AsyncHTTPTransport"}
PLACE = "shared/http_clients.py"


def makers(source: str) -> Iterator[str]:
    """What of `MAKERS` a module uses, under whatever name, other than as a type."""
    names: dict[str, str] = {}
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    types = {
        id(part)
        for node in ast.walk(tree)
        for kind in ("annotation", "returns")
        if isinstance(whole := getattr(node, kind, None), ast.AST)
        for part in ast.walk(whole)
    }
    for node in ast.walk(tree):
        if id(node) in types or not isinstance(node, ast.Attribute | ast.Name):
            continue
        dotted = ast.unparse(node)
        head = next((name for name in names if f"{dotted}.".startswith(f"{name}.")), None)
        if head is None:
            continue
        module, _, last = (names[head] + dotted[len(head) :]).rpartition(".")
        if last in MAKERS.get(module, ()) or last in TRANSPORTS:
            yield f"{module}.{last}"


OURS = [
    path
    for path in subprocess.run(
        ["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    if not path.startswith("tests/")
]


@pytest.mark.parametrize("path", OURS)
def test_one_place_makes_the_http_clients(path: str) -> None:
    made = sorted(set(makers((ROOT / path).read_text())))
    assert path == PLACE or not made, f"{path} makes clients of its own: {made}"


def test_the_one_place_and_other_spellings_are_found() -> None:
    assert {"httpx.AsyncClient", "httpx2.AsyncClient"} <= set(makers((ROOT / PLACE).read_text()))
    for source in (
        "import httpx as web\nweb.get('http://127.0.0.1')",
        "from httpx import AsyncClient as C\nC()",
        "import urllib.request\nurllib.request.urlopen('http://127.0.0.1')",
        "from urllib import request\nrequest.urlopen('http://127.0.0.1')",
        "def f():\n import httpx2\n return httpx2.AsyncHTTPTransport()",
    ):
        assert list(makers(source)), source
