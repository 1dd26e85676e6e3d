"""What of a checkpoint's files would be passed over without a word, each thing in a few words."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import diffusers

from shared.checkpoint_folder import SCHEDULERS, is_off, shown

_KNOWN_TENSORS = re.compile(r"\.to_gate_compress\.")
"""Of FastWan's sparse attention over many frames; its dense attention, ours for one, has none."""

_UNHEARD = (
    "use_dynamic_shifting",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "invert_sigmas",
    "stochastic_sampling",
    "shift_terminal",
)
"""What schedulers have that changes the noise levels, and is not carried into ours."""


def settings(config: Mapping[str, Any], kind: type) -> Iterator[str]:
    """Of a part's configuration, what its class does not know."""
    known = inspect.signature(kind.__init__).parameters
    for name, value in config.items():
        if name not in known and not name.startswith("_") and not is_off(value):
            yield shown(name, value)


def tensors(unexpected: Iterable[str]) -> Iterator[str]:
    """Of a part's weights, those that its class has no place for."""
    for name in sorted(unexpected):
        if not _KNOWN_TENSORS.search(name):
            yield f"the tensor {name[:100]}"


def of_scheduler(config: Mapping[str, Any]) -> Iterator[str]:
    """Of a scheduler's configuration, what the samplers here do not do."""
    name = config.get("_class_name")
    if name not in SCHEDULERS:
        yield f"the kind {str(name)[:60]}"
        return
    yield from settings(config, getattr(diffusers, name))
    for flag in _UNHEARD:
        if not is_off(config.get(flag)):
            yield shown(flag, config[flag])
    predicted = config.get("prediction_type", "flow_prediction")
    if predicted != "flow_prediction":
        yield shown("prediction_type", predicted)
