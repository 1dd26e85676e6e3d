"""A checkpoint and the acceleration settings become a `Model`, ready to run.

Weights are read by diffusers' and transformers' own `from_pretrained`, from the Hub or a folder, as
safetensors only. The order is theirs too: load, fuse the LoRA, then quantise, then compile. A
setting that the device cannot do is an error here, never a silent no-op.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers.utils.logging
import torch
import transformers
import transformers.utils.logging
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from huggingface_hub import hf_hub_download, snapshot_download
from safetensors.torch import load_file

from shared import http_clients
from shared.checkpoint_folder import TEXT_ENCODERS, check_folder, is_off
from shared.checkpoints import FILES, Checkpoint, Lora
from shared.engine import denoising, left_out
from shared.engine.acceleration import (
    check_device,
    check_memory,
    check_quantisation,
    choose_device,
    choose_dtype,
    choose_kernels,
    is_out_of_memory,
    quantise,
    warm_up,
)
from shared.engine.frames import FrameDecoder, PreviewMap, fit_preview
from shared.engine.lora import UnusableLora, fuse
from shared.engine.text import PromptEncoder
from shared.errors import CheckpointCorrupt, CheckpointMissing, CygnetError, DiskFull, reason
from shared.settings import Acceleration

PREVIEW_FILE = "latent_rgb.safetensors"

_ONE_AT_A_TIME = threading.Lock()
"""The libraries make models without weights by patching torch for the whole process: of two that are
read at once, one may be left without some of its weights."""


@dataclass(frozen=True)
class Model:
    """A loaded checkpoint: everything the engine's five verbs need."""

    checkpoint: Checkpoint
    prompts: PromptEncoder
    transformer: WanTransformer3DModel
    frames: FrameDecoder
    preview: PreviewMap
    scheduler_config: dict[str, Any]
    revision: str | None
    """The commit that was read: the pinned one, or the newest where none is pinned."""
    device: torch.device

    @property
    def latent_scale(self) -> int:
        """Pixels along one side of a latent pixel."""
        return self.checkpoint.size_multiple // self.transformer.config["patch_size"][1]

    @property
    def latent_channels(self) -> int:
        return self.transformer.config["in_channels"]

    def tokens(self, width: int, height: int) -> int:
        """How many tokens the transformer sees for one picture of this size, in pixels."""
        return (width // self.checkpoint.size_multiple) * (height // self.checkpoint.size_multiple)


def load(checkpoint: Checkpoint, acceleration: Acceleration) -> Model:
    """Read a checkpoint's weights onto the device.

    Raises `DeviceUnavailable`, `UnsupportedSetting` or `PackageMissing` for settings that this
    machine cannot do, `CheckpointMissing` and `CheckpointCorrupt` for weights that are not there or
    unreadable.
    """
    device = choose_device(acceleration.device)
    check_device(device)
    dtype = choose_dtype(acceleration.dtype, device)
    check_quantisation(acceleration, device)
    if acceleration.quantisation == "none":
        check_memory(checkpoint, device, dtype)
    return place(read(checkpoint, acceleration, device.type), device, acceleration)


def fetch(checkpoint: Checkpoint) -> str | None:
    """Bring a checkpoint's files into the Hub's cache, those that are not there; their revision."""
    source = _Source(checkpoint)
    if checkpoint.lora:
        source.lora(checkpoint.lora)
    return source.revision


def read(checkpoint: Checkpoint, acceleration: Acceleration, device_type: str) -> Model:
    """A checkpoint's weights in the machine's memory, in the numbers that suit a type of device.

    Looks for no GPU: it may come later.
    """
    dtype = choose_dtype(acceleration.dtype, torch.device(device_type))
    # A bar for each file of weights would tear up the one bar that counts steps.
    transformers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.disable_progress_bar()
    source = _Source(checkpoint)
    with _ONE_AT_A_TIME:
        return _read(source, dtype)


def _read(source: _Source, dtype: torch.dtype) -> Model:
    checkpoint = source.checkpoint
    index = source.json("model_index.json")
    source.json("transformer/config.json")
    check_folder(source.folder, checkpoint.name)
    tokenizer = source.read("tokenizer", transformers.AutoTokenizer, trust_remote_code=False)
    text_encoder = source.weights("text_encoder", _text_encoder_class(index), dtype=dtype)
    transformer = source.weights("transformer", WanTransformer3DModel, torch_dtype=dtype)
    vae = source.weights("vae", AutoencoderKLWan, torch_dtype=dtype)
    source.check_fit(transformer, vae, text_encoder)
    if checkpoint.lora:
        _fuse_lora(transformer, source, checkpoint.lora)
    for part in (transformer, text_encoder, vae):
        part.eval().requires_grad_(False)
    denoising.prepare(transformer)
    preview = source.preview() or fit_preview(vae)
    return Model(
        checkpoint=checkpoint,
        prompts=PromptEncoder(tokenizer, text_encoder, transformer),
        transformer=transformer,
        frames=FrameDecoder(vae),
        preview=preview,
        scheduler_config=source.scheduler(),
        revision=source.revision,
        device=torch.device("cpu"),
    )


def place(model: Model, device: torch.device, acceleration: Acceleration) -> Model:
    """The model on a device, with the kernels asked for. Its parts move; `model` is used up."""
    check_device(device)
    quantise(model.transformer, acceleration, device)
    prompts = model.prompts
    parts: list[torch.nn.Module] = [model.transformer, prompts.text_encoder, model.frames]
    for part in parts:
        part.to(device)
    choose_kernels(model.transformer, acceleration)
    placed = dataclasses.replace(
        model,
        # A new one: embeddings that the old one keeps would stay where they are.
        prompts=PromptEncoder(prompts.tokenizer, prompts.text_encoder, model.transformer),
        preview=PreviewMap(model.preview.weight.to(device), model.preview.bias.to(device)),
        device=device,
    )
    warm_up(placed, acceleration)
    return placed


class _Source:
    """The folder with a checkpoint's files, and errors in our words when they cannot be read."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.revision = checkpoint.revision
        if checkpoint.folder and not checkpoint.folder.is_dir():
            raise CheckpointMissing(
                f"The folder of checkpoint {checkpoint.name} is missing: {checkpoint.folder}.",
                "Restore it, or choose another checkpoint.",
            )
        self.folder = checkpoint.folder or self._fetch()

    def _fetch(self) -> Path:
        """The Hub's files in its local cache, all of one commit; fetched if they are not there."""
        with self.fetching("its files"):
            repository = self.checkpoint.repository or ""
            folder = snapshot_download(repository, revision=self.revision, allow_patterns=FILES)
            self.revision = Path(folder).name  # the cache names the folder after the commit
            return Path(folder)

    def read(self, part: str, loader: Any, **options: Any) -> Any:
        """One component through its `from_pretrained`."""
        with self.reading(part):
            if not (self.folder / part).is_dir():
                raise FileNotFoundError(f"{part}/ is not in the folder")
            return loader.from_pretrained(str(self.folder), subfolder=part, **options)

    def weights(self, part: str, loader: Any, **options: Any) -> Any:
        """A component with weights; the libraries would fill up missing ones at random."""
        options |= {"use_safetensors": True, "output_loading_info": True}
        model, info = self.read(part, loader, **options)
        if missing := sorted(info["missing_keys"]):
            raise self.corrupt(f"{part} lacks {len(missing)} tensors, {missing[0]} among them")
        if isinstance(model, ModelMixin):  # a text encoder without its decoder is whole
            config = self.json(f"{part}/config.json")
            self._refuse_part_of(part, left_out.settings(config, loader))
            self._refuse_part_of(part, left_out.tensors(info["unexpected_keys"]))
        return model

    def scheduler(self) -> dict[str, Any]:
        """The configuration of the checkpoint's own scheduler."""
        config = self.json("scheduler/scheduler_config.json")
        self._refuse_part_of("scheduler", left_out.of_scheduler(config))
        return config

    def _refuse_part_of(self, part: str, left_out: Iterable[str]) -> None:
        """Refuse to leave anything out of a folder. What a row of ours names was chosen as it is."""
        if self.checkpoint.folder and (names := [*left_out]):
            more = f", and {len(names) - 1} more" if len(names) > 1 else ""
            raise self.corrupt(f"of its {part}, {names[0]}{more} would be left out")

    def json(self, name: str) -> dict[str, Any]:
        with self.reading(name):
            told = json.loads((self.folder / name).read_bytes())
            if not isinstance(told, dict):
                raise ValueError("it is no JSON object")
            return told

    def lora(self, lora: Lora) -> Path:
        """The file of a LoRA: beside the checkpoint, or in a repository of its own."""
        if lora.repository is None:
            return self.folder / lora.filename
        with self.fetching(lora.filename):
            return Path(hf_hub_download(lora.repository, lora.filename, revision=lora.revision))

    def preview(self) -> PreviewMap | None:
        """The map that came with the checkpoint; only our own folders bring one."""
        if not (self.folder / PREVIEW_FILE).is_file():
            return None
        with self.reading(PREVIEW_FILE):
            tensors = load_file(self.folder / PREVIEW_FILE)
            return PreviewMap(tensors["weight"], tensors["bias"])

    def check_fit(self, transformer: Any, vae: Any, text_encoder: Any) -> None:
        """The parts must belong together; found here, not as a shape error in the first forward."""
        pairs = {
            "latent channels of transformer and VAE": (
                transformer.config["in_channels"],
                vae.config["z_dim"],
            ),
            "text width of transformer and text encoder": (
                transformer.config["text_dim"],
                getattr(text_encoder.config, "d_model", None) or text_encoder.config.hidden_size,
            ),
        }
        for what, (one, other) in pairs.items():
            if one != other:
                raise self.corrupt(f"the {what} differ: {one} and {other}")

    def corrupt(self, reason: str) -> CheckpointCorrupt:
        return CheckpointCorrupt(
            f"Checkpoint {self.checkpoint.name} cannot be read: {reason}.",
            "Get its files again, or choose another checkpoint.",
        )

    @contextmanager
    def fetching(self, what: str) -> Iterator[None]:
        """Whatever goes wrong between the Hub and the disk becomes one of our errors."""
        http_clients.keep_the_hub_to_it()
        try:
            yield
        except Exception as error:  # the Hub's client passes on errors of the network's libraries
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(
                    f"There is no room for {what} of {self.checkpoint.name}.",
                    "Make room, or set HF_HOME to a folder on a larger disk.",
                ) from error
            if fault := http_clients.proxy_fault(error):
                raise fault from error
            raise CheckpointMissing(
                f"{what} of {self.checkpoint.name} could not be fetched: {type(error).__name__}.",
                "Check the connection and, for a private repository, HF_TOKEN; or use cygnet-tiny.",
            ) from error

    @contextmanager
    def reading(self, part: str) -> Iterator[None]:
        """Whatever the libraries raise while reading a file becomes one of our errors."""
        try:
            yield
        except (KeyboardInterrupt, SystemExit, CygnetError):
            raise
        except (FileNotFoundError, PermissionError) as error:
            lack = "lacks" if isinstance(error, FileNotFoundError) else "does not let us read"
            raise CheckpointMissing(
                f"Checkpoint {self.checkpoint.name} {lack} {part}.",
                "Restore its files, or choose another checkpoint.",
            ) from error
        except BaseException as error:  # each library has its own zoo of errors; Rust ones panic
            if is_out_of_memory(error):
                raise
            raise self.corrupt(f"{part}: {reason(error)}") from error


def _text_encoder_class(index: dict[str, Any]) -> Any:
    named = index.get("text_encoder")
    if is_off(named) or not isinstance(named, list) or named[-1] not in TEXT_ENCODERS:
        raise CheckpointCorrupt(
            f"The checkpoint names no text encoder that is one of {TEXT_ENCODERS}.",
            "Choose a Wan 2.1 checkpoint in diffusers' format.",
        )
    return getattr(transformers, named[-1])


def _fuse_lora(transformer: WanTransformer3DModel, source: _Source, lora: Lora) -> None:
    """Add the LoRA to the weights. Raises `CheckpointCorrupt` if any of its tensors cannot be."""
    path = source.lora(lora)
    with source.reading(lora.filename):
        if not path.is_file():
            raise FileNotFoundError(path)
        try:
            fuse(transformer, path, lora.strength)
        except UnusableLora as error:
            raise CheckpointCorrupt(
                f"{lora.filename} of checkpoint {source.checkpoint.name} cannot be used: {error}.",
                "Use a LoRA for this model's text-to-video transformer, or another checkpoint.",
            ) from error
