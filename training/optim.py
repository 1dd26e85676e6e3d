"""What every training phase shares: optimisers, a schedule by wall-clock, averaging, saving.

Knows nothing of models, data or losses.
"""

import copy
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn


class Optimisers:
    """Muon for hidden matrices and AdamW for everything else, stepped as one."""

    def __init__(
        self, matrices: Iterable[Tensor], rest: Iterable[Tensor], muon_lr: float, adam_lr: float
    ) -> None:
        adam = torch.optim.AdamW(list(rest), lr=adam_lr, betas=(0.9, 0.99), weight_decay=0.0)
        self.all: list[torch.optim.Optimizer] = [adam]
        if listed := list(matrices):
            self.all.append(torch.optim.Muon(listed, lr=muon_lr, weight_decay=0.01))
        self._full = [[group["lr"] for group in o.param_groups] for o in self.all]

    def step(self, scale: float) -> None:
        """Step at `scale` times the full learning rates, then clear the gradients."""
        for optimiser, full in zip(self.all, self._full, strict=True):
            for group, lr in zip(optimiser.param_groups, full, strict=True):
                group["lr"] = lr * scale
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict]:
        return [o.state_dict() for o in self.all]

    def load_state_dict(self, states: list[dict]) -> None:
        for optimiser, state in zip(self.all, states, strict=True):
            optimiser.load_state_dict(state)


class Clock:
    """A learning-rate schedule measured in minutes: warm up, hold, fall to zero at the end.

    Minutes, not steps, because on a shared machine nobody knows how many steps there will be,
    and a run that never cools down is worth far less than a shorter one that does.
    """

    def __init__(self, minutes: float, cooldown: float = 0.5, warmup_steps: int = 50) -> None:
        self.minutes, self.cooldown, self.warmup_steps = minutes, cooldown, warmup_steps
        self.spent, self.steps = 0.0, 0
        self._last = time.monotonic()

    def tick(self) -> float:
        """Count one step and return the factor for the learning rate."""
        now = time.monotonic()
        self.spent += now - self._last
        self._last = now
        self.steps += 1
        left = 1 - self.spent / (60 * self.minutes)
        return max(0.0, min(1.0, self.steps / self.warmup_steps, left / self.cooldown))

    @property
    def done(self) -> bool:
        return self.spent >= 60 * self.minutes

    def state_dict(self) -> dict:
        return {"spent": self.spent, "steps": self.steps}

    def load_state_dict(self, state: dict) -> None:
        self.spent, self.steps = state["spent"], state["steps"]


class Average(nn.Module):
    """An exponential moving average of a module's weights, quick at first."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        super().__init__()
        self.module: Any = copy.deepcopy(module).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.module.parameters()), list(module.parameters()), weight)


def save(path: Path, **parts: object) -> None:
    """Write every part's state to `path`, whole or not at all."""
    states = {k: p.state_dict() if hasattr(p, "state_dict") else p for k, p in parts.items()}
    partial = path.with_suffix(".partial")
    torch.save(states, partial)
    partial.replace(path)


def resume(path: Path, **parts: Any) -> bool:
    """Load every part's state from `path` if it is there."""
    if not path.exists():
        return False
    states = torch.load(path, map_location="cpu", weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(states[name])
    return True


P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R], enabled: bool) -> Callable[P, R]:
    """Compile a loss, unless asked not to (tests and quick looks)."""
    return torch.compile(function) if enabled else function
