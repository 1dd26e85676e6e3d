"""What a grid is made of, before it is drawn, and its sheet."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from shared.backends.fake import draw
from shared.errors import InvalidRequest
from space.page.grid import MOST_CELLS, NOTHING, plan
from space.page.sheet import draw_sheet

FIELDS: dict[str, Any] = {"prompt": "a fox", "seed": 7, "num_images": 4}


def test_two_settings_make_a_row_for_each_value_of_one_and_a_column_for_the_other() -> None:
    planned = plan(FIELDS, ("Steps", "4, 8"), ("Style", "cartoon, sticker, "))
    assert planned.columns == ("Steps 4", "Steps 8")
    assert planned.rows == ("cartoon", "sticker")
    last = planned.cells[1, 1]
    assert (last.prompt, last.steps, last.seed) == ("a fox, sticker", 8, 7)
    assert all(request.num_images == 1 for request in planned.cells.values())


def test_one_setting_makes_one_row_without_a_name() -> None:
    planned = plan(FIELDS, ("Seed", "1,2,3"))
    assert planned.rows == ("",)
    assert [request.seed for request in planned.cells.values()] == [1, 2, 3]


@pytest.mark.parametrize(
    ("across", "down", "told"),
    [
        (("Steps", " , "), (NOTHING, ""), "Steps has no values. Give some with commas between"),
        (("Steps", "4"), ("Steps", "8"), "Steps cannot vary in both directions"),
        (("Steps", "4, many"), (NOTHING, ""), "steps='many'"),
        (("Guidance", "99"), (NOTHING, ""), "Use guidance_scale=20"),
        (("Seed", ",".join(map(str, range(MOST_CELLS + 1)))), (NOTHING, ""), "Give fewer values"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_it_is(
    across: tuple[str, str], down: tuple[str, str], told: str
) -> None:
    with pytest.raises(InvalidRequest, match=told):
        plan(FIELDS, across, down)


def test_the_sheet_has_every_picture_in_its_place_and_room_for_those_to_come() -> None:
    blue, red = (Image.new("RGB", (64, 32), colour) for colour in ("blue", "red"))
    files = {}
    for place, image in (((0, 0), blue), ((1, 1), red)):
        file = BytesIO()
        image.save(file, "png")
        files[place] = file.getvalue()
    sheet = Image.open(BytesIO(draw_sheet(files, ["one", "two"], ["a", "b"], (64, 32), "x" * 999)))
    colours = {colour for _, colour in sheet.convert("RGB").getcolors(2**24) or []}
    assert {(0, 0, 255), (255, 0, 0)} <= colours
    assert sheet.width < 1000


def test_a_large_picture_is_made_smaller_on_the_sheet() -> None:
    file = BytesIO()
    draw(1, 1024, 512).save(file, "png")
    sheet = draw_sheet({(0, 0): file.getvalue()}, ["one"], [""], (1024, 512), "a fox")
    assert Image.open(BytesIO(sheet)).width < 600
