"""Every tensor of a LoRA file changes the weights by plain arithmetic, or the file is refused by name."""

from __future__ import annotations

import copy
import functools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanPipeline, WanTransformer3DModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from shared.checkpoints import Checkpoint, Lora
from shared.contract import GenerationRequest
from shared.engine.loading import Model, load
from shared.engine.lora import METADATA, UnusableLora, fuse
from shared.errors import CheckpointCorrupt
from shared.settings import Acceleration
from tests.engine.conftest import psnr, solo, stock
from tests.engine.small_wan import make_pipeline

pytestmark = pytest.mark.slow

Ask = Callable[..., GenerationRequest]
Tensors = dict[str, torch.Tensor]

RANK = 4

IN_A_BLOCK = {
    **{f"attn1.to_{part}": f"self_attn.{part}" for part in "qkv"},
    **{f"attn2.to_{part}": f"cross_attn.{part}" for part in "qkv"},
    **{f"attn1.norm_{part}": f"self_attn.norm_{part}" for part in "qk"},
    **{f"attn2.norm_{part}": f"cross_attn.norm_{part}" for part in "qk"},
    "attn1.to_out.0": "self_attn.o",
    "attn2.to_out.0": "cross_attn.o",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
    "norm2": "norm3",
    "scale_shift_table": "modulation",
}
AROUND = {
    "patch_embedding": "patch_embedding",
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "proj_out": "head.head",
    "scale_shift_table": "head.modulation",
}
ORIGINAL = AROUND | {
    f"blocks.{block}.{ours}": f"blocks.{block}.{theirs}"
    for block in range(3)
    for ours, theirs in IN_A_BLOCK.items()
}
"""Wan's own names of the layers, by diffusers': written by hand from both programs' models."""

FORMS: dict[str, Callable[[str], str]] = {
    "diffusers": lambda layer: f"transformer.{layer}",
    "bare": lambda layer: layer,
    "PEFT": lambda layer: f"base_model.model.{layer}",
    "PEFT of a pipeline": lambda layer: f"base_model.model.transformer.{layer}",
    "UNet": lambda layer: f"unet.{layer}",
    "ComfyUI": lambda layer: f"diffusion_model.{ORIGINAL[layer]}",
    "ComfyUI's checkpoints": lambda layer: f"model.diffusion_model.{ORIGINAL[layer]}",
    "bare original": lambda layer: ORIGINAL[layer],
    "diffusers' prefix": lambda layer: f"transformer.{ORIGINAL[layer]}",
    "DiffSynth": lambda layer: f"pipe.dit.{ORIGINAL[layer]}",
    "musubi": lambda layer: f"lora_unet_{ORIGINAL[layer]}".replace(".", "_"),
    "kohya": lambda layer: f"lora_unet_{layer}".replace(".", "_"),
    "kohya's transformers": lambda layer: f"lora_transformer_{layer}".replace(".", "_"),
    "two underlines": lambda layer: f"lora_unet__{ORIGINAL[layer]}".replace(".", "_"),
    "LyCORIS": lambda layer: f"lycoris_{ORIGINAL[layer]}".replace(".", "_"),
}
"""How programs name a layer."""

HALVES = [
    ("lora_A.weight", "lora_B.weight"),
    ("lora_down.weight", "lora_up.weight"),
    ("lora_A.default.weight", "lora_B.default.weight"),
    ("lora.down.weight", "lora.up.weight"),
]


def transformer() -> WanTransformer3DModel:
    return copy.deepcopy(_new_transformer())


@functools.cache
def _new_transformer() -> WanTransformer3DModel:
    return make_pipeline().transformer


def state(model: torch.nn.Module) -> Tensors:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def weight(layer: str, model: Tensors) -> str:
    """The name of a layer's weight; of a modulation, the layer's own."""
    return layer if layer in model else f"{layer}.weight"


def linear_layers(model: Tensors) -> list[str]:
    return [layer for layer in ORIGINAL if model[weight(layer, model)].ndim == 2]


