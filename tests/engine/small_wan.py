"""A small random Wan in diffusers' folder format: UMT5 text encoder, T5 tokenizer, 3-D VAE.

Everything a real Wan 2.1 checkpoint has, at a thousandth of its size, saved and loaded by real code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLWan,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

WORDS = ["a red fox on a sky blue background", "a castle, flat design", "the moon over still water"]


def make_tokenizer() -> Any:
    """A unigram tokenizer with T5's special tokens, a few whole words, and all letters."""
    words = sorted({f"▁{word}" for text in WORDS for word in text.replace(",", "").split()})
    letters = ["▁", ",", *"abcdefghijklmnopqrstuvwxyz"]
    pieces = [(piece, -2.0) for piece in words] + [(piece, -8.0) for piece in letters]
    specials = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0)]
    tokenizer = Tokenizer(models.Unigram(specials + pieces, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def make_pipeline(seed: int = 0) -> WanPipeline:
    """A `WanPipeline` of random weights, large enough that text, guidance and steps all matter."""
    torch.manual_seed(seed)
    text_encoder = UMT5EncoderModel(
        UMT5Config(vocab_size=80, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
    )
    transformer = WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=24,
        in_channels=4,
        out_channels=4,
        text_dim=32,
        freq_dim=32,
        ffn_dim=96,
        num_layers=3,
    )
    vae = AutoencoderKLWan(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.5, 0.8, 1.1, 1.0],
    )
    with torch.no_grad():
        for parameter in transformer.blocks.parameters():
            parameter.mul_(1.5)  # small random layers hardly react to anything otherwise
    scheduler: Any = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    return WanPipeline(
        tokenizer=make_tokenizer(),
        text_encoder=text_encoder.eval(),
        vae=vae.eval(),
        transformer=transformer.eval(),
        scheduler=scheduler,
    )


def save(folder: Path, seed: int = 0) -> Path:
    """The random pipeline as a folder."""
    make_pipeline(seed).save_pretrained(folder, safe_serialization=True)
    return folder
