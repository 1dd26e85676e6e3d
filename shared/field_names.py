"""What a request's fields are called: at each door of ours, and in other programs.

A door that calls a field by another name says so once, in a `FieldNames`; every refusal then speaks
of that name. A name that only other programs use is not taken, but answered with the one that is.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

_ELSEWHERE: dict[str, tuple[str, ...]] = {
    "prompt": ("text", "input", "query", "caption", "positive", "positive_prompt", "text_prompt"),
    "negative_prompt": ("negative", "neg_prompt", "uc", "undesired_content", "exclude"),
    "checkpoint": (
        "model", "model_id", "model_name", "ckpt", "ckpt_name", "sd_model_checkpoint", "engine",
        "engine_id", "weights",
    ),
    "width": ("w", "image_width", "width_px"),
    "height": ("h", "image_height", "height_px"),
    "steps": (
        "num_inference_steps", "inference_steps", "num_steps", "n_steps", "step_count",
        "sampling_steps", "sample_steps", "denoising_steps", "ddim_steps", "num_sampling_steps",
    ),
    "guidance_scale": (
        "guidance", "cfg", "cfg_scale", "cfg_guidance", "true_cfg_scale", "guide_scale",
        "classifier_free_guidance", "scale",
    ),
    "scheduler": (
        "sampler", "sampler_name", "sampler_index", "sampling_method", "sample_method",
        "sample_solver", "solver", "scheduler_name",
    ),
    "seed": ("noise_seed", "random_seed", "rng_seed", "manual_seed", "initial_seed", "base_seed"),
    "num_images": (
        "n", "n_iter", "n_images", "n_samples", "batch_size", "batch_count", "count", "images",
        "image_count", "num_images_per_prompt", "num_outputs", "num_samples", "number_of_images",
        "number_results", "samples", "quantity",
    ),
    "output_format": ("format", "file_format", "image_format", "output_type", "mime_type"),
}  # fmt: skip
"""Names of diffusers, A1111's web UI, ComfyUI, Wan, OpenAI and the hosted services, by our field."""

_BOTH_SIDES = ("size", "image_size", "resolution", "dimensions", "aspect_ratio", "image_dimensions")


def _plain(name: str) -> str:
    """The name as it may be written in capitals, in camelCase, or with other marks between."""
    return "".join(filter(str.isalnum, name)).lower()


_MEANT: dict[str, tuple[str, ...]] = {
    _plain(theirs): (ours,) for ours, names in _ELSEWHERE.items() for theirs in (ours, *names)
} | {_plain(name): ("width", "height") for name in _BOTH_SIDES}


@dataclass(frozen=True)
class FieldNames:
    """How one door calls the fields of a request."""

    renamed: Mapping[str, str] = field(default_factory=dict)
    """Its name, by ours. Two of ours may be parts of one of its, as both sides are of a size."""
    beside: Collection[str] = ()
    """What else a caller may give there."""

    def called(self, ours: str) -> str:
        return self.renamed.get(ours, ours)

    def meant(self, name: str, fields: Iterable[str]) -> tuple[str, ...]:
        """The names at this door of what `name` may mean: known from elsewhere, or the most alike
        of those of `fields` and of what may stand beside them."""
        known = dict.fromkeys([*map(self.called, fields), *self.beside])
        theirs = dict.fromkeys(map(self.called, _MEANT.get(_plain(name), ())))
        if theirs and theirs.keys() <= known.keys():
            return tuple(theirs)
        return tuple(difflib.get_close_matches(name, known, n=1))


OURS = FieldNames()


def readable(name: object) -> str:
    """A field's name as a caller gave it, short, and safe to print and to send."""
    return str(name)[:60].encode("utf-8", "backslashreplace").decode()