def low_rank(layer: str, model: Tensors, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    dice = torch.Generator().manual_seed(seed)
    rows, columns = model[f"{layer}.weight"].shape
    return (
        torch.randn(RANK, columns, generator=dice),
        torch.randn(rows, RANK, generator=dice),
    )


def fused(
    tensors: Tensors, folder: Path, strength: float = 1.0, header: dict[str, str] | None = None
) -> Tensors:
    """The weights of the small Wan with a file of these tensors."""
    save_file(tensors, folder / "lora.safetensors", metadata=header)
    model = transformer()
    fuse(model, folder / "lora.safetensors", strength)
    return state(model)


def check_changes(after: Tensors, before: Tensors, changes: Tensors) -> None:
    """Only what `changes` names has changed, and by that."""
    for name, value in before.items():
        if name in changes:
            assert not torch.equal(after[name], value), name
            assert torch.allclose(after[name], value + changes[name], atol=1e-5), name
        else:
            assert torch.equal(after[name], value), name


def test_the_names_written_by_hand_are_all_of_the_model() -> None:
    model = transformer().state_dict()
    layers = {name.removesuffix(".weight").removesuffix(".bias") for name in model}
    assert layers == ORIGINAL.keys()


@pytest.mark.parametrize("halves", HALVES)
@pytest.mark.parametrize("form", FORMS)
def test_products_of_every_form_and_layer_are_added_with_strength_and_alpha(
    form: str, halves: tuple[str, str], tmp_path: Path
) -> None:
    before = state(transformer())
    tensors: Tensors = {}
    changes: Tensors = {}
    for number, layer in enumerate(linear_layers(before)):
        down, up = low_rank(layer, before, number)
        name, alpha = FORMS[form](layer), 0.5 + number
        tensors |= {f"{name}.{halves[0]}": down, f"{name}.{halves[1]}": up}
        scale = 0.7
        if number % 2:
            tensors[f"{name}.alpha"] = torch.tensor(alpha)
            scale *= alpha / RANK
        changes[f"{layer}.weight"] = scale * up @ down
    check_changes(fused(tensors, tmp_path, 0.7), before, changes)


@pytest.mark.parametrize("form", FORMS)
def test_a_difference_to_any_parameter_of_the_model_is_added(form: str, tmp_path: Path) -> None:
    before = state(transformer())
    dice = torch.Generator().manual_seed(1)
    for name, value in before.items():
        layer, _, kind = name.rpartition(".")
        if kind in ("weight", "bias"):
            key = f"{FORMS[form](layer)}.{'diff' if kind == 'weight' else 'diff_b'}"
        else:  # of a block or the head, whose modulation it is; diffusers' names know no head
            key = FORMS[form](name)
            owner = re.sub(r"[._](scale_shift_table|modulation)$", "", key)
            has_owner = re.search(r"(blocks[._]\d|head)$", owner)
            key = f"{owner}.diff_m" if has_owner else f"{key}.diff"
        change = torch.randn(value.shape, generator=dice)
        check_changes(fused({key: change}, tmp_path, 0.5), before, {name: 0.5 * change})


def test_what_lightx2v_writes_is_added_whole(tmp_path: Path) -> None:
    """All kinds together, in one file, as the few-step LoRAs have them."""
    before = state(transformer())
    dice = torch.Generator().manual_seed(2)
    tensors: Tensors = {}
    changes: Tensors = {}
    for name, value in before.items():
        layer, _, kind = name.rpartition(".")
        if kind == "scale_shift_table" or not layer:
            theirs = ORIGINAL[name].removesuffix(".modulation")
            tensors[f"diffusion_model.{theirs}.diff_m"] = torch.randn(value.shape, generator=dice)
            changes[name] = tensors[f"diffusion_model.{theirs}.diff_m"]
        elif kind == "weight" and value.ndim == 2:
            down, up = low_rank(layer, before)
            theirs = f"diffusion_model.{ORIGINAL[layer]}"
            tensors |= {f"{theirs}.lora_down.weight": down, f"{theirs}.lora_up.weight": up}
            changes[name] = up @ down
        else:
            part = "diff" if kind == "weight" else "diff_b"
            key = f"diffusion_model.{ORIGINAL[layer]}.{part}"
            tensors[key] = changes[name] = torch.randn(value.shape, generator=dice)
    check_changes(fused(tensors, tmp_path), before, changes)
    assert changes.keys() == before.keys()


def test_a_product_and_differences_of_one_layer_add_up(tmp_path: Path) -> None:
    before = state(transformer())
    layer = "blocks.1.attn1.to_q"
    down, up = low_rank(layer, before)
    rows, columns = before[f"{layer}.weight"].shape
    more, bias, up_bias = torch.randn(rows, columns), torch.randn(rows), torch.randn(rows)
    tensors = {
        f"{layer}.lora_A.weight": down,
        f"{layer}.lora_B.weight": up,
        f"{layer}.lora_B.bias": up_bias,
        f"{layer}.alpha": torch.tensor([8.0]),
        f"{layer}.diff": more,
        f"{layer}.diff_b": bias,
    }
    changes = {
        f"{layer}.weight": 0.5 * (2 * up @ down + more),
        f"{layer}.bias": 0.5 * (2 * up_bias + bias),
    }
    check_changes(fused(tensors, tmp_path, 0.5), before, changes)


def test_a_convolution_takes_a_product_of_its_kernels(tmp_path: Path) -> None:
    before = state(transformer())
    kernel = before["patch_embedding.weight"]
    down = torch.randn(RANK, *kernel.shape[1:])
    up = torch.randn(kernel.shape[0], RANK, 1, 1, 1)
    tensors = {
        "diffusion_model.patch_embedding.lora_down.weight": down,
        "diffusion_model.patch_embedding.lora_up.weight": up,
    }
    change = (up.flatten(1) @ down.flatten(1)).reshape(kernel.shape)
    check_changes(fused(tensors, tmp_path), before, {"patch_embedding.weight": change})


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({"lora_alpha": 16}, 4.0),
        ({"lora_alpha": 16, "use_rslora": True}, 8.0),
        ({"lora_alpha": 16, "alpha_pattern": {"attn1.to_q": 2}}, 0.5),
        ({"lora_alpha": 16, "alpha_pattern": {"attn2.to_q": 2}}, 4.0),
        ({}, 1.0),
    ],
)
def test_the_scale_in_the_files_header_counts(
    config: dict[str, Any], scale: float, tmp_path: Path
) -> None:
    before = state(transformer())
    layer = "blocks.0.attn1.to_q"
    down, up = low_rank(layer, before)
    tensors = {
        f"transformer.{layer}.lora_A.weight": down,
        f"transformer.{layer}.lora_B.weight": up,
    }
    told = {f"transformer.{name}": value for name, value in {"r": RANK, **config}.items()}
    after = fused(tensors, tmp_path, header={METADATA: json.dumps(told)})
    check_changes(after, before, {f"{layer}.weight": scale * up @ down})


