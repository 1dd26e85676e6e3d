"""A folder is drawn with whole, or refused with the names of what would be left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shared import checkpoints
from shared.checkpoint_folder import SCHEDULERS, TEXT_ENCODERS
from shared.checkpoints import CHECKPOINTS, ON_A_GPU, add_folder, get_checkpoint
from shared.errors import CheckpointCorrupt

INDEX = {
    "_class_name": "WanPipeline",
    "_diffusers_version": "0.35.0",
    "_name_or_path": "somewhere/else",
    "boundary_ratio": None,
    "expand_timesteps": False,
    "scheduler": ["diffusers", "UniPCMultistepScheduler"],
    "text_encoder": ["transformers", "UMT5EncoderModel"],
    "tokenizer": ["transformers", "T5TokenizerFast"],
    "transformer": ["diffusers", "WanTransformer3DModel"],
    "transformer_2": [None, None],
    "image_encoder": None,
    "vae": ["diffusers", "AutoencoderKLWan"],
}
TRANSFORMER = {
    "_class_name": "WanTransformer3DModel",
    "patch_size": [1, 2, 2],
    "in_channels": 16,
    "out_channels": 16,
    "image_dim": None,
    "added_kv_proj_dim": None,
    "qk_norm": "rms_norm_across_heads",
}


@pytest.fixture(autouse=True)
def registry_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "_registry", {row.name: row for row in CHECKPOINTS})


def write(folder: Path, index: dict[str, Any], transformer: dict[str, Any] | None = None) -> Path:
    """A checkpoint's configuration, changed."""
    contents = {
        "model_index.json": INDEX | index,
        "transformer/config.json": TRANSFORMER | (transformer or {}),
        "vae/config.json": {"scale_factor_spatial": 8},
        "scheduler/scheduler_config.json": {"_class_name": "UniPCMultistepScheduler"},
    }
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    "index",
    [
        {},
        {"workload_type": "video-generation"},
        {"_anything": {"of": "diffusers' own"}},
        {"controlnet": [None, None], "new_flag": False, "other": None},
        *({"text_encoder": ["transformers", name]} for name in TEXT_ENCODERS),
        *({"scheduler": ["diffusers", name]} for name in SCHEDULERS),
        {"tokenizer": ["transformers", "PreTrainedTokenizerFast"]},
    ],
    ids=str,
)
def test_what_is_drawn_with_or_off_is_accepted(tmp_path: Path, index: dict[str, Any]) -> None:
    assert add_folder(write(tmp_path, index)).steps == 50


@pytest.mark.parametrize(
    ("index", "named"),
    [
        ({"transformer_2": ["diffusers", "WanTransformer3DModel"]}, "transformer_2"),
        ({"boundary_ratio": 0.875}, "boundary_ratio=0.875"),
        ({"boundary_ratio": 0}, "boundary_ratio=0"),
        ({"expand_timesteps": True}, "expand_timesteps=true"),
        ({"image_encoder": ["transformers", "CLIPVisionModel"]}, "image_encoder"),
        ({"image_processor": ["transformers", "CLIPImageProcessor"]}, "image_processor"),
        ({"controlnet": ["diffusers", "WanControlnet"]}, "controlnet"),
        ({"motion_module": ["their_code", "Motion"]}, "motion_module (Motion)"),
        ({"is_distilled": True}, "is_distilled=true"),
        ({"guidance_embed": 3.5}, "guidance_embed=3.5"),
        ({"vae": ["diffusers", "AutoencoderKLHunyuanVideo"]}, "AutoencoderKLHunyuanVideo"),
        ({"transformer": ["diffusers", "WanVACETransformer3DModel"]}, "WanVACETransformer3DModel"),
        ({"transformer": ["their_code", "WanTransformer3DModel"]}, "their_code"),
        ({"transformer": "WanTransformer3DModel"}, "transformer="),
        ({"text_encoder": ["transformers", "CLIPTextModel"]}, "CLIPTextModel"),
        ({"scheduler": ["diffusers", "DDIMScheduler"]}, "DDIMScheduler"),
        ({"_class_name": "WanImageToVideoPipeline"}, "WanImageToVideoPipeline"),
        ({"_class_name": "WanVACEPipeline"}, "WanVACEPipeline"),
        ({"_class_name": "WanVideoToVideoPipeline"}, "WanVideoToVideoPipeline"),
        ({"_class_name": "WanImageToVideoDmdPipeline"}, "WanImageToVideoDmdPipeline"),
        ({"_class_name": "x" * 5000}, "xxx"),
        ({f"part{n}": True for n in range(100)}, "95 more"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_would_be_left_out_is_refused_by_name(
    tmp_path: Path, index: dict[str, Any], named: str
) -> None:
    with pytest.raises(CheckpointCorrupt) as refused:
        add_folder(write(tmp_path, index))
    assert named in refused.value.message
    assert len(str(refused.value)) < 600 and "text-to-video Wan 2.1" in refused.value.next_step


@pytest.mark.parametrize(
    ("transformer", "named"),
    [
        ({"image_dim": 1280}, "image_dim=1280"),
        ({"added_kv_proj_dim": 5120}, "added_kv_proj_dim=5120"),
        ({"pos_embed_seq_len": 514}, "pos_embed_seq_len=514"),
        ({"in_channels": 36}, "36 channels into the transformer and 16 out of it"),
        ({"qk_norm": "rms_norm"}, "qk_norm"),
        ({"quantization_config": {"quant_method": "torchao"}}, "quantization_config"),
        ({"_class_name": "WanAnimateTransformer3DModel"}, "WanAnimateTransformer3DModel"),
    ],
    ids=str,
)
def test_a_transformer_that_sees_more_than_text_is_refused(
    tmp_path: Path, transformer: dict[str, Any], named: str
) -> None:
    with pytest.raises(CheckpointCorrupt) as refused:
        add_folder(write(tmp_path, {}, transformer))
    assert named in refused.value.message


def test_a_folder_of_fastwan_is_drawn_by_its_own_recipe(tmp_path: Path) -> None:
    row, fast = (
        add_folder(write(tmp_path, {"_class_name": "WanDMDPipeline"})),
        get_checkpoint(ON_A_GPU),
    )
    assert row.folder == tmp_path.resolve()
    for name in ("steps", "guidance_scale", "scheduler", "shift", "sigmas"):
        assert getattr(row, name) == getattr(fast, name)
