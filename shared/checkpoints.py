"""Which weights exist, and every fact about them: places, limits, recipes and licences.

Facts are data, pinned by revision where one is known. The Hub could not be reached when the rows
were written: the revisions are those that several public projects pin, and None is an explicit
"unpinned". Memory is the size of the weights in bfloat16, counted from their parameters, not
measured. This module does not know whether weights are downloaded.
"""

from __future__ import annotations

import difflib
import json
import math
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError

from shared.checkpoint_folder import DISTILLED, check_folder
from shared.errors import CheckpointCorrupt, UnknownCheckpoint

SchedulerName = Literal["unipc", "euler", "lcm"]

SAMPLER_NAMES: dict[SchedulerName, str] = {
    "unipc": "UniPC",
    "euler": "Euler",
    "lcm": "LCM",
}
"""Each as A1111's web UI calls it, whose other samplers have no counterpart here."""

STYLES = ("3d render", "flat design", "cartoon", "sticker")
"""Of the art that cygnet-tiny was trained on, as its captions say them."""

WEIGHTS = Path(__file__).parent / "weights"

ON_A_GPU = "wan2.1-1.3b-fast"
"""What a machine with a GPU that is rented for Cygnet draws with where nobody chose: a real Wan 2.1,
three steps, Apache-2.0 by its authors' statement."""

_PARTS = ("transformer", "vae", "text_encoder", "tokenizer", "scheduler")
FILES = [
    "model_index.json",
    *(f"{part}/*.{kind}" for part in _PARTS for kind in ("json", "safetensors", "model", "txt")),
]
"""What is fetched of a repository: weights as safetensors only, and nothing beside them."""


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Licence(_Facts):
    """The licence that the weights' authors name; `verified` if we read it in their repository."""

    name: str
    verified: bool
    note: str = ""


class Lora(_Facts):
    """A low-rank adapter that is fused into the transformer when the checkpoint is loaded."""

    repository: str | None
    """Hub repository; None: the file lies in the checkpoint's own folder."""
    filename: str
    strength: float = 1.0
    revision: str | None = None


class Checkpoint(_Facts):
    """One set of weights with the recipe that suits it."""

    name: str
    description: str
    repository: str | None = None
    """Hub repository in diffusers' format; None for a folder."""
    revision: str | None = None
    """A commit of the repository; of the folder that ships, a digest of its weights."""
    folder: Path | None = None
    width: int
    height: int
    min_size: int
    max_size: int
    size_multiple: int = 16
    """Pixels of one transformer patch: VAE scale times patch size."""
    steps: int
    guidance_scale: float
    scheduler: SchedulerName
    shift: float
    """Flow shift: sigma' = shift * sigma / (1 + (shift - 1) * sigma)."""
    sigmas: tuple[float, ...] | None = None
    """The noise levels a few-step recipe was distilled at, first to last, without the final 0."""
    lora: Lora | None = None
    memory_gib: float
    licence: Licence

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Width and height presets inside the checkpoint's bounds, the default first."""
        presets = [(self.width, self.height), (self.height, self.width), *_PRESETS]
        return tuple(dict.fromkeys(size for size in presets if self.allows(*size)))

    def allows(self, width: int, height: int) -> bool:
        """Whether both sides are in bounds and on the grid."""
        return all(
            self.min_size <= side <= self.max_size and side % self.size_multiple == 0
            for side in (width, height)
        )


_PRESETS = ((832, 480), (480, 832), (1024, 1024), (1280, 720), (720, 1280), (768, 768), (512, 512))

_WAN_LICENCE = Licence(name="Apache-2.0", verified=False, note="named by Wan-AI for Wan 2.1")
_TINY_LICENCE = Licence(
    name="Apache-2.0",
    verified=True,
    note="trained on MIT, Apache-2.0 and CC-BY 4.0 art; see its card",
)