BASE = "blocks.0.attn2.to_k"
WIDTH = 48

EXTRA: dict[str, tuple[str, str, torch.Tensor]] = {
    # A kind of tensor: for which layer, under what name, and its numbers.
    "a norm's weight": ("blocks.0.attn1.norm_q", "diff", torch.ones(WIDTH)),
    "a norm's weight by LyCORIS": ("blocks.0.norm2", "w_norm", torch.ones(WIDTH)),
    "a norm's bias": ("blocks.0.norm2", "diff_b", torch.ones(WIDTH)),
    "a norm's bias by LyCORIS": ("blocks.0.norm2", "b_norm", torch.ones(WIDTH)),
    "a bias that a norm has not": ("blocks.0.attn1.norm_q", "diff_b", torch.ones(WIDTH)),
    "a modulation": ("blocks.0.scale_shift_table", "diff", torch.ones(1, 6, WIDTH)),
    "a modulation without its side of 1": (
        "blocks.0.scale_shift_table",
        "diff_m",
        torch.ones(6, WIDTH),
    ),
    "a modulation of another size": ("blocks.0.scale_shift_table", "diff", torch.ones(6, 2)),
    "patches": ("patch_embedding", "diff", torch.ones(WIDTH, 4, 1, 2, 2)),
    "patches of image-to-video": ("patch_embedding", "diff", torch.ones(WIDTH, 36, 1, 2, 2)),
    "a weight of another width": ("blocks.0.attn1.to_q", "diff", torch.ones(WIDTH, 5)),
    "a weight turned over": ("blocks.0.ffn.net.2", "diff", torch.ones(96, WIDTH)),
    "a bias": ("blocks.0.attn1.to_q", "diff_b", torch.ones(WIDTH)),
    "a bias of a product": (BASE, "lora_B.bias", torch.ones(WIDTH)),
    "a bias of no product": ("blocks.0.attn1.to_q", "lora_B.bias", torch.ones(WIDTH)),
    "a bias of the wrong half": (BASE, "lora_A.bias", torch.ones(RANK)),
    "a lone down": ("blocks.0.attn1.to_q", "lora_A.weight", torch.ones(RANK, WIDTH)),
    "a lone up": ("blocks.0.attn1.to_q", "lora_B.weight", torch.ones(WIDTH, RANK)),
    "an alpha": (BASE, "alpha", torch.tensor(2.5)),
    "a lone alpha": ("blocks.0.attn1.to_q", "alpha", torch.tensor(2.0)),
    "an alpha of many": (BASE, "alpha", torch.ones(3)),
    "an alpha that is no number": (BASE, "alpha", torch.tensor(float("nan"))),
    "numbers that are none": ("blocks.0.attn1.to_q", "diff_b", torch.full((WIDTH,), torch.inf)),
    "nothing": ("blocks.0.attn1.to_q", "diff_b", torch.ones(0)),
    "PEFT's DoRA": (BASE, "lora_magnitude_vector", torch.ones(WIDTH)),
    "PEFT's DoRA alone": ("blocks.0.attn1.to_q", "lora_magnitude_vector", torch.ones(WIDTH)),
    "DoRA": (BASE, "dora_scale", torch.ones(WIDTH, 1)),
    "LoCon": (BASE, "lora_mid.weight", torch.ones(RANK, RANK)),
    "LoKr": (BASE, "lokr_w1", torch.ones(4, 4)),
    "LoHa": (BASE, "hada_w1_a", torch.ones(WIDTH, RANK)),
    "OFT": (BASE, "oft_blocks", torch.ones(2, 4, 4)),
    "(IA)3": (BASE, "on_input", torch.ones(1)),
    "GLoRA": (BASE, "a1.weight", torch.ones(RANK, WIDTH)),
    "a replaced weight": (BASE, "set_weight", torch.ones(WIDTH, WIDTH)),
    "a scale of fp8": (BASE, "scale_weight", torch.ones(1)),
    "a second adapter": (BASE, "lora_A.other.weight", torch.ones(RANK, WIDTH)),
    "a whole weight": (BASE, "weight", torch.ones(WIDTH, WIDTH)),
    "no part": (BASE, "", torch.ones(1)),
}


