"""The fast forms used in training equal diffusers' own, to rounding. Tiny random models."""

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel

from training.denoiser import PROMPT_TOKENS, denoise, mute_padding, padding_bias
from training.one_frame import OneFrameVAE, write_back


def tiny_vae(residual: bool) -> AutoencoderKLWan:
    torch.manual_seed(0)
    return AutoencoderKLWan(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1] if residual else [1, 2],
        num_res_blocks=1,
        temperal_downsample=[False],
        in_channels=12,
        out_channels=12,
        patch_size=2,
        is_residual=residual,
        scale_factor_spatial=4,
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )


def tiny_transformer() -> WanTransformer3DModel:
    torch.manual_seed(0)
    return WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=16,
        freq_dim=16,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=16,
    )


@torch.no_grad()
def test_the_one_frame_vae_equals_the_diffusers_vae_and_goes_back_into_it():
    pictures = torch.rand(2, 3, 16, 16) * 2 - 1
    for residual in (False, True):
        one_frame = OneFrameVAE(tiny_vae(residual))
        vae = tiny_vae(residual)
        latents = vae.encode(pictures.unsqueeze(2)).latent_dist.mean
        assert torch.allclose(one_frame.encode(pictures)[0], latents[:, :, 0], atol=1e-5)
        decoded = vae.decode(latents).sample[:, :, 0]
        assert torch.allclose(one_frame.decode(latents[:, :, 0]).clamp(-1, 1), decoded, atol=1e-5)
        torch.manual_seed(1)
        other = tiny_vae(residual)
        torch.nn.init.normal_(other.decoder.conv_in.weight)
        write_back(one_frame, other)
        assert torch.allclose(other.decode(latents).sample[:, :, 0], decoded, atol=1e-5)


@torch.no_grad()
def test_short_padding_with_a_raised_logit_equals_512_zero_tokens():
    model = tiny_transformer()
    lengths, width = torch.tensor([2, 5, 7]), 8
    text = torch.randn(3, width, 16)
    for row, length in enumerate(lengths.tolist()):
        text[row, length:] = 0
    latents, sigmas = torch.randn(3, 4, 4, 4), torch.tensor([1.0, 0.5, 0.1])
    full = torch.nn.functional.pad(text, (0, 0, 0, PROMPT_TOKENS - width))
    stock = model(latents.unsqueeze(2), 1000 * sigmas, full, return_dict=False)[0][:, :, 0]
    ours = denoise(model, latents, sigmas, text, padding_bias(lengths, width))
    assert torch.allclose(ours, stock, atol=1e-5)
    unbiased = denoise(model, latents, sigmas, text, torch.zeros(3, 1, 1, width))
    assert not torch.allclose(unbiased, stock, atol=1e-3)


@torch.no_grad()
def test_an_untrained_transformer_hardly_hears_its_padding():
    model = tiny_transformer()
    mute_padding(model)
    attention = model.blocks[0].attn2
    text = torch.nn.functional.pad(torch.randn(1, 10, 16), (0, 0, 0, PROMPT_TOKENS - 10))
    context = model.condition_embedder.text_embedder(text)
    q = attention.norm_q(attention.to_q(torch.randn(1, 6, 24))).unflatten(2, (2, 12))
    k = attention.norm_k(attention.to_k(context)).unflatten(2, (2, 12))
    logits = torch.einsum("bqhd,bkhd->bhqk", q, k) / 12**0.5
    real = logits[..., :10].mean()
    assert logits[..., 10:].mean() < real - 1.5
