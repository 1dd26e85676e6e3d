"""Checkpoints load through real code, and what cannot be loaded is said in one sentence."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanPipeline, WanTransformer3DModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from shared.checkpoints import Checkpoint, Lora, add_folder, get_checkpoint
from shared.contract import GenerationRequest
from shared.engine import denoising, loading
from shared.engine.loading import Model, load
from shared.errors import (
    CheckpointCorrupt,
    CheckpointMissing,
    CygnetError,
    DeviceUnavailable,
    DiskFull,
    OutOfMemory,
    PackageMissing,
    UnsupportedSetting,
)
from shared.settings import Acceleration
from tests.engine.conftest import psnr, solo, stock

Ask = Callable[..., GenerationRequest]
CPU = Acceleration(device="cpu")


def save_lora(folder: Path, checkpoint: Path) -> Path:
    """A LoRA file as peft and diffusers write it, strong enough to be seen."""
    transformer = WanTransformer3DModel.from_pretrained(checkpoint, subfolder="transformer")
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["to_q", "to_v", "ffn.net.0.proj"])
    transformer.add_adapter(config)
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3)
    state: dict[str, Any] = get_peft_model_state_dict(transformer)
    WanPipeline.save_lora_weights(folder, state)
    return folder / "pytorch_lora_weights.safetensors"


@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_a_lora_gives_the_pipelines_own_result(
    small: Checkpoint, small_folder: Path, model: Model, ask: Ask, tmp_path: Path, strength: float
) -> None:
    file = save_lora(tmp_path, small_folder)
    shutil.copytree(small_folder, tmp_path / "wan")
    shutil.copy(file, tmp_path / "wan" / "lora.safetensors")
    lora = Lora(repository=None, filename="lora.safetensors", strength=strength)
    ours = load(small.model_copy(update={"folder": tmp_path / "wan", "lora": lora}), CPU)

    pipe = WanPipeline.from_pretrained(small_folder)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(str(tmp_path), weight_name=file.name, adapter_name="lora")
    pipe.set_adapters(["lora"], [strength])

    picture = solo(ours, ask())[0]
    assert psnr(picture, stock(pipe, ask())) >= 60
    assert psnr(picture, solo(model, ask())[0]) < 45, "the LoRA must change the picture"


def test_the_embedded_fast_checkpoint_is_the_same_folder_with_its_lora(tiny_model: Model) -> None:
    fast = get_checkpoint("cygnet-tiny-fast")
    assert fast.folder == get_checkpoint("cygnet-tiny").folder
    weights = load(fast, CPU).transformer.state_dict()
    plain = tiny_model.transformer.state_dict()
    assert weights.keys() == plain.keys()
    assert any(not torch.equal(weights[name], plain[name]) for name in plain)


@pytest.fixture
def copy(small_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_folder, tmp_path / "copy"))


def refusal(folder: Path, kind: type[CygnetError]) -> str:
    with pytest.raises(kind) as caught:
        load(add_folder(folder), CPU)
    text = str(caught.value)
    assert "\n" not in text and caught.value.next_step
    return text


def test_cut_off_weights_are_corrupt(copy: Path) -> None:
    weights = copy / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "transformer" in refusal(copy, CheckpointCorrupt)


def test_weights_of_another_shape_are_corrupt(copy: Path) -> None:
    config = copy / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"ffn_dim": 64}))
    assert "transformer" in refusal(copy, CheckpointCorrupt)


def test_parts_that_do_not_belong_together_are_corrupt(copy: Path) -> None:
    transformer = WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=24,
        in_channels=8,
        out_channels=8,
        text_dim=32,
        freq_dim=32,
        ffn_dim=96,
        num_layers=1,
    )
    transformer.save_pretrained(copy / "transformer")
    assert "latent channels" in refusal(copy, CheckpointCorrupt)


@pytest.mark.parametrize("part", ["vae", "text_encoder", "tokenizer"])
def test_a_missing_part_is_named(copy: Path, part: str) -> None:
    checkpoint = add_folder(copy)
    shutil.rmtree(copy / part)
    with pytest.raises(CheckpointMissing, match=part):
        load(checkpoint, CPU)


def test_a_folder_that_vanished_is_missing(copy: Path) -> None:
    checkpoint = add_folder(copy)
    shutil.rmtree(copy)
    with pytest.raises(CheckpointMissing, match="folder"):
        load(checkpoint, CPU)


def test_pickled_weights_are_not_read(copy: Path) -> None:
    weights = copy / "transformer" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises((CheckpointCorrupt, CheckpointMissing)):
        load(add_folder(copy), CPU)


def test_a_text_encoder_of_a_strangers_choice_is_refused(copy: Path) -> None:
    index = copy / "model_index.json"
    chosen = {"text_encoder": ["transformers", "GPT2Model"]}
    index.write_text(json.dumps(json.loads(index.read_text()) | chosen))
    assert "GPT2Model" in refusal(copy, CheckpointCorrupt)


def test_a_lora_for_another_model_is_corrupt(small: Checkpoint, copy: Path) -> None:
    save_file(
        {"transformer.blocks.0.nothing.lora_A.weight": torch.ones(2, 2)}, copy / "x.safetensors"
    )
    lora = Lora(repository=None, filename="x.safetensors")
    with pytest.raises(CheckpointCorrupt, match=r"x\.safetensors"):
        load(small.model_copy(update={"folder": copy, "lora": lora}), CPU)


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
def test_weights_with_a_tensor_missing_are_corrupt_not_random(copy: Path, part: str) -> None:
    [file] = (copy / part).glob("*.safetensors")
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("weight") and tensors[name].ndim > 1)
    del tensors[name]
    save_file(tensors, file, metadata={"format": "pt"})
    assert f"{part} lacks 1 tensors" in refusal(copy, CheckpointCorrupt)


def test_a_damaged_tokenizer_is_corrupt_even_if_its_library_panics(copy: Path) -> None:
    file = copy / "tokenizer" / "tokenizer.json"
    settings = json.loads(file.read_text())
    settings["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    file.write_text(json.dumps(settings))
    assert "tokenizer" in refusal(copy, CheckpointCorrupt)


def test_sharded_weights_load_as_one(small: Checkpoint, copy: Path, model: Model, ask: Ask) -> None:
    transformer = WanTransformer3DModel.from_pretrained(copy, subfolder="transformer")
    shutil.rmtree(copy / "transformer")
    transformer.save_pretrained(copy / "transformer", max_shard_size="200KB")
    assert len(list((copy / "transformer").glob("*.safetensors"))) > 1
    sharded = load(small.model_copy(update={"folder": copy}), CPU)
    assert (solo(sharded, ask())[0] == solo(model, ask())[0]).all()


def test_a_lora_that_matches_only_in_part_is_corrupt(small: Checkpoint, copy: Path) -> None:
    file = save_lora(copy, copy)
    tensors = load_file(file)
    name = next(iter(tensors))
    tensors |= {
        key.replace("blocks.0", "blocks.77"): value.clone() for key, value in tensors.items()
    }
    save_file(tensors, file)
    lora = Lora(repository=None, filename=file.name)
    with pytest.raises(CheckpointCorrupt, match=r"layers do not match"):
        load(small.model_copy(update={"folder": copy, "lora": lora}), CPU)
    assert name.startswith("transformer.")


def test_a_missing_lora_is_missing(small: Checkpoint) -> None:
    lora = Lora(repository=None, filename="gone.safetensors")
    with pytest.raises(CheckpointMissing, match=r"gone\.safetensors"):
        load(small.model_copy(update={"lora": lora}), CPU)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), DiskFull),
        (TimeoutError("read timed out"), CheckpointMissing),
        (RuntimeError("a network library's own error"), CheckpointMissing),
    ],
)
def test_what_fails_while_fetching_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[CygnetError]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(loading, "snapshot_download", fail)
    with pytest.raises(kind):
        load(get_checkpoint("wan2.1-1.3b").model_copy(update={"memory_gib": 1.0}), CPU)


def test_a_hub_that_cannot_be_reached_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no route to https://user:secret@example")

    monkeypatch.setattr(loading, "snapshot_download", unreachable)
    remote = get_checkpoint("wan2.1-1.3b").model_copy(update={"memory_gib": 1.0})
    with pytest.raises(CheckpointMissing) as caught:
        load(remote, CPU)
    assert "Hub" in str(caught.value) or "fetched" in str(caught.value)
    assert "secret" not in str(caught.value)


LOAD_FROM_THE_HUB = """
from shared.checkpoints import get_checkpoint
from shared.engine.loading import load
from shared.settings import Acceleration