@pytest.mark.parametrize("kind", EXTRA)
@pytest.mark.parametrize("form", ["diffusers", "ComfyUI", "musubi", "DiffSynth"])
def test_no_kind_of_tensor_changes_nothing_without_an_error(
    form: str, kind: str, tmp_path: Path
) -> None:
    layer, part, tensor = EXTRA[kind]
    down, up = low_rank(BASE, state(transformer()))
    name = FORMS[form](BASE)
    plain = {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    without = fused(plain, tmp_path)
    key = f"{FORMS[form](layer)}.{part}".rstrip(".")
    assert key not in plain
    save_file(plain | {key: tensor}, tmp_path / "lora.safetensors")
    model = transformer()
    before = state(model)
    try:
        fuse(model, tmp_path / "lora.safetensors", 1.0)
    except UnusableLora as error:
        assert "of its 3 tensors" in str(error) and key[:100] in str(error)
        assert all(torch.equal(state(model)[name], value) for name, value in before.items())
    else:
        after = state(model)
        assert any(not torch.equal(after[name], value) for name, value in without.items())


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("lora_te_encoder_block_0_layer_0_SelfAttention_q.lora_down.weight", "text encoder"),
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", "text encoder"),
        ("text_encoder.encoder.block.0.layer.0.SelfAttention.q.lora_A.weight", "text encoder"),
        ("text_encoders.umt5xxl.transformer.shared.lora_A.weight", "text encoder"),
        ("diffusion_model.blocks.0.cross_attn.k_img.lora_A.weight", "image-to-video"),
        ("lora_unet_blocks_0_cross_attn_v_img.lora_down.weight", "image-to-video"),
        ("transformer.blocks.0.attn2.add_k_proj.lora_A.weight", "image-to-video"),
        ("transformer.blocks.0.attn2.norm_added_k.diff", "image-to-video"),
        ("diffusion_model.img_emb.proj.1.lora_down.weight", "image-to-video"),
        ("diffusion_model.img_emb.proj.0.diff_b", "image-to-video"),
        ("transformer_2.blocks.0.attn1.to_q.lora_A.weight", "Wan 2.2"),
        ("diffusion_model.blocks.77.self_attn.q.lora_A.weight", "no such layer"),
        ("diffusion_model.vace_blocks.0.self_attn.q.lora_A.weight", "no such layer"),
        ("unet.down_blocks.0.attentions.0.proj_in.lora_A.weight", "no such layer"),
        ("head.norm.diff", "no such layer"),
        ("alpha", "not applied"),
        ("", "not applied"),
    ],
)
def test_what_belongs_to_no_layer_is_refused_by_name(key: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UnusableLora) as refused:
        fused({key: torch.ones(RANK, WIDTH)}, tmp_path)
    assert key in str(refused.value) and reason in str(refused.value)


