"""What leaves training: the folder, its LoRA, the checked text encoder. Tiny random models."""

from pathlib import Path

import pytest
import torch
from diffusers import WanPipeline
from transformers import BertConfig, BertModel, BertTokenizerFast

from tests.training.test_exactness import tiny_transformer, tiny_vae
from training.evaluate import Judge, ask, measure
from training.export import write_folder
from training.sample import decode, latents_for
from training.text import WrongWeightsError, check_sha256


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "fox"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    tokenizer = BertTokenizerFast(str(tmp_path / "vocab.txt"))
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    out = tmp_path / "checkpoint"
    write_folder(out, tiny_vae(True), tiny_transformer(), tokenizer, BertModel(config).half())
    return out


def test_the_exported_folder_loads_in_the_stock_pipeline_and_gives_the_same_picture(folder: Path):
    pipe = WanPipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    stock = pipe(
        "a red fox",
        height=16,
        width=16,
        num_frames=1,
        num_inference_steps=3,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(7),
        output_type="pt",
    ).frames[0, 0]
    ours = decode(pipe, latents_for(pipe, ["a red fox"], [7], 3, 3.0, size=(16, 16)))[0]
    assert torch.allclose(ours, stock, atol=1e-4)


def test_a_changed_text_encoder_is_refused(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"not the published weights")
    with pytest.raises(WrongWeightsError, match="expected 53aa51172d14"):
        check_sha256(path)


def test_the_judge_recognises_every_original_and_no_other():
    torch.manual_seed(0)
    icons = torch.randint(0, 256, (3, 4, 4, 64, 64), dtype=torch.uint8)
    icons[:, :, 3, :9], icons[:, :, 3, -9:] = 0, 0
    icons[:, :, 3, :, :9], icons[:, :, 3, :, -9:] = 0, 0
    judge = Judge(icons)
    asks = [ask("fox", row, style, colour=row + 1) for row in range(3) for style in range(4)]
    originals = torch.stack(
        [judge.over(a.colour)[a.subject, a.style].view(3, 64, 64) for a in asks]
    )
    assert set(measure(judge, originals, asks).values()) == {100.0}
    assert measure(judge, originals.roll(4, 0), asks)["subject"] == 0
