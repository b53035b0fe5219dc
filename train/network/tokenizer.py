"""A tokenizer trained on captions, of the released kind: byte-fallback BPE, lower case, no BOS or EOS."""

from __future__ import annotations

import json
from collections.abc import Iterable

from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import Tipsv2Tokenizer


def train_tokenizer(captions: Iterable[str], vocabulary: int, max_length: int = 64) -> Tipsv2Tokenizer:
    """BPE over `captions`; `vocabulary` counts <pad>, <unk> and the 256 bytes, so nothing is ever unknown.

    Raises ValueError if vocabulary leaves no room for merges.
    """
    fixed = ["<pad>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    if vocabulary <= len(fixed) + 64:
        raise ValueError(f"tower.vocabulary={vocabulary} is too small; use at least {len(fixed) + 128}.")
    trained = Tokenizer(BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    trained.normalizer = normalizers.Lowercase()
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always"),
            pre_tokenizers.Punctuation(),  # only here: no merge ever joins "dog" and ",", so "dog," is two tokens
        ]
    )
    trained.train_from_iterator(
        captions, BpeTrainer(vocab_size=vocabulary, special_tokens=fixed, show_progress=False, min_frequency=2)
    )
    model = json.loads(trained.to_str())["model"]
    return Tipsv2Tokenizer(
        vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]], model_max_length=max_length
    )