changes = {"memory_gib": 0.1, "revision": None}
remote = get_checkpoint("wan2.1-1.3b").model_copy(update=changes)
print(load(remote, Acceleration(device="cpu")).revision)
"""


def test_a_hub_repository_loads_whole_from_one_commit(small_folder: Path, tmp_path: Path) -> None:
    # The Hub's own cache, filled by hand: the client's real code finds every file there.
    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = tmp_path / "hub" / "models--Wan-AI--Wan2.1-T2V-1.3B-Diffusers"
    shutil.copytree(small_folder, cache / "snapshots" / commit)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", LOAD_FROM_THE_HUB]
    loaded = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert loaded.stdout.split()[-1:] == [commit], loaded.stderr[-2000:]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_device_that_is_not_there_is_refused(small: Checkpoint) -> None:
    with pytest.raises(DeviceUnavailable, match="cuda"):
        load(small, Acceleration(device="cuda"))


def test_weights_larger_than_the_memory_are_refused_before_they_are_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loading, "snapshot_download", lambda *_, **__: pytest.fail("fetched"))
    huge = get_checkpoint("wan2.1-14b").model_copy(update={"memory_gib": 1e6})
    with pytest.raises(OutOfMemory, match="2000000 GiB"):
        load(huge, CPU)


def test_fp8_on_a_cpu_is_refused(small: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    with pytest.raises(UnsupportedSetting, match="fp8"):
        load(small, Acceleration(device="cpu", quantisation="fp8"))


def test_quantisation_without_torchao_names_the_package(
    small: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PackageMissing, match="torchao"):
        load(small, Acceleration(device="cpu", quantisation="int8"))


@pytest.mark.parametrize("attention", ["no-such-kernel", "flash", "_native_cudnn"])
def test_an_attention_kernel_that_cannot_run_here_is_refused(
    small: Checkpoint, attention: str
) -> None:
    with pytest.raises(UnsupportedSetting, match=attention):
        load(small, Acceleration(device="cpu", attention=attention))


def test_int8_weights_give_nearly_the_same_picture(
    small: Checkpoint, model: Model, ask: Ask
) -> None:
    quantised = load(small, Acceleration(device="cpu", quantisation="int8"))
    picture = solo(quantised, ask())[0]
    assert 20 < psnr(picture, solo(model, ask())[0]) < float("inf")


def test_compiled_blocks_give_the_same_pictures_in_many_shapes(
    small: Checkpoint, model: Model, ask: Ask
) -> None:
    compiled = load(small, Acceleration(device="cpu", compile=True))
    sizes = [(64, 48), (32, 32), (16, 80), (96, 16)]
    for number, (width, height) in enumerate(sizes):
        request = ask(
            "a fox " * (1 + number),
            width=width,
            height=height,
            steps=2,
            num_images=1 + number % 3,
            guidance_scale=1.0 + 3 * (number % 2),
        )
        pictures = zip(solo(compiled, request), solo(model, request), strict=True)
        assert all(psnr(one, other) >= 60 for one, other in pictures)


def test_bfloat16_gives_a_picture_close_to_float32(
    small: Checkpoint, model: Model, ask: Ask
) -> None:
    picture = solo(load(small, Acceleration(device="cpu", dtype="bfloat16")), ask())[0]
    assert psnr(picture, solo(model, ask())[0]) > 20


def change(folder: Path, file: str, **changed: Any) -> None:
    """Change a file of JSON."""
    config = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(config | changed))


@pytest.mark.parametrize(
    ("file", "changed", "named"),
    [
        ("transformer/config.json", {"vace_layers": [0, 5]}, "vace_layers=[0, 5]"),
        ("transformer/config.json", {"guidance_embeds": True}, "guidance_embeds=true"),
        ("vae/config.json", {"use_tiny_decoder": True}, "use_tiny_decoder=true"),
        ("scheduler/scheduler_config.json", {"_class_name": "DDIMScheduler"}, "DDIMScheduler"),
        ("scheduler/scheduler_config.json", {"_class_name": None}, "None"),
        ("scheduler/scheduler_config.json", {"prediction_type": "epsilon"}, "epsilon"),
        ("scheduler/scheduler_config.json", {"use_dynamic_shifting": True}, "use_dynamic_shifting"),
        ("scheduler/scheduler_config.json", {"brand_new": 2}, "brand_new=2"),
    ],
    ids=str,
)
def test_a_setting_that_would_be_passed_over_is_refused_by_name(
    copy: Path, small: Checkpoint, file: str, changed: dict[str, Any], named: str
) -> None:
    change(copy, file, **changed)
    with pytest.raises(CheckpointCorrupt) as refused:
        load(small.model_copy(update={"folder": copy}), CPU)
    assert named in refused.value.message and file.split("/")[0] in refused.value.message


def test_settings_that_say_nothing_are_accepted(copy: Path, small: Checkpoint) -> None:
    for file in ("transformer/config.json", "vae/config.json", "scheduler/scheduler_config.json"):
        change(copy, file, _name_or_path="elsewhere", brand_new=None, other=False)
    load(small.model_copy(update={"folder": copy}), CPU)


@pytest.mark.parametrize("part", ["transformer", "vae"])
def test_a_tensor_that_would_be_passed_over_is_refused_by_name(
    copy: Path, small: Checkpoint, part: str
) -> None:
    [file] = (copy / part).glob("*.safetensors")
    tensors = load_file(file)
    own = {"blocks.0.attn1.to_gate_compress.weight": torch.ones(2, 2)}
    save_file(tensors | own, file, metadata={"format": "pt"})
    load(small.model_copy(update={"folder": copy}), CPU)  # FastWan's, of another attention

    save_file(tensors | {"blocks.0.more.weight": torch.ones(2)}, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointCorrupt, match=rf"{part}, the tensor blocks\.0\.more\.weight"):
        load(small.model_copy(update={"folder": copy}), CPU)


def test_a_second_transformer_is_refused_where_the_weights_are_read_too(
    copy: Path, small: Checkpoint
) -> None:
    shutil.copytree(copy / "transformer", copy / "transformer_2")
    both = {"transformer_2": ["diffusers", "WanTransformer3DModel"], "boundary_ratio": 0.875}
    change(copy, "model_index.json", **both)
    with pytest.raises(CheckpointCorrupt, match=r"boundary_ratio=0\.875, transformer_2 "):
        load(small.model_copy(update={"folder": copy}), CPU)


def test_a_folder_of_fastwan_loads(copy: Path) -> None:
    change(copy, "model_index.json", _class_name="WanDMDPipeline")
    fast = add_folder(copy)
    assert load(fast, CPU).checkpoint.sigmas == get_checkpoint("wan2.1-1.3b-fast").sigmas


def test_two_checkpoints_are_never_read_at_once(
    small: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    both_read = threading.Barrier(2, timeout=1)
    met: list[bool] = []
    prepare = denoising.prepare

    def meet(transformer: WanTransformer3DModel) -> None:
        try:
            both_read.wait()
            met.append(True)
        except threading.BrokenBarrierError:
            met.append(False)
        prepare(transformer)

    monkeypatch.setattr(denoising, "prepare", meet)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: load(small, CPU), range(2)))
    assert met == [False, False]
