"""python -m train assemble: what goes in comes out, tower by tower; mistakes are sentences."""

import json

import pytest
import torch
from transformers import BertConfig, BertModel, Dinov2Config, Dinov2Model, Tipsv2Model
from unimodal import TINY, randomise, word_tokenizer

import tipsv2
from train.__main__ import main
from train.text import tower

WIDTH = 64


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A DINOv2 and a sentence encoder, tiny, and a text tower as `train text` leaves it."""
    root = tmp_path_factory.mktemp("towers")
    torch.manual_seed(0)
    sight = Dinov2Config(hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14)
    randomise(Dinov2Model(sight)).save_pretrained(root / "dinov2")
    tokenizer = word_tokenizer()
    words = BertModel(BertConfig(vocab_size=len(tokenizer), **TINY), add_pooling_layer=False)
    words.save_pretrained(root / "bert")
    tokenizer.save_pretrained(root / "bert")
    taught = randomise(tower.new_tower(torch.randn(len(tokenizer), 24), WIDTH, 2, tokenizer.pad_token_id))
    tower.write_tower(taught, tokenizer, root / "words" / tower.FOLDER)
    return root


def test_a_start_gives_the_foundations_patches(places, tmp_path):
    out = tmp_path / "start"
    given = ["assemble", "--vision", str(places / "dinov2"), "--text", str(places / "bert"), "--out", str(out)]
    assert main([*given, "--second-cls", "shared"]) == 0
    encoder, source = tipsv2.load(out, "cpu", "float32"), Dinov2Model.from_pretrained(places / "dinov2").eval()
    assert encoder.info.resolution == 56
    pixels = torch.rand(1, 3, 56, 56)
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with torch.no_grad():
        expected = source((pixels - mean) / deviation).last_hidden_state[:, 1:]
    assert (encoder.encode_pixels(pixels)["patches"].flatten(1, 2) - expected).abs().max() < 1e-4
    assert encoder.encode_text(["a dog on the grass"]).shape == (1, WIDTH)


def test_the_end_has_both_towers_in_half_the_bytes(places, tmp_path):
    start, out = tmp_path / "start", tmp_path / "end"
    words, dinov2 = str(places / "words"), str(places / "dinov2")
    assert main(["assemble", "--vision", dinov2, "--text", words, "--out", str(start)]) == 0
    more = ["--size", "42", "--dtype", "float16", "--temperature", "0.04"]
    assert main(["assemble", "--vision", str(start), "--text", words, "--out", str(out), *more]) == 0
    whole, half = (Tipsv2Model.from_pretrained(folder, dtype="float32") for folder in (start, out))
    for (name, a), b in zip(whole.named_parameters(), half.parameters(), strict=True):
        if name != "temperature":
            assert torch.equal(a.half().float(), b), name
    assert float(half.temperature) == pytest.approx(0.04, rel=1e-3)
    config = (out / "config.json").read_text()
    assert json.loads(config)["dtype"] == "float16" and str(places) not in config
    taught, _ = tower.open_tower(places / "words")
    assert torch.equal(taught.state_dict()["final_layer_norm.weight"], whole.text_model.final_layer_norm.weight)
    assert tipsv2.load(out, "cpu").info.resolution == 42
    assert half.config.vision_config.num_register_tokens == 1  # the second CLS, from the first


@pytest.mark.parametrize(
    "changes, sentence",
    [
        (["--size", "50"], "--size 50: it must be a multiple of the patch size"),
        (["--temperature", "0"], "--temperature 0.0: it must be above 0"),
        (["--vision", "no/such/encoder"], "no/such/encoder"),
        (["--text", "no/such/text"], "--text='no/such/text'"),
    ],
)
def test_mistakes_are_sentences(places, tmp_path, capsys, changes, sentence):
    given = {"--vision": str(places / "dinov2"), "--text": str(places / "words"), "--out": str(tmp_path / "out")}
    given |= dict([changes])
    assert main(["assemble", *(word for pair in given.items() for word in pair)]) == 2
    assert sentence in capsys.readouterr().err and not (tmp_path / "out").exists()
