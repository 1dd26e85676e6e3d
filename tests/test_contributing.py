"""The worked examples of CONTRIBUTING.md: each patch applies, the command after it draws, and what it adds
is there at every door."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client as PageClient
from mcp import Client

from shared.images import read_recipe

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
EXAMPLES = re.findall(r"^### (.*?)\n.*?^```diff\n(.*?)^```\n\n```sh\n(.*?)\n```", PAGE, re.M | re.S)


@dataclass(frozen=True)
class House:
    """A copy of the sources with what one example adds."""

    folder: Path
    command: list[str]
    """What the example says to run."""
    fields: dict[str, Any] = field(default_factory=dict)
    """What a request says to have what was added."""
    backend: str = "local"

    @property
    def added(self) -> str:
        return next(iter(self.fields.values()), self.backend)

    @property
    def environment(self) -> dict[str, str]:
        mine = {
            "PYTHONPATH": str(self.folder),
            "CYGNET_DATA_DIR": str(self.folder / "data"),
            "CYGNET_BACKEND": self.backend,
            "GRADIO_TEMP_DIR": str(self.folder / "gradio"),
        }
        return os.environ | mine

    def run(self, *words: str) -> str:
        """What a Python program of the house prints."""
        ran = subprocess.run(
            [sys.executable, *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def cygnet(self, *words: str) -> str:
        return self.run("-m", "shared.cli", *words)

    @contextlib.contextmanager
    def served(self) -> Iterator[str]:
        """Where `cygnet serve` of the house answers."""
        with subprocess.Popen(
            [sys.executable, "-m", "shared.cli", "serve", "--port", "0"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as server:
            try:
                assert server.stdout
                yield next(line.strip() for line in server.stdout if line.startswith("http"))
            finally:
                server.terminate()
                server.wait(60)

    def check(self, picture: bytes) -> None:
        """The picture was made as the example says, and its file says so."""
        fields = read_recipe(picture).fields
        assert {name: fields[name] for name in self.fields} == self.fields
        assert fields["seed"] == 7


ADDED: dict[str, dict[str, Any]] = {
    "Add a checkpoint": {"fields": {"checkpoint": "cygnet-tiny-draft"}},
    "Add a sampler": {"fields": {"scheduler": "euler-karras"}},
    "Add a backend": {"backend": "card"},
}


@pytest.fixture(scope="module", params=EXAMPLES, ids=[title for title, _, _ in EXAMPLES])
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> House:
    """A copy of the sources, with the weights of the original, and the example's patch."""
    title, patch, command = request.param
    folder = tmp_path_factory.mktemp("house")
    skip = shutil.ignore_patterns("__pycache__", "weights")
    for name in ("shared", "space"):
        shutil.copytree(ROOT / name, folder / name, ignore=skip)
    (folder / "shared/weights").symlink_to(ROOT / "shared/weights")
    subprocess.run(["git", "apply", "-"], cwd=folder, input=patch, text=True, check=True)
    return House(folder, shlex.split(command), **ADDED[title])


def test_a_worked_example_does_what_it_says(house: House) -> None:
    program, *words = house.command
    assert program == "cygnet"
    house.cygnet(*words)
    [picture] = house.folder.glob("*.png")
    house.check(picture.read_bytes())


def test_the_command_line_lists_what_was_added(house: House) -> None:
    unknown = [sys.executable, "-m", "shared.cli", "generate", "a fox", "--backend", "none"]
    refused = subprocess.run(
        unknown, cwd=house.folder, env=house.environment, capture_output=True, text=True
    )
    listed = (house.cygnet("generate", "--help"), house.cygnet("checkpoints"), refused.stderr)
    assert any(re.search(rf"\b{house.added}\b", text) for text in listed), listed


def test_a_batch_draws_with_it(house: House) -> None:
    columns = ",".join(["prompt", "seed", *house.fields])
    row = ",".join(["a red fox", "7", *house.fields.values()])
    (house.folder / "rows.csv").write_text(f"{columns}\n{row}\n")
    house.cygnet("batch", "rows.csv", "--out", "batch", "--backend", house.backend)
    [picture] = (house.folder / "batch").glob("*.png")
    house.check(picture.read_bytes())


def test_a_machine_of_modal_draws_with_it(house: House) -> None:
    request = {"prompt": "a red fox", "seed": 7, "checkpoint": "cygnet-tiny"} | house.fields
    told = json.loads(house.run("-c", MACHINE, house.backend, json.dumps(request)))
    assert [event["type"] for event in told] == ["image", "done"], told
    house.check(base64.b64decode(told[0]["image"]))


MACHINE = """
import asyncio, json, sys
from shared.backends import find_backend
from shared.backends.modal.methods import Methods
from shared.prices import Machine

async def run(name, request):
    methods = Methods(find_backend(name)(), request["checkpoint"], Machine(1, 1))
    try:
        return await methods.run(request)
    finally:
        await methods.aclose()

print(json.dumps(asyncio.run(run(sys.argv[1], json.loads(sys.argv[2])))))
"""


def test_the_api_the_page_and_mcp_offer_it_and_draw_with_it(house: House) -> None:
    call = {"prompt": "a red fox", "seed": 7} | house.fields
    with house.served() as url, httpx.Client(base_url=url, timeout=300) as http:
        if house.fields:
            offered = [http.get(path).text for path in ("/openapi.json", "/v1/models")]
            assert any(house.added in text for text in offered)
            choices = json.dumps(
                [part["props"] for part in http.get("/config").json()["components"]]
            )
            assert f'"{house.added}"' in choices
        model = {"model": call["checkpoint"]} if "checkpoint" in call else {}
        body = {name: value for name, value in call.items() if name != "checkpoint"} | model
        answer = http.post("/v1/images/generations", json=body | {"response_format": "b64_json"})
        house.check(base64.b64decode(answer.json()["data"][0]["b64_json"]))
        job = http.post("/v1/jobs", json=call).json()
        assert {name: job["request"][name] for name in house.fields} == house.fields
        page: Any = PageClient(url, verbose=False)
        drawn = page.submit(**call, api_name="/generate")
        drawn.result(timeout=300)
        [picture] = [event["image"] for event in drawn.outputs() if event.get("type") == "image"]
        house.check(Path(picture if isinstance(picture, str) else picture["path"]).read_bytes())
        asyncio.run(_mcp_offers_and_draws(house, f"{url}/mcp", call))


async def _mcp_offers_and_draws(house: House, url: str, call: dict[str, Any]) -> None:
    async with Client(url) as client:
        [tool] = [one for one in (await client.list_tools()).tools if one.name == "generate_image"]
        choices = [facts.get("enum", []) for facts in tool.input_schema["properties"].values()]
        assert any(house.added in names for names in choices)
        answer = await client.call_tool("generate_image", call | {"wait_seconds": 50})
        assert not answer.is_error and answer.structured_content
        request = answer.structured_content["request"]
        assert {name: request[name] for name in house.fields} == house.fields
        house.check(base64.b64decode(next(b.data for b in answer.content if b.type == "image")))


def test_there_is_an_example_for_each_thing_that_is_added() -> None:
    titles = re.findall(r"^### (.*)", PAGE, flags=re.M)
    assert titles == [title for title, _, _ in EXAMPLES]
    assert titles == [*ADDED]
