"""Whether requirements.txt can be installed on Spaces, and gives there what is tested here.

Spaces installs it in one call of pip with `gradio[oauth,mcp]` at the card's sdk_version and, on ZeroGPU,
a torch of its own choice; the call is in the log of every build. A pin against that call would be a
Space that cannot be built.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib.metadata import requires, version
from pathlib import Path

from packaging.requirements import Requirement

FROM_SPACES = frozenset({"torch", "pydantic"})
"""Decided by that call, so that they cannot be what constraints.txt says."""

NEEDED = ("local", "serve", "space")
"""The extras that the Space runs on. It is without `mcp`: gradio[mcp] holds that package below 2."""


def faults(requirements: str, sdk_version: str, checkout: Path) -> Iterator[str]:
    """What is wrong with the pins, a sentence each."""
    pins = {pin.name: pin for pin in _requirements(requirements.splitlines())}
    tested = {pin.name: pin for pin in _requirements(_lines(checkout / "constraints.txt"))}
    ranges = list(_needed(checkout))
    for name in sorted({one.name for one in ranges} - pins.keys()):
        yield f"requirements.txt: {name} is missing, which pyproject.toml asks for."
    for name in sorted(pins.keys() - {one.name for one in ranges}):
        yield f"requirements.txt: {name} is not what pyproject.toml asks for."
    for wanted in (one for one in ranges if one.name in pins):
        if not _agree(pins[wanted.name], wanted):
            yield f"requirements.txt: {pins[wanted.name]} is outside {wanted} of pyproject.toml."
    for name in sorted((pins.keys() & tested.keys()) - FROM_SPACES):
        if pins[name].specifier != tested[name].specifier:
            yield f"requirements.txt: {pins[name]} is not {tested[name]} of constraints.txt."
    if str(pins["gradio"].specifier if "gradio" in pins else "") != f"=={sdk_version}":
        yield f"requirements.txt: gradio is not sdk_version {sdk_version} of README.md."
    for wanted in (one for one in _gradio_wants(sdk_version) if one.name in pins):
        if not _agree(pins[wanted.name], wanted):
            yield f"requirements.txt: {pins[wanted.name]}, but gradio[oauth,mcp] wants {wanted}."


def _agree(pin: Requirement, wanted: Requirement) -> bool:
    """Whether the versions that a pin names (its bounds, for a range) are among those wanted."""
    named = [bound.version for bound in pin.specifier]
    return bool(named) and all(wanted.specifier.contains(version) for version in named)


def _needed(checkout: Path) -> Iterator[Requirement]:
    project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for text in [*project["dependencies"], *(text for extra in NEEDED for text in extras[extra])]:
        if (requirement := Requirement(text)).name != project["name"]:
            yield requirement


def _gradio_wants(sdk_version: str) -> Iterator[Requirement]:
    """What the installed gradio needs with the extras that Spaces adds, if it is that version."""
    if version("gradio") != sdk_version:
        return
    for requirement in map(Requirement, requires("gradio") or ()):
        if not requirement.marker or any(
            requirement.marker.evaluate({"extra": extra}) for extra in ("oauth", "mcp")
        ):
            yield requirement


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def _requirements(lines: list[str]) -> Iterator[Requirement]:
    for line in lines:
        if text := line.partition("#")[0].strip():
            yield Requirement(text)
