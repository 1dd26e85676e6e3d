"""A machine with a stand-in for the GPU's driver, as a process of its own: torch asks a driver once.

    python -m tests.modal.gpu_machine restored    a worker of which a snapshot without a GPU was taken
    python -m tests.modal.gpu_machine there       the same libraries, imported with the GPU there

The stand-in lies below torch's Python functions, so that a build for CPUs sees the same calls as one
for CUDA. Both print what was asked, and what the libraries believe, as JSON.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import gc
import importlib
import inspect
import json
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import SimpleNamespace
from typing import Any

import torch

GPU = "NVIDIA L40S"
_FACTS = SimpleNamespace(name=GPU, major=8, minor=9, total_memory=48 * 2**30)


class Driver:
    """What torch finds below itself. `asked` counts the questions that reached it."""

    def __init__(self, gpus: int) -> None:
        self.gpus = gpus
        self.asked: list[str] = []

    def install(self) -> None:
        below: Any = torch._C
        below._cuda_getDeviceCount = lambda: self._told("_cuda_getDeviceCount", self.gpus)
        below._cuda_init = lambda: self._told("_cuda_init", None)
        below._cuda_getDevice = lambda: (
            0
        )  # a CUDA build would ask the driver, of which there is none
        below._cuda_getCurrentRawStream = lambda _: 0  # imported where CUDA is compiled in
        below._accelerator_getAccelerator = lambda: torch.device("cuda")  # of the build
        below._accelerator_getDeviceIndex = lambda: self._told("_accelerator_getDeviceIndex", 0)
        torch.cuda._is_compiled = lambda: True
        torch.cuda._cudart = below
        for name, answer in {"capability": (8, 9), "name": GPU, "properties": _FACTS}.items():
            setattr(torch.cuda, f"get_device_{name}", functools.partial(_answer, answer))

    def _told(self, question: str, answer: Any) -> Any:
        self.asked.append(question)
        if not self.gpus and answer != 0:
            raise RuntimeError("Found no NVIDIA driver on your system.")
        return answer


def _answer(answer: Any, *_: object) -> Any:
    return answer


class Stranger:
    """Asks in every way while the worker imports the engine, as any library might tomorrow."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: object = None
    ) -> ModuleSpec | None:
        if name == "shared.engine.loading":
            heard.update(ask())
            importlib.import_module("diffusers.loaders.lora_pipeline")  # as for a LoRA
        return None


heard: dict[str, object] = {}
"""What a library that was imported before the snapshot was told."""


def ask() -> dict[str, object]:
    """Every question that Python code can put to a driver."""
    from torch._dynamo.device_interface import get_interface_for_device

    questions = {
        "is_available": torch.cuda.is_available,
        "device_count": torch.cuda.device_count,
        "nvml": lambda: torch.cuda._device_count_nvml() > 0,
        "init": torch.cuda.init,
        "tensor": lambda: torch.ones(1, device="cuda"),
        "accelerator.is_available": torch.accelerator.is_available,
        "accelerator.device_count": torch.accelerator.device_count,
        "accelerator.current_device_index": torch.accelerator.current_device_index,
        "interface": get_interface_for_device("cuda").is_available,
    }
    told: dict[str, object] = {}
    for name, question in questions.items():
        try:
            told[name] = question()
        except Exception as error:
            told[name] = type(error).__name__
    return told


def beliefs() -> dict[str, str]:
    """What the modules hold that may follow from an answer: yes or no, names of devices."""
    found = {}
    for name, module in list(sys.modules.items()):
        for key, value in list(vars(module).items()) if module else []:
            text = repr(value) if type(value) in (bool, type(None), str, list, tuple) else ""
            kinds = (bool, type(None), torch.device)
            if isinstance(value, kinds) or "'cpu'" in text or "'cuda'" in text:
                found[f"{name}.{key}"] = repr(value)
    from torch._dynamo import device_interface

    device_interface.get_interface_for_device("cuda")
    found["interfaces"] = repr(sorted(device_interface.device_interfaces))
    return {name: value for name, value in found.items() if " at 0x" not in value}


def stale() -> list[str]:
    """The cached functions without arguments that would answer otherwise if they were asked now."""
    caches: list[Any] = [one for one in gc.get_objects() if type(one) is _CACHED]
    found = []
    for cached in caches:
        if not cached.cache_info().currsize or inspect.signature(cached).parameters:
            continue
        if isinstance(answer := cached(), (bool, str)) and cached.__wrapped__() != answer:
            found.append(f"{cached.__module__}.{cached.__qualname__}")
    return found


_CACHED = type(functools.lru_cache(ask))


def restored(driver: Driver) -> dict[str, Any]:
    """Both phases of the worker, with a GPU that comes between them."""
    from shared.backends.modal.worker import Worker
    from shared.prices import Machine

    sys.meta_path.insert(0, Stranger())
    worker = Worker("cygnet-tiny", Machine(1, 1), has_gpu=True, snapshot="cpu")
    worker.load()
    asked, driver.gpus = list(driver.asked), 1

    from shared.engine import acceleration, loading

    places: list[str] = []

    def place(model: loading.Model, device: torch.device, _: object) -> loading.Model:
        places.append(device.type)
        return dataclasses.replace(model, device=device)

    loading.place = place  # a build for CPUs cannot move it
    acceleration.total_memory = lambda _: 48.0
    worker.wake()
    asyncio.run(worker.aclose())
    return {"asked": asked, "heard": heard, "places": places, "gpu": worker.machine.gpu}


def there(_: Driver) -> dict[str, Any]:
    """What the worker imports and reads, on a machine that always had its GPU."""
    from shared.checkpoints import get_checkpoint
    from shared.engine import loading
    from shared.settings import Acceleration

    importlib.import_module("diffusers.loaders.lora_pipeline")
    loading.read(get_checkpoint("cygnet-tiny"), Acceleration(), "cuda")
    return {}


if __name__ == "__main__":
    driver = Driver(gpus=int(sys.argv[1] == "there"))
    driver.install()
    seen = {"restored": restored, "there": there}[sys.argv[1]](driver)
    seen |= {"beliefs": beliefs(), "stale": stale(), "torchao": "torchao" in sys.modules}
    print(json.dumps(seen))