def test_a_file_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableLora, match="no tensors"):
        fused({}, tmp_path)


def test_many_strangers_are_counted_and_a_few_named(tmp_path: Path) -> None:
    tensors = {f"blocks.{n}.nothing.diff": torch.ones(2) for n in range(1000)}
    with pytest.raises(UnusableLora) as refused:
        fused(tensors, tmp_path)
    said = str(refused.value)
    assert said.startswith("1000 of its 1000 tensors") and said.endswith("997 more")
    assert len(said) < 600


def test_weights_of_bfloat16_are_rounded_once(tmp_path: Path) -> None:
    layer = "blocks.1.attn1.to_q"
    model = transformer().bfloat16()
    before = state(model)
    down, up = (half.bfloat16() for half in low_rank(layer, before))
    more = torch.randn(before[f"{layer}.weight"].shape).bfloat16()
    tensors = {
        f"{layer}.lora_A.weight": down,
        f"{layer}.lora_B.weight": up,
        f"{layer}.diff": more,
    }
    save_file(tensors, tmp_path / "lora.safetensors")
    fuse(model, tmp_path / "lora.safetensors", 1.0)
    exact = before[f"{layer}.weight"].double() + up.double() @ down.double() + more.double()
    after = state(model)
    off = (after[f"{layer}.weight"].double() - exact).abs()
    assert (off <= exact.abs() * 2**-8 + 1e-6).all()  # half a unit in the last of 8 bits
    assert after[f"{layer}.weight"].dtype == torch.bfloat16
    assert all(torch.equal(after[n], v) for n, v in before.items() if n != f"{layer}.weight")


