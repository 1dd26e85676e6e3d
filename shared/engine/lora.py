"""A LoRA file's tensors become changes to the transformer's weights: every one of them, or none.

The libraries drop what they do not know, and a few-step recipe without a part of its file draws
something else without a word. So the file's own keys are read here. Each names a layer, in diffusers'
names or in Wan's original ones, with dots or underlines, behind any program's prefix; and a part: of a
low-rank product, W + strength * alpha / rank * B A (Hu et al. 2021), or a difference, W + strength * D,
to a weight, a bias or a modulation.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

METADATA = "lora_adapter_metadata"
"""Where diffusers keeps PEFT's configuration: JSON in the file's header."""

_NAMED = 3
"""How many of the tensors that cannot be applied are named; all are counted."""

_KEY = re.compile(
    r"(?P<layer>.+?)\.(?:"
    r"lora[._](?P<half>A|B|down|up)(?:\.(?!weight|bias)[^.]+)?\.(?P<of>weight|bias)"
    r"|lora_(?P<magnitude>magnitude_vector)(?:\.(?!weight)[^.]+)?(?:\.weight)?"
    r"|(?P<part>alpha|diff|diff_b|diff_m|w_norm|b_norm))"
)
"""A layer and a part of it. PEFT may write the name of its adapter in between."""

_PARTS = {
    "A.weight": "down",
    "down.weight": "down",
    "B.weight": "up",
    "up.weight": "up",
    "B.bias": "up_bias",
    "up.bias": "up_bias",
    "w_norm": "diff",
    "b_norm": "diff_b",
    "diff_m": "diff",  # of the layer's modulation
}
"""One name for what programs call differently; the other parts keep theirs."""

_NEEDS = {
    "down": "up",
    "up": "down",
    "up_bias": "up",
    "alpha": "down",
    "magnitude_vector": "down",
}
"""What a part does nothing without."""

_PREFIXES = re.compile(
    r"(?:(?:base_model_model|model|diffusion_model|transformer|unet|pipe|dit|lora|lycoris)_+)*"
)

_ORIGINAL = (
    (r"\.attn1\.", ".self_attn."),
    (r"\.attn2\.", ".cross_attn."),
    (r"\.to_([qkv])$", r".\1"),
    (r"\.to_out\.0$", ".o"),
    (r"\.ffn\.net\.0\.proj$", ".ffn.0"),
    (r"\.ffn\.net\.2$", ".ffn.2"),
    # The original numbers a block's norms in another order. One alone has weights: no name means two.
    (r"\.norm2$", ".norm3"),
    (r"^(blocks\.\d+)\.scale_shift_table$", r"\1.modulation"),
    (r"^scale_shift_table$", "head.modulation"),
    (r"^proj_out$", "head.head"),
    (r"^condition_embedder\.time_proj$", "time_projection.1"),
    (r"^condition_embedder\.(time|text)_embedder\.linear_1$", r"\1_embedding.0"),
    (r"^condition_embedder\.(time|text)_embedder\.linear_2$", r"\1_embedding.2"),
)
"""diffusers' names of layers, and Wan's own."""

_STRANGERS = (
    (r"(^|_)(te\d*|text_encoders?(_\d+)?)_", "it is a text encoder's"),
    (r"(^|_)transformer_2_", "it is the second transformer's of Wan 2.2"),
    (r"k_img|v_img|img_emb|add_[kv]_proj|image_embedder|norm_added_k", "it is image-to-video's"),
)
"""Parts of models that are not drawn with here, by what is in their names."""


class UnusableLora(ValueError):
    """Says which tensors of a file cannot be applied, and why."""


@dataclass
class _Layer:
    """One layer with weights, and what a file holds for it."""

    name: str
    weight: torch.Tensor
    bias: torch.Tensor | None
    keys: dict[str, str] = field(default_factory=dict)
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    """Both by part."""

    def fault(self, part: str) -> str | None:
        """Why that part cannot have its effect; None if it can."""
        tensor = self.tensors[part].float()
        if not tensor.isfinite().all():
            return "it holds numbers that are not finite"
        if (needed := _NEEDS.get(part, part)) not in self.tensors:
            return f"there is no lora_{needed} for it"
        wanted = self._shape(part)
        if part in ("down", "up"):
            shape = tuple(tensor.flatten(1).shape) if tensor.ndim > 1 else tuple(tensor.shape)
        else:  # some programs write sides of length 1 that others leave out
            shape, wanted = _without_ones(tensor.shape), wanted and _without_ones(wanted)
        if shape != wanted or not tensor.numel():
            return f"its shape is {tuple(tensor.shape)}, and the layer's {tuple(self.weight.shape)}"
        return None

    def _shape(self, part: str) -> tuple[int, ...] | None:
        """What a part measures if it fits; None if nothing does."""
        match part:
            case "down":
                up = self.tensors["up"]
                return up.flatten(1).shape[1] if up.ndim > 1 else 0, self.weight[0].numel()
            case "up":
                down = self.tensors["down"]
                return len(self.weight), len(down) if down.ndim else 0
            case "diff":
                return tuple(self.weight.shape)
            case "alpha":
                return ()
            case "magnitude_vector":
                return (len(self.weight),) if self.weight.ndim == 2 else None
            case _:
                return None if self.bias is None else tuple(self.bias.shape)

    def change(self, scale: float, strength: float) -> None:
        """Do it, rounding once; `scale` is alpha / rank."""
        parts = {part: tensor.float() for part, tensor in self.tensors.items()}
        weight = before = self.weight.float()
        if "down" in parts:
            product = parts["up"].flatten(1) @ parts["down"].flatten(1)
            weight = weight + product.reshape(weight.shape) * (scale * strength)
        if "magnitude_vector" in parts:  # DoRA (Liu et al. 2024), as PEFT has it
            weight *= parts["magnitude_vector"].reshape(-1, 1) / weight.norm(dim=1, keepdim=True)
        if "diff" in parts:
            weight = weight + parts["diff"].reshape(weight.shape) * strength
        if weight is not before:
            self.weight.copy_(weight)
        for part, times in (("up_bias", scale * strength), ("diff_b", strength)):
            if part in parts and self.bias is not None:
                self.bias.copy_(self.bias.float() + parts[part].reshape(self.bias.shape) * times)


def fuse(transformer: torch.nn.Module, path: Path, strength: float) -> None:
    """Add what a file holds, times `strength`, to the transformer's weights.

    Raises `UnusableLora`, with nothing changed, unless every tensor of the file can have its effect.
    """
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        config = _config(file.metadata() or {})
    if not tensors:
        raise UnusableLora("it holds no tensors")
    layers, unusable = _sort(tensors, transformer)
    for layer in layers:
        faults = {key: layer.fault(part) for part, key in layer.keys.items()}
        unusable |= {key: fault for key, fault in faults.items() if fault}
    if unusable:
        raise UnusableLora(_said(unusable, len(tensors)))
    with torch.no_grad():
        for layer in layers:
            layer.change(_scale(layer, config), strength)


def _sort(
    tensors: Mapping[str, torch.Tensor], transformer: torch.nn.Module
) -> tuple[list[_Layer], dict[str, str]]:
    """The layers that a file changes, and the tensors that belong to none, with the reason."""
    names = _layer_names(transformer)
    layers: dict[str, _Layer] = {}
    unusable: dict[str, str] = {}
    for key, tensor in sorted(tensors.items()):
        found = _KEY.fullmatch(key)
        if not found:
            unusable[key] = _stranger(key) or "its kind is not applied here"
            continue
        said = f"{found['half']}.{found['of']}" if found["half"] else found["magnitude"]
        said = said or found["part"]
        suffix = "_modulation" if said == "diff_m" else ""
        name = names.get(_plain(found["layer"]).removesuffix(suffix) + suffix)
        if name is None:
            unusable[key] = _stranger(key) or "there is no such layer"
            continue
        layer = layers.setdefault(name, _layer(transformer, name))
        part = _PARTS.get(said, said)
        if part in layer.keys:
            unusable[key] = f"it says again what {layer.keys[part][:100]} says"
        else:
            layer.keys[part], layer.tensors[part] = key, tensor
    return list(layers.values()), unusable


def _layer(transformer: torch.nn.Module, name: str) -> _Layer:
    """A layer, or a parameter that is its own layer, such as a block's modulation."""
    parameters = dict(transformer.named_parameters())
    weight = parameters.get(f"{name}.weight", parameters.get(name))
    assert weight is not None, name
    return _Layer(name, weight, parameters.get(f"{name}.bias"))


