"""No answer is larger than its budget, whatever the size and format of the pictures."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import AsyncGenerator
from io import BytesIO
from pathlib import Path

import pytest
from mcp import Client
from mcp.types import CallToolResult
from PIL import Image

from shared.backends.fake import FakeBackend
from shared.checkpoints import CHECKPOINTS
from shared.contract import Done, Event, GenerationRequest, GenerationResult, ImageReady, Timings
from shared.images import encode_image
from shared.mcp.server import BUDGET
from tests.mcp.conftest import Make, data, images, words

pytestmark = pytest.mark.anyio


class Noise(FakeBackend):
    """Draws what compresses worst."""

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        for index in range(request.num_images):
            one = request.for_image(index)
            size = (one.width, one.height)
            picture = Image.frombytes("RGB", size, os.urandom(3 * one.width * one.height))
            yield ImageReady(index=index, seed=one.seed, image=encode_image(picture, one, None))
        seeds = tuple(request.image_seed(index) for index in range(request.num_images))
        told = {"timings": Timings(), "device": "none", "backend": "fake"}
        yield Done(result=GenerationResult(request=request, seeds=seeds, **told))


def wire_size(answer: CallToolResult) -> int:
    """Bytes of the answer, escaped as no transport escapes more."""
    return len(json.dumps(answer.model_dump(mode="json", by_alias=True, exclude_none=True)))


SIZES = sorted(
    {(side, side) for row in CHECKPOINTS for side in (row.min_size, row.width, row.max_size)}
    | {(256, 1280), (832, 480)}
)
LARGE = "wan2.1-14b"


@pytest.mark.parametrize("output_format", ["png", "webp", "jpeg"])
@pytest.mark.parametrize("size", SIZES, ids=str)
async def test_a_picture_of_any_size_and_format_stays_within_the_budget(
    make: Make, size: tuple[int, int], output_format: str
) -> None:
    wanted = {"prompt": "a", "checkpoint": LARGE, "width": size[0], "height": size[1]}
    async with Client(make(Noise())) as client:
        answer = await client.call_tool("generate_image", wanted | {"output_format": output_format})
        [made] = data(answer)["pictures"]
        shown = await client.call_tool("show_image", {"id": made["id"]})
    for reply in (shown, answer):
        assert wire_size(reply) <= BUDGET
        [block] = images(reply)
        with Image.open(BytesIO(base64.b64decode(block.data))) as picture:
            picture.load()
        assert f"image/{(picture.format or '').lower()}" == block.mime_type
        assert picture.width / picture.height == pytest.approx(size[0] / size[1], rel=0.02)
    is_original = base64.b64decode(block.data) == Path(made["original"]).read_bytes()
    said = "" if is_original else f"Shown at {picture.width}x{picture.height} as JPEG instead of"
    assert data(answer)["shown"].startswith(said)
    assert said in words(answer)


@pytest.mark.parametrize("letter", ["a", '"', "\U0001f98a"])
async def test_sixteen_large_pictures_with_the_longest_prompts_stay_within_the_budget(
    make: Make, letter: str
) -> None:
    text = letter * 2000
    wanted = {
        "prompt": text,
        "negative_prompt": text,
        "checkpoint": LARGE,
        "width": 512,
        "height": 512,
        "num_images": 16,
    }
    async with Client(make(Noise())) as client:
        answer = await client.call_tool("generate_image", wanted)
        listed = await client.call_tool("list_images", {"limit": 50})
    assert wire_size(answer) <= BUDGET
    assert len(data(answer)["pictures"]) == 16
    assert len(images(answer)) == 16
    assert wire_size(listed) <= BUDGET
    assert data(listed)["pictures"]


async def test_what_does_not_fit_is_counted_and_the_budget_is_a_setting(make: Make) -> None:
    wanted = {"prompt": "a", "checkpoint": LARGE, "width": 512, "height": 512, "num_images": 16}
    async with Client(make(Noise(), budget=30_000)) as client:
        answer = await client.call_tool("generate_image", wanted)
    told = data(answer)
    missing = 16 - len(images(answer))
    assert 0 < missing < 16
    assert f"{missing} not shown: the whole answer may have 30 kB." in told["shown"]
    assert wire_size(answer) <= 30_000


async def test_with_a_large_budget_the_original_itself_is_shown(make: Make) -> None:
    wanted = {"prompt": "a", "checkpoint": LARGE, "width": 1024, "height": 1024}
    async with Client(make(Noise(), budget=20_000_000)) as client:
        answer = await client.call_tool("generate_image", wanted)
    assert images(answer)[0].mime_type == "image/png"
    assert data(answer)["shown"] == ""
