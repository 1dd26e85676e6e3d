"""A snapshot of a machine's memory that is taken before its GPU is there.

The driver can be asked for GPUs once: CUDA's runtime keeps its first answer for the whole life of a
process, which the snapshot makes longer than the machine's. Libraries ask when they are imported,
and keep what they heard. So nobody's question reaches the driver before the snapshot, no answer stays
in it, and after a restore those who decide only once are told.

torchao is the exception: it leaves its kernels for the MX formats out for good. No quantisation of
Cygnet's uses them.
"""

from __future__ import annotations

import functools
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

LIBRARIES = {"torch", "triton", "torchao", "diffusers", "transformers", "accelerate", "peft"}
"""Those that ask for GPUs, and may keep the answer in a cache."""

_KNOW_THE_BUILD = {
    "_accelerator_getAccelerator",
    "_accelerator_isAllocatorInitialized",
    "_accelerator_getAllocatorSettings",
    "_accelerator_setAllocatorSettings",
}
"""What of torch's accelerator asks no driver: it tells of the build, or of this process."""


@contextmanager
def no_gpu_yet() -> Iterator[None]:
    """While the memory for the snapshot is filled: all who ask hear of no GPU, and forget it after.

    The questions are answered below torch's Python functions, because libraries keep those too.
    """
    with ExitStack() as stack:
        for name in dir(torch._C):
            if name in ("_cuda_getDeviceCount", "_accelerator_hooks_device_count"):
                stack.enter_context(_replaced(torch._C, name, _none))
            elif name == "_cuda_init" or (
                name.startswith("_accelerator_") and name not in _KNOW_THE_BUILD
            ):
                stack.enter_context(_replaced(torch._C, name, _refuse))
        stack.enter_context(_replaced(torch.cuda, "_device_count_nvml", _none))
        stack.callback(_forget)
        yield


def gpu_is_here() -> None:
    """After a restore: what libraries work out once, when imported, is worked out again."""
    utils: Any = sys.modules.get("diffusers.utils.torch_utils")
    if not utils:
        return
    utils.torch_device = utils.get_device()
    if pipelines := sys.modules.get("diffusers.pipelines.pipeline_utils"):
        pipelines.SUPPORTED_DEVICE_MAP[:] = ["balanced", utils.torch_device, "cpu"]


def _forget() -> None:
    """Empty the libraries' caches: which of them hold an answer, or what follows from one, is not
    to be seen, and they fill up again."""
    caches: list[Any] = [one for one in gc.get_objects() if type(one) is _CACHED]
    for cached in caches:
        if str(cached.__module__).partition(".")[0] in LIBRARIES:
            cached.cache_clear()
    interfaces: Any = sys.modules.get("torch._dynamo.device_interface")
    if interfaces:
        interfaces._device_initialized = False  # it lists cuda:0 and its like once


_CACHED = type(functools.lru_cache(_forget))


def _none(*_: object) -> int:
    return 0


def _refuse(*_: object) -> None:
    raise RuntimeError("No GPU is there before the snapshot.")


@contextmanager
def _replaced(owner: Any, name: str, stand_in: Callable[..., Any]) -> Iterator[None]:
    real = getattr(owner, name)
    setattr(owner, name, stand_in)
    try:
        yield
    finally:
        setattr(owner, name, real)