def _layer_names(transformer: torch.nn.Module) -> dict[str, str]:
    """The layers with weights, by all their names in files, as `_plain` writes them."""
    names: dict[str, str] = {}
    for parameter, _ in transformer.named_parameters():
        layer = original = parameter.removesuffix(".weight").removesuffix(".bias")
        for diffusers, wan in _ORIGINAL:
            original = re.sub(diffusers, wan, original)
        names[_plain(layer)] = names[_plain(original)] = layer
    return names


def _plain(layer: str) -> str:
    """A layer's name in underlines, without what programs put in front of it."""
    return _PREFIXES.sub("", layer.replace(".", "_"), count=1)


def _stranger(key: str) -> str | None:
    name = key.replace(".", "_")
    return next((why for pattern, why in _STRANGERS if re.search(pattern, name)), None)


def _config(metadata: Mapping[str, str]) -> dict[str, Any]:
    """PEFT's configuration of the adapter, where the file's header has it."""
    told = json.loads(metadata.get(METADATA, "{}"))
    return {name.removeprefix("transformer."): value for name, value in told.items()}


def _scale(layer: _Layer, config: Mapping[str, Any]) -> float:
    """alpha / rank: as the layer's own tensor says, or PEFT's configuration, or 1."""
    if "down" not in layer.tensors:
        return 1.0
    rank = len(layer.tensors["down"])
    if "alpha" in layer.tensors:
        return layer.tensors["alpha"].item() / rank
    alpha = config.get("lora_alpha", rank)
    for pattern, own in (config.get("alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", layer.name):
            alpha = own
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _without_ones(shape: tuple[int, ...] | torch.Size) -> tuple[int, ...]:
    return tuple(side for side in shape if side != 1)


def _said(unusable: Mapping[str, str], count: int) -> str:
    """The tensors that cannot be applied: a few by name, and how many."""
    named = [f"{key[:100]} ({why})" for key, why in list(unusable.items())[:_NAMED]]
    more = [f"{len(unusable) - _NAMED} more"] if len(unusable) > _NAMED else []
    return (
        f"{len(unusable)} of its {count} tensors and this model's layers do not match: "
        f"{', '.join(named + more)}"
    )
