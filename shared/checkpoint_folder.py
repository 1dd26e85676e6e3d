"""Whether a folder in diffusers' format is all drawn with: what is not is refused by name.

A second transformer, a flag or a condition that the engine left out would still give a picture, only
not the model's. What is off (null, false) may be there. This module reads JSON, and no weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from shared.errors import CheckpointCorrupt

PIPELINE = "WanPipeline"
DISTILLED = "WanDMDPipeline"
"""What FastVideo calls a few-step `WanPipeline`: the same parts, drawn by its own recipe."""

TEXT_ENCODERS = ("UMT5EncoderModel", "T5EncoderModel", "BertModel")
SCHEDULERS = (
    "UniPCMultistepScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchLCMScheduler",
)
"""What a checkpoint may name: no class of a stranger's choice is loaded."""

_PARTS: dict[str, tuple[str, ...] | None] = {
    "transformer": ("WanTransformer3DModel",),
    "vae": ("AutoencoderKLWan",),
    "text_encoder": TEXT_ENCODERS,
    "tokenizer": None,  # whatever its own files say: transformers knows them all
    "scheduler": SCHEDULERS,
}
"""The parts that are drawn with, and the classes that each may be of."""

_LIBRARIES = ("diffusers", "transformers")
_SAYS_NOTHING = ("workload_type",)
"""What FastVideo writes beside the parts, for its own server."""

_CONDITIONS = ("image_dim", "added_kv_proj_dim", "pos_embed_seq_len", "quantization_config")
"""What a transformer has that sees pictures beside the text, or weights of another kind."""

_NAMED = 5


def check_folder(folder: Path, name: str) -> None:
    """Raises `CheckpointCorrupt` if the folder of checkpoint `name` says that it is more than, or
    other than, what is drawn with. Both files have to be JSON objects."""
    index = json.loads((folder / "model_index.json").read_bytes())
    transformer = json.loads((folder / "transformer" / "config.json").read_bytes())
    found = [*_strangers(index), *_conditions(transformer)]
    if not found:
        return
    more = [f"{len(found) - _NAMED} more"] if len(found) > _NAMED else []
    raise CheckpointCorrupt(
        f"Checkpoint {name} has what Cygnet does not draw with: "
        f"{', '.join(found[:_NAMED] + more)}.",
        "Choose a text-to-video Wan 2.1 in diffusers' format. Pictures of this one would not be its "
        "own.",
    )


def is_off(value: object) -> bool:
    """Whether a part or a flag is there in name only."""
    return value is None or value is False or value == [None, None]


def shown(name: str, value: object) -> str:
    """A setting, short enough for a sentence."""
    text = json.dumps(value, ensure_ascii=False)
    return f"{name[:60]}={text if len(text) <= 60 else f'{text[:57]}...'}"


def _strangers(index: Mapping[str, Any]) -> Iterator[str]:
    pipeline = index.get("_class_name")
    if pipeline not in (PIPELINE, DISTILLED):
        yield f"the pipeline {str(pipeline)[:60]}"
    for name, value in index.items():
        if name.startswith("_") or name in _SAYS_NOTHING or is_off(value):
            continue
        classes = _PARTS.get(name, ())
        match value:
            case [str(library), str(kind)] if name in _PARTS:
                if library not in _LIBRARIES or (classes is not None and kind not in classes):
                    yield f"the {name} {library[:60]}.{kind[:60]}"
            case [_, str(kind)]:
                yield f"{name[:60]} ({kind[:60]})"
            case _:
                yield shown(name, value)


def _conditions(transformer: Mapping[str, Any]) -> Iterator[str]:
    kind = transformer.get("_class_name")
    if kind is not None and kind not in (_PARTS["transformer"] or ()):
        yield f"the transformer {str(kind)[:60]}"
    for name in _CONDITIONS:
        if not is_off(transformer.get(name)):
            yield f"{shown(name, transformer[name])} of the transformer"
    seen, drawn = transformer.get("in_channels"), transformer.get("out_channels")
    if seen and drawn and seen != drawn:
        yield f"{seen} channels into the transformer and {drawn} out of it"
    if transformer.get("qk_norm", "rms_norm_across_heads") != "rms_norm_across_heads":
        yield f"{shown('qk_norm', transformer['qk_norm'])} of the transformer"
