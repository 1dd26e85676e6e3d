"""The recipes of other programs are read, and no other text is taken for one."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image

from shared.errors import NoRecipeInImage, UnreadableImage
from shared.images import parse_a1111, read_recipe
from shared.images.texts import NAMES
from tests.images import places
from tests.images.forms import A1111, COMFYUI, FIELDS, FORMS, NEGATIVE, PROMPT, SETTINGS, graph
from tests.images.places import PLACES, PNG_PLACES, named, png, saved


@pytest.mark.parametrize("form", FORMS)
def test_a_recipe_is_read_in_every_form_from_every_place(form: str) -> None:
    writer, text, unused = FORMS[form]
    for place, put in PLACES.items():
        recipe = read_recipe(put(text))
        assert (recipe.writer, recipe.fields) == (writer, FIELDS), place
        assert not unused or unused in recipe.ignored, place


@pytest.mark.parametrize("form", FORMS)
def test_a_recipe_is_read_from_every_chunk_of_a_png(form: str) -> None:
    writer, text, _ = FORMS[form]
    for name in {*NAMES, "anything"} - {"Dream"}:
        for place, put in PNG_PLACES.items():
            recipe = read_recipe(put(name, text))
            assert (recipe.writer, recipe.fields) == (writer, FIELDS), (name, place)


NO_RECIPES = {
    "an iPhone's": "Screenshot",
    "a camera's": "Hisilicon K3",
    "nothing": "   ",
    "a caption": "A red fox in the snow, taken in Hokkaido.",
    "a caption with names": "Model: Anna, Size: large, Version: final",
    "a structured caption": "a red fox\nstyle: 3d, lighting: soft, background: blue",
    "a list of steps": "Steps: first wash, then dry. Size: large",
    "steps alone": "a fox\nSteps: 20",
    "steps within a word": "a fox\nMySteps: 20, Sampler: Euler",
    "an editor's": "Created with GIMP",
    "JSON": '{"title": "a fox", "tags": ["red"]}',
    "JSON with a prompt alone": '{"prompt": "a fox"}',
    "JSON that is cut off": '{"sui_image_params": {"prompt": "a fo',
    "JSON of a list": '["a fox", 7]',
    "a graph without a sampler": '{"1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}}}',
    "a graph of nothing": '{"1": {"class_type": "KSampler", "inputs": {"positive": 5, "seed": {}}}}',
    "a drawing of a graph": '{"nodes": [{"id": 1, "type": "KSampler"}], "links": []}',
}


@pytest.mark.parametrize("text", NO_RECIPES.values(), ids=NO_RECIPES)
def test_another_text_is_no_recipe_wherever_it_lies(text: str) -> None:
    pictures = [put(text) for put in PLACES.values()]
    pictures += [named(name, text) for name in (*NAMES, "workflow", "Title", "Software")]
    for picture in pictures:
        with pytest.raises(NoRecipeInImage):
            read_recipe(picture)


@pytest.mark.parametrize("tag", ["Make", "Model", "ImageDescription"])
@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "JPEG"])
def test_comfyuis_words_before_its_graph_are_understood(tag: str, file_format: str) -> None:
    block = Image.Exif()
    block[ExifTags.Base[tag].value] = f"prompt:{json.dumps(graph())}"
    block[ExifTags.Base.Software.value] = "ComfyUI"
    assert read_recipe(saved(file_format, exif=block.tobytes())).fields == FIELDS


def test_a_cameras_name_is_not_a_text() -> None:
    block = Image.Exif()
    block[ExifTags.Base.Make.value] = "Steps: 20, Seed: 7"
    with pytest.raises(NoRecipeInImage):
        read_recipe(saved("JPEG", exif=block.tobytes()))


def test_what_is_behind_and_in_place_of_the_settings_is_listed_whole() -> None:
    assert read_recipe(named("parameters", FORMS["dynamic prompts"][1])).ignored == {
        "Template": "a {red|blue} fox\nof two lines",
        "Negative Template": "blurry",
    }
    ignored = read_recipe(named("parameters", FORMS["A1111 and its extensions"][1])).ignored
    assert ignored["ADetailer prompt"] == "a face, Steps: 3"
    assert ignored["ControlNet 0"] == "Module: depth, Model: d, Weight: 1"
    assert json.loads(ignored["Hashes"]) == {"vae": "63", "model": "6c"}
    civitai = read_recipe(named("parameters", FORMS["Civitai's generator"][1])).ignored
    assert json.loads(civitai["Civitai resources"])[0]["modelVersionId"] == 1
    comfyui = read_recipe(named("prompt", json.dumps(COMFYUI["ControlNet, a seed node"]))).ignored
    assert comfyui["ControlNetApplyAdvanced strength"] == "0.8"
    assert comfyui["KSamplerAdvanced scheduler"] == "normal"


def test_a_list_in_a_setting_is_not_cut_at_its_commas() -> None:
    recipe = parse_a1111(f"a\n{SETTINGS}, Styles: one, two, Guidance: (1.5, 0.8), Version: 1")
    assert recipe and recipe.ignored == {
        "Styles": "one, two",
        "Guidance": "(1.5, 0.8)",
        "Version": "1",
    }


def test_a_prompts_own_lines_stay_in_it() -> None:
    structured = "a red fox\nstyle: 3d, lighting: soft, background: blue"
    recipe = parse_a1111(f"{structured}\n{SETTINGS}")
    assert recipe and recipe.fields["prompt"] == structured
    confusing = "a board that says Steps: 3, Seed: 4\nSize: huge, and Steps: 9, Seed: 1"
    recipe = parse_a1111(f"{confusing}\nNegative prompt: {confusing}\n{SETTINGS}")
    assert recipe and recipe.fields == FIELDS | {
        "prompt": confusing,
        "negative_prompt": confusing,
    }


def test_a_prompt_that_begins_like_json_is_a_prompt() -> None:
    recipe = read_recipe(named("parameters", f"{{red|blue}} fox\n{SETTINGS}"))
    assert recipe.fields["prompt"] == "{red|blue} fox"


@pytest.mark.parametrize("form", FORMS)
def test_a_seed_of_minus_one_is_drawn_anew(form: str) -> None:
    text = FORMS[form][1]
    for written in ("Seed: 7", '"seed": 7', '\\"seed\\": 7', '"seed": "7"', '"noise_seed": 7'):
        text = text.replace(written, written.replace("7", "-1"))
    recipe = read_recipe(named("parameters", text))
    if "seed node" not in form:
        assert recipe.fields == {name: value for name, value in FIELDS.items() if name != "seed"}
    assert "-1" not in recipe.ignored.values()


SWITCHES = {
    "the first that is there": {"any_01": ["31", 0], "any_02": ["32", 0]},
    "a number": {"select": 1, "input1": ["31", 0], "input2": ["32", 0]},
    "the second number": {"Input": 2, "text1": ["32", 0], "text2": ["31", 0]},
    "true": {"switch": True, "on_false": ["32", 0], "on_true": ["31", 0]},
    "false": {"boolean": False, "on_true": ["32", 0], "on_false": ["31", 0]},
    "what came of it": {"text_a": "a red", "text_b": "fox", "result": PROMPT},
}


@pytest.mark.parametrize("inputs", SWITCHES.values(), ids=SWITCHES)
def test_a_switch_of_a_graph_gives_the_text_that_was_drawn(inputs: dict[str, Any]) -> None:
    nodes = {
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": ["30", 0], "clip": ["4", 1]}},
        "30": {"class_type": "Switch", "inputs": inputs},
        "31": {"class_type": "String", "inputs": {"string": PROMPT}},
        "32": {"class_type": "String", "inputs": {"string": "an owl"}},
    }
    recipe = read_recipe(named("prompt", json.dumps(graph(**nodes))))
    assert recipe.fields["prompt"] == PROMPT


def test_a_switch_of_encoded_texts_is_followed_too() -> None:
    ways = {"select": 2, "input1": ["7", 0], "input2": ["60", 0]}
    nodes = {
        "6": {"class_type": "ImpactSwitch", "inputs": ways},
        "60": {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox", "clip": ["4", 1]}},
    }
    recipe = read_recipe(named("prompt", json.dumps(graph(**nodes))))
    assert (recipe.fields["prompt"], recipe.fields["negative_prompt"]) == ("a fox", NEGATIVE)


def test_bars_between_all_parts_belong_to_none() -> None:
    text = (
        "Prompt: a red | blue fox | Negative prompt: blurry | Steps: 20 | Seed: 7 | Sampler: UniPC"
    )
    recipe = read_recipe(named("parameters", text))
    assert recipe.fields["prompt"] == "a red | blue fox"
    assert recipe.fields["negative_prompt"] == "blurry"


def test_windows_letters_are_read_as_such() -> None:
    text = "un ren\xe9 \u201croux\u201d\nSteps: 20, Seed: 7".encode("cp1252")
    recipe = read_recipe(png(places.plain("parameters", text)))
    assert recipe.fields["prompt"] == "un ren\xe9 \u201croux\u201d"


@pytest.mark.parametrize("name", ["Description", "Comment"])
def test_a_long_text_that_is_no_recipe_is_no_fault(name: str) -> None:
    with pytest.raises(NoRecipeInImage):
        read_recipe(named(name, "a word " * 20_000))


@pytest.mark.parametrize("name", ["Description", "Comment"])
def test_a_description_that_cannot_be_read_is_no_fault(name: str) -> None:
    for chunk in (
        places.plain(name, b"a word " * 200_000),
        places.plain(name, b"a word")[:-1] + b"?",
    ):
        with pytest.raises(NoRecipeInImage):
            read_recipe(png(chunk))


def test_latin_letters_and_others_are_read_from_the_same_chunk() -> None:
    for letters, code in (("renard très rusé", "latin-1"), ("狐狸 🦊 très", "utf-8")):
        data = f"{letters}\n{SETTINGS}".encode(code)
        for one in (places.plain("parameters", data), places.packed("parameters", data)):
            assert read_recipe(png(one)).fields["prompt"] == letters


@pytest.mark.parametrize("code", ["unicode, big-endian", "unicode, little-endian"])
def test_a_prompt_of_chinese_is_not_read_in_the_wrong_order(code: str) -> None:
    text = f"{'一' * 900}\n{SETTINGS}"
    comment = places.exif(places.CODES[code](text))
    assert read_recipe(saved("JPEG", exif=comment)).fields["prompt"] == "一" * 900


def test_invokeais_first_two_forms_are_read() -> None:
    whole = f"{PROMPT} [{NEGATIVE}]"
    lines = {
        f'"{whole}" -s 20 -S 7 -W 512 -H 256 -C 6.5 -A k_euler -G 0.9',
        f'"{whole}" -s20 -S7 -W512 -H256 -C6.5 -Ak_euler -cf 0.75',
        f"{whole} -s 20 -S 7 -W 512 -H 256 -C 6.5 -A k_euler",
    }
    image = {"steps": 20, "seed": 7, "width": 512, "height": 256, "cfg_scale": 6.5}
    for prompt in (whole, [{"prompt": whole, "weight": 1.0}]):
        about = {"image": {"prompt": prompt, "sampler": "k_euler", **image}, "app_id": "invoke-ai"}
        recipe = read_recipe(named("sd-metadata", json.dumps(about)))
        assert recipe.fields == FIELDS | {"scheduler": "euler"}
    for line in lines:
        recipe = read_recipe(named("Dream", line))
        assert (recipe.writer, recipe.fields) == ("invokeai", FIELDS | {"scheduler": "euler"})
    with pytest.raises(NoRecipeInImage):
        read_recipe(named("Dream", "I have a dream -s"))


def test_easy_diffusion_gives_each_setting_a_chunk() -> None:
    settings = {
        "Prompt": PROMPT,
        "Negative Prompt": NEGATIVE,
        "Seed": "7",
        "Stable Diffusion model": "sd-v1-5",
        "Sampler": "unipc",
        "Width": "512",
        "Height": "256",
        "Steps": "20",
        "Guidance Scale": "6.5",
    }
    recipe = read_recipe(png(*(places.international(*one) for one in settings.items())))
    assert (recipe.writer, recipe.fields) == ("easy-diffusion", FIELDS)


def test_novelais_older_pictures_have_the_prompt_in_a_chunk_of_its_own() -> None:
    about = json.loads(FORMS["NovelAI"][1])
    del about["prompt"]
    chunks = {
        "Software": "NovelAI",
        "Source": "Stable Diffusion 1D44365E",
        "Description": PROMPT,
        "Comment": json.dumps(about),
    }
    recipe = read_recipe(png(*(places.international(*one) for one in chunks.items())))
    assert (recipe.writer, recipe.fields) == ("novelai", FIELDS)
    assert recipe.ignored["Source"] == "Stable Diffusion 1D44365E"
    enveloped = saved("WEBP", exif=places.exif(places.CODES["ascii"](json.dumps(chunks))))
    assert read_recipe(enveloped).fields == FIELDS


def test_a_graph_whose_prompt_cannot_be_found_gives_its_settings() -> None:
    sampler = {"seed": 7, "steps": 20, "cfg": 6.5, "sampler_name": "uni_pc"}
    graph = {"3": {"class_type": "KSampler", "inputs": sampler}}
    recipe = read_recipe(named("prompt", json.dumps(graph)))
    assert recipe.fields == {
        "prompt": "",
        "negative_prompt": "",
        "steps": 20,
        "guidance_scale": 6.5,
        "seed": 7,
        "scheduler": "unipc",
    }


def test_settings_written_out_count_for_more_than_a_graph_beside_them() -> None:
    beside = png(
        places.international("prompt", json.dumps(graph())),
        places.international("workflow", "{}"),
        places.international("parameters", f"a fox\n{SETTINGS}"),
    )
    recipe = read_recipe(beside)
    assert (recipe.writer, recipe.fields["prompt"]) == ("a1111", "a fox")


NOT_NEEDED = {
    "a large text, packed": places.packed("workflow", b" " * 3 * 2**20),
    "a large text": places.plain("notes", b"x" * 2 * 2**20),
    "a text that is no zlib": places.chunk(b"zTXt", b"notes\0\0no zlib"),
    "a text without an end of its name": places.chunk(b"tEXt", b"x" * 200),
    "a text that ends within its head": places.chunk(b"iTXt", b"notes\0\1"),
    "a text with a wrong checksum": places.plain("notes", b"mine")[:-4] + b"\0\0\0\0",
    "a colour profile that is none": places.chunk(b"iCCP", b"ICC\0\0no zlib"),
    "a colour profile that is a bomb": places.chunk(
        b"iCCP", places.packed("ICC", bytes(2**24))[8:-4]
    ),
    "EXIF that is none": places.chunk(b"eXIf", b"II*\0\xff\xff\xff\xff"),
    "an unknown chunk": places.chunk(b"ruSt", b"any"),
    "a gamma of no length": places.chunk(b"gAMA", b""),
    "an animation of nothing": places.chunk(b"acTL", b""),
}


@pytest.mark.parametrize("extra", NOT_NEEDED.values(), ids=NOT_NEEDED)
def test_a_chunk_that_nobody_needs_does_no_harm(extra: bytes) -> None:
    wanted = places.international("parameters", A1111 + SETTINGS)
    for whole in (png(extra, wanted), png(wanted, extra), png(wanted, extra) + b"garbage" * 99):
        assert read_recipe(whole).fields == FIELDS
    with pytest.raises(NoRecipeInImage):
        read_recipe(png(extra))


@pytest.mark.parametrize("file_format", ["WEBP", "JPEG"])
def test_a_profile_and_a_tail_that_nobody_needs_do_no_harm(file_format: str) -> None:
    comment = places.exif(places.CODES["ascii"](A1111 + SETTINGS))
    for xmp in (b"no xml", b"<!DOCTYPE x [<!ENTITY a 'b'>]><x>&a;</x>"):
        whole = saved(file_format, exif=comment, icc_profile=b"no profile", xmp=xmp)
        assert read_recipe(whole).fields == FIELDS
        assert read_recipe(whole + b"a film\xff" * 99).fields == FIELDS


def test_a_recipe_whose_chunk_is_damaged_is_not_read_in_part() -> None:
    whole = named("parameters", A1111 + SETTINGS)
    with pytest.raises(UnreadableImage, match="its settings are damaged"):
        read_recipe(whole.replace(b"Seed: 7", b"Seed: 8"))
    short = places.chunk(b"zTXt", places.packed("parameters", b"a fox" * 99)[8:-14])
    with pytest.raises(UnreadableImage, match="its settings are damaged"):
        read_recipe(png(short))


def test_a_file_on_disk_is_read_as_its_bytes_are(tmp_path: Path) -> None:
    data = PLACES["WEBP, UserComment, undefined, wide"](A1111 + SETTINGS)
    (tmp_path / "a.webp").write_bytes(data)
    assert read_recipe(tmp_path / "a.webp") == read_recipe(data)
    with Image.open(BytesIO(data)) as image:
        assert image.size == (16, 8)
