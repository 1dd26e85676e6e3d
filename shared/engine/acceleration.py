"""Which device, which numbers, which kernels; and a clear error for what this machine cannot do.

Checked here on a CPU. On a GPU none of it was run by us: the choices follow diffusers' and
torchao's documentation, and `warm_up` proves them on the machine at hand before the first request.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import psutil
import torch
from diffusers.models.attention_dispatch import attention_backend
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from shared.checkpoints import Checkpoint
from shared.engine.denoising import velocity
from shared.engine.text import stack
from shared.errors import DeviceUnavailable, OutOfMemory, PackageMissing, UnsupportedSetting, reason
from shared.settings import Acceleration

if TYPE_CHECKING:
    from shared.engine.loading import Model

FP8_CAPABILITY = (8, 9)
"""The first CUDA compute capability with fp8 matrix products (Ada)."""


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is the first of cuda, mps and cpu that is there."""
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(device for device, there in available.items() if there)
    if not available[name]:
        raise DeviceUnavailable(
            f"The device {name} is not available to torch {torch.__version__} on this machine.",
            "Unset CYGNET_DEVICE to use what is there, or install torch for that device.",
        )
    return torch.device(name)


def check_device(device: torch.device) -> None:
    """Refuse a GPU that is listed but cannot add two numbers: its driver or the card is broken."""
    if device.type == "cpu":
        return
    try:
        torch.ones(1, device=device).add(1).item()
    except (RuntimeError, AssertionError) as error:
        if is_out_of_memory(error):
            raise
        raise DeviceUnavailable(
            f"The device {device.type} is there and does not work: {reason(error)}.",
            "Mend its driver, or set CYGNET_DEVICE=cpu.",
        ) from error


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """ "auto" is bfloat16 on a GPU and float32 on a CPU."""
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    return getattr(torch, name)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on the device or beside it."""
    kinds = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, kinds) or "can't allocate memory" in str(error)


def device_name(device: torch.device) -> str:
    """What the device calls itself, such as "NVIDIA L40S"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def total_memory(device: torch.device) -> float:
    """GiB of the device, used or not."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / 2**30
    return psutil.virtual_memory().total / 2**30


def held_memory(device: torch.device) -> int | None:
    """Bytes that this process holds on the device; None where it is the machine's own memory."""
    match device.type:
        case "cuda":
            return torch.cuda.memory_reserved(device)
        case "mps":
            return torch.mps.driver_allocated_memory()
        case _:
            return None


def check_memory(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> None:
    """Refuse weights that the device cannot hold, before gigabytes are fetched."""
    total = total_memory(device)
    needed = checkpoint.memory_gib * dtype.itemsize / torch.bfloat16.itemsize
    if needed > total:
        raise OutOfMemory(
            f"{checkpoint.name} needs about {needed:.0f} GiB in {str(dtype).removeprefix('torch.')}; "
            f"the {device.type} here has {total:.0f} GiB.",
            "Choose a smaller checkpoint, or set CYGNET_DTYPE=bfloat16 or CYGNET_QUANTISATION=int8.",
        )


def check_quantisation(acceleration: Acceleration, device: torch.device) -> None:
    """Refuse a quantisation that this machine is known not to have."""
    if acceleration.quantisation == "none":
        return
    if importlib.util.find_spec("torchao") is None:
        raise PackageMissing(
            f"Quantisation {acceleration.quantisation} needs the package torchao.",
            "Install it with: pip install torchao",
        )
    if acceleration.quantisation == "fp8" and not (
        device.type == "cuda" and torch.cuda.get_device_capability(device) >= FP8_CAPABILITY
    ):
        raise UnsupportedSetting(
            f"Quantisation fp8 needs a GPU of capability 8.9 or newer; this is {device.type}.",
            "Set CYGNET_QUANTISATION to int8 or none.",
        )


def quantise(
    transformer: WanTransformer3DModel, acceleration: Acceleration, device: torch.device
) -> None:
    """Quantise the transformer's blocks; the small layers around them are sensitive and stay.

    Layer by layer on the device, which may be too small for all of them unquantised.
    """
    if acceleration.quantisation == "none":
        return
    try:
        from torchao import quantization

        if acceleration.quantisation == "int8":
            config = quantization.Int8WeightOnlyConfig()
        else:
            config = quantization.Float8DynamicActivationFloat8WeightConfig()
        quantization.quantize_(transformer.blocks, config, device=device)
    except (RuntimeError, ImportError, NotImplementedError, AssertionError) as error:
        name = f"quantisation {acceleration.quantisation}"
        raise _unsupported(name, "CYGNET_QUANTISATION", error) from error


def choose_kernels(transformer: WanTransformer3DModel, acceleration: Acceleration) -> None:
    """Set the attention kernel and compile the repeated blocks."""
    if acceleration.attention != "auto":
        try:
            # diffusers also makes the kernel everybody's default; leaving the context undoes that.
            with attention_backend("native"):
                transformer.set_attention_backend(acceleration.attention)
        except (ValueError, RuntimeError, ImportError) as error:
            name = f"attention {acceleration.attention}"
            raise _unsupported(name, "CYGNET_ATTENTION", error) from error
    if acceleration.compile:
        transformer.compile_repeated_blocks(fullgraph=True)


def warm_up(model: Model, acceleration: Acceleration) -> None:
    """One forward with the settings that are not the defaults, so that a bad one fails at load."""
    if acceleration == Acceleration(device=acceleration.device, dtype=acceleration.dtype):
        return
    side = model.transformer.config["patch_size"][1] * 8
    latents = torch.zeros(1, model.latent_channels, 1, side, side, device=model.device)
    try:
        with torch.inference_mode():
            time = torch.zeros(1, device=model.device)
            velocity(model.transformer, latents, time, stack([model.prompts.encode("")]))
    except Exception as error:  # kernels and compilers fail in ways of their own
        settings = acceleration.model_dump(exclude_defaults=True, exclude={"device", "dtype"})
        asked = ", ".join(f"{name}={value}" for name, value in settings.items())
        raise _unsupported(asked, "the CYGNET_ variables of these settings", error) from error


def _unsupported(what: str, variable: str, error: Exception) -> UnsupportedSetting:
    return UnsupportedSetting(
        f"This machine cannot run with {what}: {reason(error)}.",
        f"Unset {variable}, or choose another value.",
    )
