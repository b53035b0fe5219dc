"""tipsv2.benchmark.inference and straightforward: both paths say the same, and what is printed is what was measured."""

import json
import time

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tipsv2.__main__ import main
from tipsv2.benchmark import inference as benchmark
from tipsv2.benchmark import measuring
from tipsv2.benchmark.straightforward import Straightforward
from tipsv2.checkpoints.weights import read_model
from tipsv2.network.encoder import load


@pytest.fixture
def both(tiny_folder):
    ours = load(tiny_folder, device="cpu", dtype="float32")
    return ours, Straightforward(read_model(tiny_folder, torch.float32).eval(), ours.tokenizer, 56, 42)


def test_the_paths_agree(both):
    ours, plain = both
    pixels, prompts = torch.rand(2, 3, 56, 84), ["a dog", "a cat on grass", "dog"]
    tokens, seen = plain.encode(pixels), ours.encode_pixels(pixels)
    torch.testing.assert_close(tokens[:, 0], seen["cls"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(tokens[:, 2:], seen["patches"].flatten(1, 2), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(plain.values(pixels), seen["values"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(plain.text(prompts), ours.encode_text(prompts), atol=1e-4, rtol=1e-4)


def test_label_maps_agree(both):
    image = Image.effect_noise((200, 70), 80).convert("RGB")
    text = F.normalize(both[0].encode_image(image).values[0], dim=-1)  # each wins where it is from; drawn ones may not
    expected = both[1].segment(image, text)
    found = benchmark.segment(both[0], image, text)
    assert found.shape == (70, 200) and (found == expected).float().mean() > 0.995 and len(found.unique()) > 1


def test_operations_are_those_of_the_linear_layers_and_attention(both):
    tokens, width, layers = 18, 48, 3
    linear = 2 * tokens * width * width * 12 * layers
    attention = 4 * tokens * tokens * width * layers
    patches = 2 * 16 * width * 3 * 14 * 14
    assert both[1].operations(torch.rand(1, 3, 56, 56)) == linear + attention + patches


def test_medians_of_turns(monkeypatch):
    took = iter([9.0, 9.0, 1.0, 4.0, 2.0, 8.0, 100.0, 6.0])  # the first of each warms up
    monkeypatch.setattr(measuring, "timed", lambda call: next(took))
    assert measuring.in_turns(None, None, 3) == {"ours": 2.0, "straightforward": 6.0, "ratio": 3.0}


@pytest.mark.slow
def test_the_command(tiny_folder, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "SIZES", (56,))
    monkeypatch.setattr(benchmark, "PHOTO", (80, 60))
    monkeypatch.setattr(benchmark, "MEMORY", (("ours", 112),))
    monkeypatch.setattr(benchmark, "peak", benchmark._peak)  # a process of its own takes seconds to start
    assert main(["benchmark", "--models", str(tiny_folder), "--turns", "1", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out).values()
    row = found["encode"]["56"]
    assert row["ratio"] == pytest.approx(row["straightforward"] / row["ours"])
    assert found["agreement"]["least cosine of a patch"] > 0.999
    assert set(found["peak_memory_mb"]) == {"ours 112"}


def test_from_the_disk_no_prompt_is_read(both, monkeypatch):
    ours, plain = both
    read, embed = [], ours.embed_prompts

    def timed(call):
        before = len(read)
        call()
        assert len(read) == before
        return 0.5

    monkeypatch.setattr(ours, "embed_prompts", lambda prompts: read.append(prompts) or embed(prompts))
    monkeypatch.setattr(benchmark, "timed", timed)
    found = benchmark.reading(ours, plain, 1)
    assert [len(prompts) for prompts in read] == [150 * 9] * 3  # a turn after one to warm up, and what fills the disk
    row = found["text, from the disk"]
    assert row["ours"] == 0.5 and row["ratio"] == row["straightforward"] / 0.5


def test_resident_sees_what_a_call_holds_and_lets_go():
    def hold() -> None:
        ones = torch.ones(25_000_000)
        time.sleep(1)  # long enough to be looked at on a machine that is busy
        assert ones[-1] == 1

    assert 90e6 < measuring.resident(hold) < 200e6


def test_no_turns_is_one_sentence(capsys):
    assert main(["benchmark", "--turns", "0"]) == 2
    assert "at least one model and one turn" in capsys.readouterr().err
