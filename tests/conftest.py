"""Shared fixtures: a tiny random encoder in a folder, the same one loaded, and pages in a real headless Chromium.

Browser tests are skipped where no Chromium is found (on PATH, or playwright's own). Tabs that are not open are not
mounted, so every check goes through playwright's retrying `expect`.

python -m pytest tests
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub: no test may reach the network
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import shutil
import socket
import tempfile
from pathlib import Path

import pytest

DATA = Path(__file__).parent / "data"
_CACHE = tempfile.TemporaryDirectory()  # what class lists leave on the disk is not the user's
os.environ["TIPSV2_CACHE"] = _CACHE.name
PATIENCE = 180_000  # ms; a busy machine takes its time, an idle one needs two seconds
ARGUMENTS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()

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
    from tipsv2.network.encoder import load

    return load(tiny_folder, device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def serving():
    """`yield from serving(tabs, model)` in a fixture `url`: serve a page, give its address, close it. A third argument
    is the page's Settings.
    """
    return _serve


def _serve(tabs, model, *settings):
    from demos.launch import launch
    from demos.ui.page import build

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    page = build(tabs, str(model), "cpu", *settings)
    _, address, _ = launch(page, server_name="127.0.0.1", server_port=port, prevent_thread_lock=True, quiet=True)
    yield address
    page.close(verbose=False)


def pytest_collection_modifyitems(items):
    """What drives a browser is marked so, and slow."""
    for item in items:
        if "browser" in item.fixturenames:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next((path for path in map(shutil.which, names) if path), None)
    with playwright.sync_playwright() as started:
        try:
            chromium = started.chromium.launch(executable_path=found, args=ARGUMENTS)
        except playwright.Error as error:
            pytest.skip(f"no Chromium to test the page with: {str(error).splitlines()[0]}")
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser, url):
    """Opens the module's `url` and what a link adds to it, at a width, once a model answers; fails on script errors and
    requests to other hosts.
    """
    from playwright.sync_api import expect

    troubles, contexts = [], []
    expect.set_options(timeout=PATIENCE)

    def opened(width=1440, link=""):
        context = browser.new_context(viewport={"width": width, "height": 900})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: troubles.append(f"script error: {error}"))
        page.on("request", lambda asked: local(asked.url) or troubles.append(f"asked for {asked.url}"))
        page.goto(url + link)
        expect(page.locator(".tips-status[data-state=ready]")).to_be_visible()
        return page

    def local(address):
        return address.startswith((url, "data:", "blob:"))

    yield opened
    for context in contexts:
        context.close()
    assert not troubles
