"""The environment, read once.

Every variable Cygnet looks at is a field here; nothing else reads `os.environ`. This module does
not know whether a device or a package can do what a setting asks for: loading a checkpoint finds
out.
"""

from __future__ import annotations

import difflib
import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from shared.errors import InvalidSetting
from shared.prices import GPU_NAMES


class Acceleration(BaseModel):
    """How a checkpoint is loaded and run. The defaults are right for every machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    quantisation: Literal["none", "int8", "fp8"] = "none"
    attention: str = "auto"
    """An attention backend as diffusers names it, such as native, flash or _native_cudnn."""
    compile: bool = False


Snapshot = Literal["none", "cpu", "gpu"]


def _words(keys: object) -> object:
    return keys.replace(",", " ").split() if isinstance(keys, str) else keys


def _pairs(pairs: object) -> object:
    """NAME=VALUE words as a mapping, in their order."""
    if not isinstance(pairs, str):
        return pairs
    found = [word.partition("=") for word in pairs.replace(",", " ").split()]
    if not all(name and equals and value for name, equals, value in found):
        raise PydanticCustomError("pairs", "it is a list of NAME=CHECKPOINT")
    return {name: value for name, _, value in found}


def at_home(path: Path) -> Path:
    """The path, with `~` as the user's folder. Raises `ValueError` if there is no such user."""
    try:
        return path.expanduser()
    except RuntimeError as error:  # no such user
        raise ValueError(str(error)) from None


HomePath = Annotated[Path, AfterValidator(at_home)]
"""A path that may begin with `~`: no shell has read what stands in a unit of systemd, a Dockerfile or
a client's settings."""


def _gpus(names: tuple[str, ...]) -> tuple[str, ...]:
    """As Modal spells them, of which a typo would be noticed only when a machine is asked for."""
    spelled = tuple(name.upper() for name in names)
    if spelled == ("NONE",):
        return ()
    for name in spelled:
        kind = name.partition(":")[0]  # before how many of them
        if kind not in GPU_NAMES:
            near = difflib.get_close_matches(kind[:20], GPU_NAMES, n=1, cutoff=0)
            raise PydanticCustomError(
                "gpu",
                "Modal has no GPU named {name}; the nearest name is {near}",
                {"name": kind[:20], "near": near[0]},
            )
    return spelled


class Settings(BaseModel):
    """What the environment says, with defaults for what it leaves out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint: str = "cygnet-tiny"
    backend: str = "local"
    """What draws where nobody says it: the name of a backend, or auto."""
    config: HomePath | None = None
    """The file that describes backends; None for backends.toml in the user's folder of settings."""
    acceleration: Acceleration = Acceleration()
    data_dir: HomePath | None = None
    """Where jobs and their images are kept; None for the user's data folder of the platform."""
    api_url: Annotated[
        str | None,
        Field(pattern=r"^https?://[^\s/@]+(/\S*)?$", examples=["http://127.0.0.1:8000"]),
    ] = None
    """The server that the backend named api generates on; without a user or password."""
    modal_url: Annotated[
        str | None,
        Field(pattern=r"^https?://[^\s/@]+(/\S*)?$", examples=["https://NAME.modal.run"]),
    ] = None
    """The deployment that the backend named modal generates on."""
    api_keys: Annotated[tuple[SecretStr, ...], BeforeValidator(_words)] = ()
    """Any of them opens the API, and the first is what a client sends.

    Any text is a key, so that no error ever has to show one.
    """
    openai_models: Annotated[dict[str, str], BeforeValidator(_pairs)] = {}
    """The checkpoints that draw for names of OpenAI's; `*` in a name stands for any text."""
    space: Annotated[
        str | None,
        Field(
            pattern=r"^(https?://[^\s/@]+(/\S*)?|[\w.-]+/[\w.-]+)$",
            examples=["OWNER/NAME", "https://OWNER-NAME.hf.space"],
        ),
    ] = None
    """The Space that the backend named space generates on: OWNER/NAME, or its address."""
    open_browser: bool = True
    """Whether `cygnet serve`, started in a terminal, opens the page."""
    zero_gpu: bool = False
    """Whether this process is a Space on ZeroGPU; the host says so."""
    hub_url: Annotated[
        str, Field(pattern=r"^https?://[^\s/@]+$", examples=["https://huggingface.co"])
    ] = "https://huggingface.co"
    modal_gpu: Annotated[tuple[str, ...], BeforeValidator(_words), AfterValidator(_gpus)] = (
        "L40S",
        "A100-80GB",
    )
    """What `modal_app.py` asks Modal for, the best first; with cygnet-tiny it asks for none."""
    modal_snapshot: Snapshot = "cpu"
    """What of a started machine `modal_app.py` has Modal keep, to start the next one from."""

    def checkpoint_or(self, usual: str) -> str:
        """The checkpoint that the environment names, or the one that is usual somewhere else."""
        return self.checkpoint if "checkpoint" in self.model_fields_set else usual


