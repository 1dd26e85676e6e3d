"""Prompts become the keys and values that the transformer's cross-attention looks at.

Wan pads every prompt with zeros to 512 embeddings and attends to the padding without a mask. Two
exact savings follow. The text encoder runs at the prompt's true length, because the padding is
zeros whatever it computes. And all padding embeddings have the same key and value, so that n of
them weigh as much as one whose logit has log(n) added: exp(a + log n) = n exp(a). Keys and values
depend on the prompt alone, so they are computed once and not at every step.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.pipelines.wan.pipeline_wan import prompt_clean

from shared.contract import clean_text

MAX_TOKENS = 512
"""Wan's text length; the transformer was trained with every prompt padded to it."""

CACHED_PROMPTS = 64

_SPACE = " \u2581"
"""How tokenizers write the space before a word, which is sometimes a token of its own."""

_SHOWN = 5
_SHOWN_LENGTH = 20
"""How many unknown words a remark shows, and how much of each."""


@dataclass(frozen=True)
class TextKeys:
    """Cross-attention inputs of one prompt, the padding folded into the first position.

    `keys` and `values`: (layers, 1 + tokens, dim); `bias`: (1 + tokens), added to the logits.
    """

    keys: torch.Tensor
    values: torch.Tensor
    bias: torch.Tensor


class PromptEncoder:
    """Tokenizer, text encoder and the transformer's text projections.

    The last embeddings are kept. Keys and values are not: those of one long prompt fill 400 MB of a
    14B transformer's memory, and belong to the request that they serve.
    """

    def __init__(
        self, tokenizer: Any, text_encoder: torch.nn.Module, transformer: WanTransformer3DModel
    ) -> None:
        self.tokenizer = tokenizer
        self.text_encoder = text_encoder
        self.transformer = transformer
        self._cache: OrderedDict[str, torch.Tensor] = OrderedDict()

    @torch.inference_mode()
    def encode(self, prompt: str) -> TextKeys:
        """The text keys of a prompt."""
        return project(self.transformer, self.embed(prompt))

    @torch.inference_mode()
    def embed(self, prompt: str) -> torch.Tensor:
        """The text encoder's last hidden states at the true length: (tokens, text_dim).

        From the cache of the last `CACHED_PROMPTS` if they are there.
        """
        text = prompt_clean(prompt)
        if text in self._cache:
            self._cache.move_to_end(text)
            return self._cache[text]
        tokens = self.tokenizer(text, max_length=MAX_TOKENS, truncation=True, return_tensors="pt")
        device = next(self.text_encoder.parameters()).device
        states = self.text_encoder(tokens.input_ids.to(device), tokens.attention_mask.to(device))
        self._cache[text] = states.last_hidden_state[0]
        if len(self._cache) > CACHED_PROMPTS:
            self._cache.popitem(last=False)
        return self._cache[text]

    def remarks(self, prompt: str, what: str) -> Iterator[str]:
        """What of a prompt, called `what`, the checkpoint does not read, in sentences."""
        text = prompt_clean(prompt)
        # No warning of the tokenizer's own, which knows nothing of who is asked.
        tokens = self.tokenizer(text, return_special_tokens_mask=True, verbose=False)
        count = len(tokens.input_ids)
        if count > MAX_TOKENS:
            yield f"Only the first {MAX_TOKENS} of {count} tokens of the {what} are used."
        numbers = range(min(count, MAX_TOKENS))
        pieces = self.tokenizer.convert_ids_to_tokens(tokens.input_ids)
        words = [
            number
            for number in numbers
            if not tokens.special_tokens_mask[number] and pieces[number].strip(_SPACE)
        ]
        unknown = [
            number for number in words if tokens.input_ids[number] == self.tokenizer.unk_token_id
        ]
        if len(unknown) == len(words) and text:
            yield f"Nothing of the {what} can be read: this checkpoint knows none of its signs."
        elif unknown:
            shown = _excerpt(text, [tokens.token_to_chars(number) for number in unknown])
            yield (
                f"{len(unknown)} of {len(words)} tokens of the {what} are unknown to this "
                f"checkpoint{shown}."
            )


def _excerpt(text: str, spans: list[Any]) -> str:
    """The words at those places, each once, the first few."""
    words = dict.fromkeys(clean_text(text[span.start : span.end]) for span in spans if span)
    shown = [word[:_SHOWN_LENGTH] for word in words if word]
    more = ", ..." if len(shown) > _SHOWN else ""
    return f": {', '.join(shown[:_SHOWN])}{more}" if shown else ""


def project(transformer: WanTransformer3DModel, embeddings: torch.Tensor) -> TextKeys:
    """Keys and values of every layer for one prompt's embeddings: (tokens <= 512, text_dim)."""
    tokens = len(embeddings)
    padded = F.pad(embeddings.to(transformer.dtype), (0, 0, 1, 0))[None]
    text = transformer.condition_embedder.text_embedder(padded)
    attentions: list[Any] = [block.attn2 for block in transformer.blocks]
    bias = torch.zeros(1 + tokens, device=text.device, dtype=text.dtype)
    bias[0] = math.log(MAX_TOKENS - tokens) if tokens < MAX_TOKENS else -math.inf
    return TextKeys(
        keys=torch.cat([attention.norm_k(attention.to_k(text)) for attention in attentions]),
        values=torch.cat([attention.to_v(text) for attention in attentions]),
        bias=bias,
    )


def stack(rows: list[TextKeys]) -> TextKeys:
    """Prompts of different lengths as one batch: the short ones get positions that weigh nothing.

    `keys` and `values` become (layers, rows, longest, dim) and `bias` (rows, 1, 1, longest).
    """
    longest = max(len(row.bias) for row in rows)

    def pad(tensor: torch.Tensor, missing: int) -> torch.Tensor:
        return F.pad(tensor, (0, 0, 0, missing)) if missing else tensor

    missing = [longest - len(row.bias) for row in rows]
    return TextKeys(
        keys=torch.stack(
            [pad(row.keys, gap) for row, gap in zip(rows, missing, strict=True)], dim=1
        ),
        values=torch.stack(
            [pad(row.values, gap) for row, gap in zip(rows, missing, strict=True)], dim=1
        ),
        bias=torch.stack(
            [
                F.pad(row.bias, (0, gap), value=-math.inf)
                for row, gap in zip(rows, missing, strict=True)
            ]
        )[:, None, None],
    )


class TextAttention:
    """A processor for Wan's cross-attention that is handed keys, values and bias, not text.

    It always uses torch's own attention: the faster kernels that a checkpoint may be set to take no
    bias.
    """

    def __call__(
        self,
        attention: Any,
        hidden_states: torch.Tensor,
        text: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        *_: None,
    ) -> torch.Tensor:
        query = attention.norm_q(attention.to_q(hidden_states))
        query, keys, values = (
            tensor.unflatten(-1, (attention.heads, -1)).transpose(1, 2)
            for tensor in (query, text[0], text[1])
        )
        mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=text[2])
        return attention.to_out[0](mixed.transpose(1, 2).flatten(2))
