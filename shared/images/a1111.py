"""The text of A1111's web UI, and of the many programs that write the same.

A prompt, what to avoid, and a line of settings:

    a red fox
    Negative prompt: blurry
    Steps: 20, Sampler: UniPC, CFG scale: 7.0, Seed: 7, Size: 512x512, Model: "a, b"

A text is one if it has that line: `Steps: N` and one more name that is known. Extensions write lines after
it, some programs put everything into one line, and SD.Next has bars for commas.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from shared import __version__
from shared.checkpoints import SAMPLER_NAMES
from shared.contract import GenerationRequest
from shared.images.recipe import Recipe, foreign

_OURS = {
    "Steps": "steps",
    "CFG scale": "guidance_scale",
    "Seed": "seed",
    "Size": "size",
    "Sampler": "scheduler",
    "Model": "checkpoint",
}
_KNOWN = {
    *_OURS,
    "Clip skip",
    "Denoising strength",
    "Distilled CFG Scale",
    "Guidance",
    "Model hash",
    "Schedule type",
    "Scheduler",
    "VAE",
    "Version",
}
_STEPS = re.compile(r"(?<!\S)Steps: *\d+\s*(?:[,|]|$)")
_BEGINS = re.compile(rf"(?:{'|'.join(map(re.escape, sorted(_KNOWN)))}): *")

# Lengths are bounded to keep the search linear.
_NAME = re.compile(r"\s*(\w[\w \-/.()+#&']{0,60}):\s*")
_QUOTED = re.compile(r'"(?:\\.|[^\\"])*+"')
_NEGATIVE = (re.compile(r"^Negative prompt:", re.M), re.compile(r"(?<!\S)Negative prompt:"))


def a1111_text(request: GenerationRequest) -> str:
    """The text that A1111's web UI writes into its pictures, for a picture of ours."""
    settings = {
        "Steps": request.steps,
        "Sampler": SAMPLER_NAMES[request.scheduler],
        "CFG scale": request.guidance_scale,
        "Seed": request.seed,
        "Size": f"{request.width}x{request.height}",
        "Model": _quoted(request.checkpoint),
        "Version": f"Cygnet {__version__}",
    }
    negative = [f"Negative prompt: {request.negative_prompt}"] if request.negative_prompt else []
    last = ", ".join(f"{name}: {value}" for name, value in settings.items())
    return "\n".join([request.prompt, *negative, last])


def parse_a1111(text: str) -> Recipe | None:
    """The recipe in the text, or None if it is another one."""
    lines = text.strip().replace("\r\n", "\n").split("\n")
    found = _settings_line(lines)
    if found is None:
        return None
    number, column = found
    line = lines[number][column:]
    before = "\n".join([*lines[:number], lines[number][:column]]).strip()
    prompt, negative = _split(before)
    if _separator(line) == "|":  # SD.Next's, which also names the prompt
        prompt = prompt.removeprefix("Prompt:").removeprefix("prompt:")
        prompt, negative = (text.strip().removesuffix("|").rstrip() for text in (prompt, negative))
    return foreign(
        "a1111",
        [
            ("Prompt", "prompt", prompt),
            ("Negative prompt", "negative_prompt", negative),
            *((name, _OURS.get(name), _unquoted(value)) for name, value in _settings(line)),
            *((name, None, value) for name, value in _rest(lines[number + 1 :])),
        ],
    )


def _settings_line(lines: list[str]) -> tuple[int, int] | None:
    """The line and the column where the settings begin, the last of those that begin a line before others."""
    inside = None
    for number in range(len(lines) - 1, -1, -1):
        line = lines[number]
        steps = [match.start() for match in _STEPS.finditer(line)]
        if not steps:
            continue
        begins = bool(_BEGINS.match(line.lstrip()))
        column = 0 if begins else steps[-1]
        names = {name for name, _ in _settings(line[column:])}
        if "Steps" in names and len(names & _KNOWN) > 1:
            if begins:
                return number, column
            inside = inside or (number, column)
    return inside


def _separator(line: str) -> str:
    found = _STEPS.search(line)
    return "|" if found and found[0].endswith("|") else ","


def _settings(line: str) -> Iterator[tuple[str, str]]:
    """Name and value of each setting, values as written; what has no name goes on with the value before."""
    separator, at, name, start = _separator(line), 0, "", 0
    while at < len(line):
        if match := _NAME.match(line, at):
            if name:
                yield name, line[start : at - 1].strip()
            name, start = match[1], match.end()
            at = _value_end(line, start, separator)
        else:
            at = _next(line, at, separator)
        at += 1
    if name:
        yield name, line[start:].strip().rstrip(separator).rstrip()


def _value_end(line: str, at: int, separator: str) -> int:
    """Where a value ends: a quoted text and a JSON value are whole, whatever is in them."""
    end = at
    if match := _QUOTED.match(line, at):
        end = match.end()
    elif line[at : at + 1] in ("{", "["):
        try:
            _, end = json.JSONDecoder().raw_decode(line, at)
        except (ValueError, RecursionError):
            end = at
    return _next(line, end, separator)


def _next(line: str, at: int, separator: str) -> int:
    found = line.find(separator, at)
    return len(line) if found < 0 else found


def _split(text: str) -> tuple[str, str]:
    """The prompt, and what to avoid."""
    for pattern in _NEGATIVE:
        if match := pattern.search(text):
            return text[: match.start()].strip(), text[match.end() :].strip()
    return text.strip(), ""


def _rest(lines: list[str]) -> Iterator[tuple[str, str]]:
    """What extensions write after the settings: a name and a text, which may have several lines."""
    name, text = "", ""
    for line in lines:
        if match := _NAME.match(line):
            if name or text:
                yield name or "After the settings", text.strip()
            name, text = match[1], line[match.end() :]
        else:
            text = f"{text}\n{line}"
    if name or text.strip():
        yield name or "After the settings", text.strip()


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if re.search(r'[,:"\n]', value) else value


def _unquoted(value: str) -> str:
    try:
        return str(json.loads(value)) if value.startswith('"') else value
    except ValueError:
        return value