VARIABLES = {
    "CYGNET_CHECKPOINT": ("checkpoint",),
    "CYGNET_BACKEND": ("backend",),
    "CYGNET_CONFIG": ("config",),
    "CYGNET_DEVICE": ("acceleration", "device"),
    "CYGNET_DTYPE": ("acceleration", "dtype"),
    "CYGNET_QUANTISATION": ("acceleration", "quantisation"),
    "CYGNET_ATTENTION": ("acceleration", "attention"),
    "CYGNET_COMPILE": ("acceleration", "compile"),
    "CYGNET_DATA_DIR": ("data_dir",),
    "CYGNET_API_URL": ("api_url",),
    "CYGNET_API_KEY": ("api_keys",),
    "CYGNET_OPENAI_MODELS": ("openai_models",),
    "CYGNET_MODAL_URL": ("modal_url",),
    "CYGNET_MODAL_GPU": ("modal_gpu",),
    "CYGNET_MODAL_SNAPSHOT": ("modal_snapshot",),
    "CYGNET_SPACE": ("space",),
    "CYGNET_OPEN_BROWSER": ("open_browser",),
    "SPACES_ZERO_GPU": ("zero_gpu",),
    "HF_ENDPOINT": ("hub_url",),
}


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Settings from environment variables; empty ones count as unset.

    Raises `InvalidSetting`, naming the variable, its value and what it may be.
    """
    values: dict[str, Any] = {}
    for variable, path in VARIABLES.items():
        if text := environ.get(variable, "").strip():
            *groups, field = path
            section = values
            for group in groups:
                section = section.setdefault(group, {})
            section[field] = text
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        variable = next(name for name, path in VARIABLES.items() if path == first["loc"])
        raise InvalidSetting(
            f"{variable}={environ[variable]!r} cannot be used: {_why(first)}.",
            f"Correct {variable}, or unset it to get the default.",
        ) from None


def _why(details: ErrorDetails) -> str:
    match details["type"]:
        case "literal_error":
            return f"it may be {details.get('ctx', {})['expected']}"
        case "bool_parsing":
            return "it may be 1 or 0"
        case "string_pattern_mismatch":
            examples = Settings.model_fields[str(details["loc"][0])].examples or []
            return f"it is not like {' or '.join(map(str, examples))}"
        case _:
            return details["msg"]


def read_secret(variable: str) -> SecretStr:
    """A variable that the caller names, for one who passes secrets on.

    Raises `InvalidSetting` if it is not set; its value is in no message.
    """
    if value := os.environ.get(variable, ""):
        return SecretStr(value)
    raise InvalidSetting(f"{variable[:60]} is not set.", f"Put the secret into {variable[:60]}.")


@functools.cache
def settings() -> Settings:
    """The settings of this process."""
    return read_settings(os.environ)


def secret(variable: str) -> str:
    """The key in a variable that a backend's settings name, the first if it holds several; or ""."""
    return next(iter(os.environ.get(variable, "").replace(",", " ").split()), "")


def config_file() -> Path:
    """The file that describes backends, whether it exists or not."""
    if named := settings().config:
        return named
    return at_home(platformdirs.user_config_path("cygnet", appauthor=False)) / "backends.toml"


def data_folder() -> Path:
    """Where jobs, images and what was spent are kept."""
    return settings().data_dir or at_home(platformdirs.user_data_path("cygnet", appauthor=False))