CHECKPOINTS = (
    Checkpoint(
        name="cygnet-tiny",
        description="ships with Cygnet: emoji art, runs on any CPU",
        folder=WEIGHTS / "cygnet-tiny",
        revision="f16c3b8b2327",
        width=256,
        height=256,
        min_size=256,
        max_size=256,
        size_multiple=64,
        steps=20,
        guidance_scale=3.0,
        scheduler="unipc",
        shift=3.0,
        memory_gib=0.1,
        licence=_TINY_LICENCE,
    ),
    Checkpoint(
        name="cygnet-tiny-fast",
        description="cygnet-tiny with its few-step LoRA",
        folder=WEIGHTS / "cygnet-tiny",
        revision="f16c3b8b2327",
        width=256,
        height=256,
        min_size=256,
        max_size=256,
        size_multiple=64,
        steps=4,
        guidance_scale=1.0,
        scheduler="euler",
        shift=3.0,
        sigmas=(1.0, 0.9, 0.75, 0.5),
        lora=Lora(repository=None, filename="fast_lora.safetensors"),
        memory_gib=0.1,
        licence=_TINY_LICENCE,
    ),
    Checkpoint(
        name="wan2.1-1.3b",
        description="Wan 2.1 text-to-video, one frame",
        repository="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        revision="0fad780a534b6463e45facd96134c9f345acfa5b",
        width=832,
        height=480,
        min_size=256,
        max_size=1280,
        steps=50,
        guidance_scale=6.0,
        scheduler="unipc",
        shift=8.0,
        memory_gib=13.7,
        licence=_WAN_LICENCE,
    ),
    Checkpoint(
        name="wan2.1-1.3b-fast",
        description="FastWan: three steps, full weights",
        repository="FastVideo/FastWan2.1-T2V-1.3B-Diffusers",
        revision="25e7ed7f41fd8ce2fdd108688c65e8caf0ce3aef",
        width=832,
        height=480,
        min_size=256,
        max_size=1280,
        steps=3,
        guidance_scale=1.0,
        scheduler="lcm",
        shift=8.0,
        sigmas=(1.0, 0.757, 0.522),
        memory_gib=13.7,
        licence=Licence(
            name="Apache-2.0",
            verified=False,
            note="stated by its authors for weights, recipe and data",
        ),
    ),
    Checkpoint(
        name="wan2.1-14b",
        description="the large Wan 2.1",
        repository="Wan-AI/Wan2.1-T2V-14B-Diffusers",
        revision="38ec498cb3208fb688890f8cc7e94ede2cbd7f68",
        width=1024,
        height=1024,
        min_size=256,
        max_size=1280,
        steps=50,
        guidance_scale=5.0,
        scheduler="unipc",
        shift=5.0,
        memory_gib=37.5,
        licence=_WAN_LICENCE,
    ),
    Checkpoint(
        name="wan2.1-14b-fast",
        description="the large Wan 2.1 with lightx2v's four-step LoRA",
        repository="Wan-AI/Wan2.1-T2V-14B-Diffusers",
        revision="38ec498cb3208fb688890f8cc7e94ede2cbd7f68",
        width=1024,
        height=1024,
        min_size=256,
        max_size=1280,
        steps=4,
        guidance_scale=1.0,
        scheduler="euler",
        shift=5.0,
        sigmas=(1.0, 0.9375, 0.8333, 0.625),
        lora=Lora(
            repository="lightx2v/Wan2.1-Distill-Loras",
            filename="wan2.1_t2v_14b_lora_rank64_lightx2v_4step.safetensors",
        ),
        memory_gib=37.5,
        licence=Licence(
            name="Apache-2.0",
            verified=False,
            note="the LoRA's by others' accounts; its terms were not seen by us",
        ),
    ),
)

_registry = {checkpoint.name: checkpoint for checkpoint in CHECKPOINTS}


def checkpoint_names() -> tuple[str, ...]:
    """Of all that this process knows, the folders that were made known included."""
    return tuple(_registry)


def get_checkpoint(name: str) -> Checkpoint:
    """The checkpoint of that name.

    Only names are looked up, never paths, so that a request from outside opens no file.
    Raises `UnknownCheckpoint` with the nearest names.
    """
    if checkpoint := _registry.get(name):
        return checkpoint
    near = difflib.get_close_matches(name[:100], _registry, n=1, cutoff=0.4)
    hint = f"Did you mean {near[0]}? " if near else ""
    if name.startswith("local:"):
        hint = "It was a folder on some machine: give the path of that folder as the checkpoint. "
    raise UnknownCheckpoint(
        f"There is no checkpoint named {name[:100]!r}.",
        f"{hint}Choose one of {', '.join(_registry)}, or register a folder in diffusers' format.",
    )


