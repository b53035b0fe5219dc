"""Shared fixtures: a tiny random encoder in a folder, as `save_pretrained` writes it, and the same one loaded.

python -m pytest tests
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub: no test may reach the network

from pathlib import Path

import pytest

DATA = Path(__file__).parent / "data"

WORDS = ("a", "the", "dog", "cat", "grass", "sky", "photo", "of", "red", "car", "on", "snow", "and", "tree", "hund")


def make_tokenizer():
    """A Tipsv2Tokenizer with all bytes, the letters and a few merged words: every text has tokens."""
    from transformers import Tipsv2Tokenizer

    vocab = {"<pad>": 0, "<unk>": 1}
    for piece in [f"<0x{byte:02X}>" for byte in range(256)] + ["▁", *"abcdefghijklmnopqrstuvwxyz.,!?0123456789'-"]:
        vocab.setdefault(piece, len(vocab))
    merges = []
    for word in WORDS:
        piece = "▁"
        for letter in word:
            if piece + letter not in vocab:
                vocab[piece + letter] = len(vocab)
                merges.append((piece, letter))
            piece += letter
    return Tipsv2Tokenizer(vocab=vocab, merges=merges)


def make_model(vocab_size: int, seed: int = 0, **vision):
    """A random Tipsv2Model: width 48, depth 3, 4 heads, patch 14, 56 pixels; weights large enough to tell tokens
    apart.
    """
    import torch
    from transformers import Tipsv2Config, Tipsv2Model

    config = Tipsv2Config(
        text_config=dict(
            vocab_size=vocab_size, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4
        ),
        vision_config=dict(
            hidden_size=48, num_hidden_layers=3, num_attention_heads=4, patch_size=14, image_size=56, **vision
        ),
        temperature_init_value=0.02,
    )
    torch.manual_seed(seed)
    model = Tipsv2Model(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """A tiny random Tipsv2 transformers folder with a tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = make_tokenizer()
    make_model(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_encoder(tiny_folder):
    """The encoder in `tiny_folder`, float32 on the CPU."""
    from tipsv2.encoder import load

    return load(tiny_folder, device="cpu", dtype="float32")