def test_doras_of_peft_are_what_the_pipeline_makes_of_them(
    small_folder: Path, tmp_path: Path
) -> None:
    trained = WanTransformer3DModel.from_pretrained(small_folder, subfolder="transformer")
    trained.add_adapter(LoraConfig(r=RANK, lora_alpha=8, target_modules=["to_q"], use_dora=True))
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in trained.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3)
    layers: dict[str, Any] = get_peft_model_state_dict(trained)
    WanPipeline.save_lora_weights(tmp_path, layers)
    file = tmp_path / "pytorch_lora_weights.safetensors"
    assert any("magnitude_vector" in key for key in load_file(file))
    pipe = WanPipeline.from_pretrained(small_folder)
    pipe.load_lora_weights(str(tmp_path), weight_name=file.name, adapter_name="lora")
    pipe.fuse_lora(lora_scale=0.6)
    pipe.unload_lora_weights()
    theirs = pipe.transformer.state_dict()
    ours = WanTransformer3DModel.from_pretrained(small_folder, subfolder="transformer")
    fuse(ours, file, 0.6)
    for name, value in ours.state_dict().items():
        assert torch.allclose(value, theirs[name], atol=1e-4), name


def with_lora(small: Checkpoint, folder: Path, tensors: Tensors) -> Checkpoint:
    assert small.folder
    shutil.copytree(small.folder, folder / "wan")
    save_file(tensors, folder / "wan" / "lora.safetensors")
    lora = Lora(repository=None, filename="lora.safetensors", strength=0.8)
    return small.model_copy(update={"folder": folder / "wan", "lora": lora})


def differences() -> Tensors:
    """Of the kinds that the libraries drop, strong enough to be seen."""
    dice = torch.Generator().manual_seed(4)
    return {
        f"diffusion_model.blocks.{block}.{key}": 0.5 * torch.randn(shape, generator=dice)
        for block in range(3)
        for key, shape in {
            "diff_m": (1, 6, WIDTH),
            "norm3.diff": (WIDTH,),
            "norm3.diff_b": (WIDTH,),
            "self_attn.norm_q.diff": (WIDTH,),
        }.items()
    }


def test_differences_draw_what_the_pipeline_draws_with_them_in_its_weights(
    small: Checkpoint, model: Model, ask: Ask, tmp_path: Path
) -> None:
    ours = load(with_lora(small, tmp_path, differences()), Acceleration(device="cpu"))
    pipe = WanPipeline.from_pretrained(str(small.folder))
    pipe.set_progress_bar_config(disable=True)
    weights = pipe.transformer.state_dict()
    for block in range(3):
        own = f"blocks.{block}"
        for key, theirs in {
            "diff_m": f"{own}.scale_shift_table",
            "norm3.diff": f"{own}.norm2.weight",
            "norm3.diff_b": f"{own}.norm2.bias",
            "self_attn.norm_q.diff": f"{own}.attn1.norm_q.weight",
        }.items():
            weights[theirs] += 0.8 * differences()[f"diffusion_model.{own}.{key}"]
    picture = solo(ours, ask())[0]
    assert psnr(picture, stock(pipe, ask())) >= 60
    assert psnr(picture, solo(model, ask())[0]) < 30


@pytest.mark.parametrize("numbers", [{"dtype": "bfloat16"}, {"quantisation": "int8"}])
def test_differences_count_in_other_numbers_too(
    small: Checkpoint, ask: Ask, tmp_path: Path, numbers: dict[str, str]
) -> None:
    checkpoint = with_lora(small, tmp_path, differences())
    exact = solo(load(checkpoint, Acceleration(device="cpu")), ask())[0]
    asked: Any = {"device": "cpu", **numbers}
    picture = solo(load(checkpoint, Acceleration(**asked)), ask())[0]
    plain = solo(load(small, Acceleration(**asked)), ask())[0]
    assert psnr(picture, exact) > 20
    assert psnr(picture, exact) > psnr(picture, plain) + 5


def test_a_checkpoint_whose_lora_cannot_be_used_says_which_tensors(
    small: Checkpoint, tmp_path: Path
) -> None:
    tensors = differences() | {"diffusion_model.blocks.0.dora_scale": torch.ones(2)}
    with pytest.raises(CheckpointCorrupt) as refused:
        load(with_lora(small, tmp_path, tensors), Acceleration(device="cpu"))
    assert "1 of its 13 tensors" in refused.value.message
    assert "diffusion_model.blocks.0.dora_scale" in refused.value.message
    assert "lora.safetensors" in refused.value.message
    assert "Use a LoRA" in refused.value.next_step