class _Config(BaseModel):
    """What is read of a component's own JSON; the rest of it is diffusers' business."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


_Factor = Annotated[int, Field(ge=1, le=32)]


class _Index(_Config):
    class_name: str = Field(alias="_class_name")


class _Transformer(_Config):
    patch_size: tuple[_Factor, _Factor, _Factor]


class _Vae(_Config):
    scale_factor_spatial: _Factor = 8


class _Scheduler(_Config):
    class_name: str = Field(alias="_class_name")
    flow_shift: PositiveFloat | None = None
    shift: PositiveFloat | None = None


_ConfigType = TypeVar("_ConfigType", bound=_Config)


_LONGEST_HEADER = 100 * 2**20  # the format's own limit


def _read(folder: Path, name: str, kind: type[_ConfigType]) -> _ConfigType:
    try:
        return kind.model_validate_json((folder / name).read_bytes())
    except OSError as error:
        fault = error.strerror
    except ValidationError as error:
        first = error.errors()[0]
        fault = " ".join(["wrong", *map(str, first["loc"]), f"({first['msg']})"])
    raise CheckpointCorrupt(
        f"The folder {str(folder)!r} is no Wan checkpoint in diffusers' format: {name}: {fault}.",
        "It needs model_index.json, transformer/, vae/, scheduler/, text_encoder/ and tokenizer/.",
    )


def _existing(path: Path) -> Path:
    try:
        folder = path.expanduser().resolve()
        if folder.is_dir():
            return folder
    except (OSError, RuntimeError, ValueError):  # no such home, a loop of links, a null byte
        pass
    raise UnknownCheckpoint(
        f"There is no checkpoint and no folder named {str(path)[:200]!r}.",
        f"Choose one of {', '.join(_registry)}, or the path of a folder in diffusers' format.",
    )


def _count_parameters(file: Path) -> int:
    """How many numbers a safetensors file holds, by its header; 0 if it is damaged.

    A checkpoint with a damaged file is refused when its weights are read.
    """
    try:
        with file.open("rb") as weights:
            length = int.from_bytes(weights.read(8), "little")
            header = json.loads(weights.read(min(length, _LONGEST_HEADER)))
        return sum(math.prod(row["shape"]) for name, row in header.items() if name[:2] != "__")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return 0


def add_folder(path: Path) -> Checkpoint:
    """Make a local folder in diffusers' format known, under the name `local:<folder>`.

    The name leaves the path out, because it is written into pictures that travel. Sizes on the grid
    up to 1280 pixels are allowed, 512x512 is the default; steps, guidance and shift come from the
    folder's own scheduler and Wan's defaults, or from FastWan's recipe if the folder is of its kind.
    Raises `UnknownCheckpoint` if the folder is missing, `CheckpointCorrupt` if it is not a readable
    Wan checkpoint, or has parts that would be left out.
    """
    folder = _existing(path)
    index = _read(folder, "model_index.json", _Index)
    patch = _read(folder, "transformer/config.json", _Transformer).patch_size
    multiple = patch[1] * _read(folder, "vae/config.json", _Vae).scale_factor_spatial
    scheduler = _read(folder, "scheduler/scheduler_config.json", _Scheduler)
    check_folder(folder, f"local:{folder.name}")
    checkpoint = Checkpoint(
        name=f"local:{folder.name}",
        description="a local folder",
        folder=folder,
        width=max(512 // multiple, 1) * multiple,
        height=max(512 // multiple, 1) * multiple,
        min_size=multiple,
        max_size=1280 // multiple * multiple,
        size_multiple=multiple,
        steps=50,
        guidance_scale=5.0,
        scheduler="euler" if "Euler" in scheduler.class_name else "unipc",
        shift=scheduler.flow_shift or scheduler.shift or 1.0,
        memory_gib=2 * sum(map(_count_parameters, folder.glob("*/*.safetensors"))) / 2**30,
        licence=Licence(name="unknown", verified=False),
    )
    if index.class_name == DISTILLED:
        fast = get_checkpoint(ON_A_GPU)
        recipe = ("steps", "guidance_scale", "scheduler", "shift", "sigmas")
        checkpoint = checkpoint.model_copy(update={name: getattr(fast, name) for name in recipe})
    _registry[checkpoint.name] = checkpoint
    return checkpoint
