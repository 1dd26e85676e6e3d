"""Each path that saves work equals the plain path it replaces, to 1e-4 in float32."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKLWan, WanPipeline
from diffusers.pipelines.wan.pipeline_wan import prompt_clean

from shared.contract import parse_request
from shared.engine import text
from shared.engine.core import Core, Generation
from shared.engine.denoising import velocity
from shared.engine.frames import FrameDecoder, fit_preview, latent_statistics, to_image
from shared.engine.loading import Model
from tests.engine.conftest import pixels

CLOSE = 1e-4

PROMPTS = ["", "a fox", "the moon over still water " * 4, "a castle, flat design " * 120]


@pytest.mark.parametrize("prompt", PROMPTS, ids=["empty", "short", "long", "cut at 512"])
def test_encoding_at_the_true_length_equals_encoding_padded(
    model: Model, pipeline: WanPipeline, prompt: str
) -> None:
    padded, _ = pipeline.encode_prompt(
        prompt, do_classifier_free_guidance=False, max_sequence_length=512
    )
    with torch.inference_mode():
        ours = model.prompts.embed(prompt_clean(prompt))
    assert len(ours) <= text.MAX_TOKENS
    assert (padded[0, : len(ours)] - ours).abs().max() <= CLOSE
    assert padded[0, len(ours) :].abs().sum() == 0


@pytest.mark.parametrize("prompt", PROMPTS, ids=["empty", "short", "long", "cut at 512"])
def test_folded_padding_and_kept_keys_equal_the_plain_forward(
    model: Model, pipeline: WanPipeline, prompt: str
) -> None:
    padded, _ = pipeline.encode_prompt(
        prompt, do_classifier_free_guidance=False, max_sequence_length=512
    )
    latents = torch.randn(1, 4, 1, 6, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        plain = pipeline.transformer(latents, torch.tensor([625.0]), padded, return_dict=False)[0]
        keys = text.stack([model.prompts.encode(prompt)])
        ours = velocity(model.transformer, latents, torch.tensor([625.0]), keys)
    assert plain.std() > 0.1
    assert (plain - ours).abs().max() <= CLOSE


def test_rows_with_prompts_of_other_lengths_change_nothing(model: Model) -> None:
    latents = torch.randn(3, 4, 1, 6, 8, generator=torch.Generator().manual_seed(0))
    times = torch.tensor([1000.0, 625.0, 31.0])
    rows = [model.prompts.encode(prompt) for prompt in PROMPTS[1:]]
    with torch.inference_mode():
        together = velocity(model.transformer, latents, times, text.stack(rows))
        for index, row in enumerate(rows):
            alone = velocity(model.transformer, latents[[index]], times[[index]], text.stack([row]))
            assert (together[[index]] - alone).abs().max() <= CLOSE


def test_the_one_frame_decoder_equals_the_video_decoder(
    model: Model, pipeline: WanPipeline
) -> None:
    latents = torch.randn(2, 4, 1, 6, 8, generator=torch.Generator().manual_seed(1))
    mean, std = latent_statistics(pipeline.vae)
    with torch.inference_mode():
        plain = pipeline.vae.decode(latents * std + mean, return_dict=False)[0][:, :, 0]  # type: ignore[union-attr]
        ours = model.frames(latents)
    assert plain.std() > 0.05
    assert (plain - ours).abs().max() <= CLOSE


def test_the_one_frame_form_of_a_residual_vae_that_folds_pixels_equals_it_too() -> None:
    torch.manual_seed(0)
    vae = AutoencoderKLWan(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=8,
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    ).eval()
    latents = torch.randn(2, 4, 1, 6, 8)
    with torch.inference_mode():
        plain = vae.decode(latents, return_dict=False)[0][:, :, 0]  # type: ignore[union-attr]
        ours = FrameDecoder(vae)(latents)
    assert plain.shape == (2, 3, 48, 64)
    assert (plain - ours).abs().max() <= CLOSE


def test_the_embedded_checkpoints_one_frame_decoder_equals_its_video_decoder(
    tiny_model: Model, tiny_pipeline: WanPipeline
) -> None:
    channels = tiny_model.latent_channels
    latents = torch.randn(1, channels, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    mean, std = latent_statistics(tiny_pipeline.vae)
    with torch.inference_mode():
        plain = tiny_pipeline.vae.decode(latents * std + mean, return_dict=False)[0][:, :, 0]  # type: ignore[union-attr]
        ours = tiny_model.frames(latents)
    assert (plain - ours).abs().max() <= CLOSE


def test_a_prompt_is_encoded_once(model: Model) -> None:
    encoder = text.PromptEncoder(
        model.prompts.tokenizer, model.prompts.text_encoder, model.transformer
    )
    first = encoder.embed("a fox")
    assert encoder.embed("  a   fox ") is first
    for number in range(text.CACHED_PROMPTS):
        encoder.embed(f"prompt {number}")
    assert encoder.embed("a fox") is not first


def test_previews_resemble_the_picture(tiny_model: Model, tiny_pipeline: WanPipeline) -> None:
    request = parse_request({"prompt": "a red fox, 3d render, on a white background", "seed": 1})
    core = Core(tiny_model)
    core.start(Generation(request))
    [image] = core.images
    while not image.done:
        core.step()
    picture = to_image(tiny_model.frames(image.latents)[0])
    for preview in (tiny_model.preview, fit_preview(tiny_pipeline.vae)):
        small = preview(image.latents)
        assert small.size == (8 * preview.block, 8 * preview.block)
        target = pixels(picture.resize(small.size))
        flat = abs(target - target.mean(axis=(0, 1))).mean()
        assert abs(pixels(small) - target).mean() < flat / 2
