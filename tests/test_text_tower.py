"""A text tower distilled from a sentence encoder: its targets, its training, and what is written."""

import json
import os
import shutil
import signal
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import make_model, make_tokenizer
from PIL import Image
from safetensors.torch import load_file, save_file
from test_text_phrases import NAMES, word_pieces
from transformers import AutoTokenizer, BertConfig, BertModel, Tipsv2Config, Tipsv2Model, Tipsv2TextModel
from unimodal import randomise

import tipsv2
from train.__main__ import main
from train.data import sentence_vectors
from train.network.teachers import TextTeacher
from train.objectives import losses
from train.parallel.signals import Stopped
from train.text import distill

TEXTS = ["a photo of a dog", "cat", "the red car and the truck on the grass", "a kitten"]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A teacher 64 wide, names, an encoder to see with, words to leave out; by flag."""
    top = tmp_path_factory.mktemp("text")
    tokenizer = word_pieces()
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes)
    randomise(BertModel(config)).save_pretrained(top / "teacher")
    tokenizer.save_pretrained(top / "teacher")
    (top / "names.txt").write_text("\n".join(NAMES))
    (top / "exact.txt").write_text("kite\nzebra\n")
    (top / "without.txt").write_text("puppy\ndog\n")
    return top


def settings(places, **more):
    given = {"teacher": str(places / "teacher"), "wordnet": (str(places / "names.txt"),), "layers": 1}
    given |= {"emphasis": str(places / "exact.txt"), "exclude": str(places / "without.txt"), "vocabulary": 120}
    return distill.Settings(**given | {"steps": 60, "batch_size": 32, "phrases": 200} | more)


def read_alone(places, text):
    """A sentence vector from the definition: every token's feature, without padding, added up one by one."""
    model, tokenizer = BertModel.from_pretrained(places / "teacher"), AutoTokenizer.from_pretrained(places / "teacher")
    with torch.no_grad():
        features = model.eval()(torch.tensor([tokenizer(text, padding=False)["input_ids"]])).last_hidden_state[0]
    mean = sum(features[k] for k in range(len(features))) / len(features)
    return mean / mean.square().sum().sqrt()


def test_a_sentence_is_the_mean_of_its_tokens_whatever_stands_beside_it(places, tmp_path):
    teacher = TextTeacher(str(places / "teacher"), "--teacher")
    vectors = sentence_vectors.teach(teacher, TEXTS, tmp_path, show=False)
    assert vectors.dtype == np.float16 and vectors.shape == (4, 64)
    for text, row in zip(TEXTS, vectors, strict=True):
        np.testing.assert_allclose(row, read_alone(places, text), atol=1e-3)


def test_what_was_read_is_not_read_again(places, tmp_path, monkeypatch):
    teacher = TextTeacher(str(places / "teacher"), "--teacher")
    whole = np.array(sentence_vectors.teach(teacher, TEXTS, tmp_path / "a", show=False))
    asked = []
    real = sentence_vectors.sentence_vectors
    monkeypatch.setattr(sentence_vectors, "sentence_vectors", lambda t, ids: asked.extend(ids) or real(t, ids))
    assert (sentence_vectors.teach(teacher, TEXTS, tmp_path / "a", show=False) == whole).all() and not asked
    stopped = np.load(tmp_path / "a" / "vectors.npy", mmap_mode="r+")
    stopped[2] = np.nan  # as a reading that was stopped leaves it
    stopped.flush()
    again = sentence_vectors.teach(teacher, TEXTS, tmp_path / "a", show=False)
    assert np.allclose(again, whole, atol=2e-3) and len(asked) == 1  # read alone, it may differ in float16's last digit
    more = ["truck", *TEXTS]
    grown = sentence_vectors.teach(teacher, more, tmp_path / "b", tmp_path / "a", show=False)
    assert len(asked) == 2 and np.allclose(grown[1:], whole, atol=2e-3) and not np.isnan(grown).any()
    other = TextTeacher(str(places / "teacher"), "--teacher")
    with torch.no_grad():
        other.model.embeddings.word_embeddings.weight.add_(1)
    sentence_vectors.teach(other, TEXTS, tmp_path / "c", tmp_path / "a", show=False)
    assert len(asked) == 6  # another teacher's vectors are no use


def test_a_bridge_is_two_layers_with_gelu_between(tmp_path, monkeypatch):
    generator = torch.Generator().manual_seed(1)
    shapes = {"0.weight": (5, 3), "0.bias": (5,), "2.weight": (2, 5), "2.bias": (2,)}
    state = {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    save_file(state, tmp_path / "bridge.safetensors")
    v = torch.randn(4, 3, generator=generator)
    hidden = v @ state["0.weight"].T + state["0.bias"]
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    expected = hidden @ state["2.weight"].T + state["2.bias"]
    found = sentence_vectors.open_bridge(tmp_path / "bridge.safetensors", 3)(v)
    torch.testing.assert_close(found, expected / expected.norm(dim=1, keepdim=True))
    for wrong in ({}, {k: v for k, v in state.items() if k != "2.bias"}, state | {"4.bias": torch.ones(2)}):
        save_file(wrong, tmp_path / "wrong.safetensors")
        with pytest.raises(ValueError, match="--bridge .* cannot be used"):
            sentence_vectors.open_bridge(tmp_path / "wrong.safetensors", 3)
    (tmp_path / "empty.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="--bridge .*empty.safetensors cannot be used"):
        sentence_vectors.open_bridge(tmp_path / "empty.safetensors", 3)
    monkeypatch.setattr(sentence_vectors, "load_file", Mock(side_effect=OSError()))  # an error without a word
    with pytest.raises(ValueError, match=r"cannot be used \(OSError\)"):
        sentence_vectors.open_bridge(tmp_path / "bridge.safetensors", 3)
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"0.weight \[H, 4\]"):
        sentence_vectors.open_bridge(tmp_path / "bridge.safetensors", 4)


@pytest.fixture(scope="module")
def trained(places):
    """A finished run and its scores."""
    return places / "run", distill.run(settings(places), places / "run", show=False)


def test_a_tower_learns_what_the_teacher_says_of_phrases_it_never_saw(places, trained):
    out, scores = trained
    fresh = distill.run(settings(places, steps=0), places / "fresh", show=False)
    assert fresh["held out cosine"] < 0.5 < scores["held out cosine"]
    assert scores["emphasised cosine"] > 0.8
    assert {name.split(" cosine")[0] for name in scores if "cosine" in name} == {"held out", "excluded", "emphasised"}
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 61))


def test_plain_transformers_opens_the_tower_and_it_gives_the_scores(places, trained):
    out, scores = trained
    tower, tokenizer = Tipsv2TextModel.from_pretrained(out / "text"), AutoTokenizer.from_pretrained(out / "text")
    assert len(tokenizer) == tower.config.vocab_size <= 120 and tower.config.hidden_size == 64
    rows = []
    with torch.no_grad():
        for text in (f"a photo of a {word}" for word in ("puppy", "dog")):
            pooled = tower.eval()(torch.tensor([tokenizer(text)["input_ids"]])).pooler_output[0]
            rows.append(F.cosine_similarity(pooled, read_alone(places, text), dim=0).item())
    assert scores["excluded cosine"] == pytest.approx(np.mean(rows), abs=2e-3)


@pytest.fixture(scope="module")
def eyes(places):
    """A random encoder as wide as the teacher's vectors."""
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1}
    torch.manual_seed(1)
    config = Tipsv2Config(
        text_config=sizes | {"intermediate_size": 64, "vocab_size": 343},
        vision_config=sizes | {"patch_size": 14, "image_size": 28},
    )
    randomise(Tipsv2Model(config)).save_pretrained(places / "eyes")
    make_tokenizer().save_pretrained(places / "eyes")
    return places / "eyes"


def test_with_eyes_it_is_a_whole_encoder(places, trained, eyes, tmp_path):
    """The vision tower keeps its bits, and a run that is done writes the encoder without a further step."""
    out, scores = shutil.copytree(trained[0], tmp_path / "run"), trained[1]
    assert distill.run(settings(places), out, str(eyes), resume=True, show=False) == scores
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 60
    model, sight = Tipsv2Model.from_pretrained(out / "model"), Tipsv2Model.from_pretrained(eyes)
    for name, value in sight.vision_model.state_dict().items():
        assert torch.equal(model.vision_model.state_dict()[name], value), name
    text = Tipsv2TextModel.from_pretrained(out / "text").state_dict()
    assert all(torch.equal(model.text_model.state_dict()[name], value) for name, value in text.items())
    encoder = tipsv2.load(out / "model", device="cpu", dtype="float32")
    assert encoder.temperature == pytest.approx(0.05)
    row = encoder.encode_text(["a photo of a kite"])[0]
    assert F.cosine_similarity(row, read_alone(places, "a photo of a kite"), dim=0) > 0.7
    assert encoder.encode_image(Image.new("RGB", (28, 28))).patches.shape == (2, 2, 64)


def test_a_run_goes_on_as_if_it_had_not_stopped(places, tmp_path, monkeypatch):
    """Ctrl-C in a step saves that step; what follows has the bits of a run that nobody stopped."""
    short = settings(places, steps=7)
    distill.run(short, tmp_path / "whole", show=False)
    real, calls = losses.neighbours, []

    def interrupted(*given):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*given)

    monkeypatch.setattr(losses, "neighbours", interrupted)
    with pytest.raises(Stopped, match="after step 3") as stopped:
        distill.run(short, tmp_path / "parts", show=False)
    assert stopped.value.number == signal.SIGINT
    assert not (tmp_path / "parts" / "text").exists()
    distill.run(distill.recorded(tmp_path / "parts", {"steps": 7}), tmp_path / "parts", resume=True, show=False)
    assert len(calls) == 7
    whole, parts = (load_file(tmp_path / name / "text" / "model.safetensors") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys() and all(torch.equal(whole[key], parts[key]) for key in whole)
    lines = [json.loads(line)["loss"] for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    again = [json.loads(line)["loss"] for line in (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()]
    assert lines == again and len(lines) == 7


@pytest.mark.slow
def test_a_tower_goes_on_to_what_a_bridge_makes_of_its_targets(places, trained, tmp_path, monkeypatch):
    """--base keeps tower and vocabulary, takes the vectors that are there, and learns the other targets."""
    generator = torch.Generator().manual_seed(2)
    state = {"0.weight": torch.randn(96, 64, generator=generator), "2.weight": torch.randn(64, 96, generator=generator)}
    save_file(state | {"0.bias": torch.zeros(96), "2.bias": torch.zeros(64)}, tmp_path / "bridge.safetensors")
    monkeypatch.setattr(sentence_vectors, "sentence_vectors", None)  # the base has read them all
    bridged = settings(places, base=str(trained[0]), bridge=str(tmp_path / "bridge.safetensors"))
    before = distill.run(replace(bridged, steps=0), tmp_path / "before", show=False)
    after = distill.run(bridged, tmp_path / "after", show=False)
    assert before["emphasised cosine"] < 0.3 < 0.6 < after["emphasised cosine"]
    words = [(tmp_path / "after" / "text" / name).read_bytes() for name in ("tokenizer.json", "config.json")]
    assert words == [(trained[0] / "text" / name).read_bytes() for name in ("tokenizer.json", "config.json")]


def test_a_bridge_to_another_width_makes_a_tower_of_that_width(places, tmp_path):
    shapes = {"0.weight": (8, 64), "0.bias": (8,), "2.weight": (128, 8), "2.bias": (128,)}
    save_file({key: torch.ones(shape) for key, shape in shapes.items()}, tmp_path / "bridge.safetensors")
    wide = settings(places, bridge=str(tmp_path / "bridge.safetensors"), steps=1)
    distill.run(wide, tmp_path / "run", show=False)
    tower = Tipsv2TextModel.from_pretrained(tmp_path / "run" / "text")
    assert tower.config.hidden_size == 128 and tower.config.num_attention_heads == 2


def test_words_are_inherited_piece_by_piece(places, tmp_path):
    distill.run(settings(places, steps=0), tmp_path / "run", show=False)
    tower, tokenizer = (kind.from_pretrained(tmp_path / "run" / "text") for kind in (Tipsv2TextModel, AutoTokenizer))
    teacher, theirs = BertModel.from_pretrained(places / "teacher"), word_pieces()
    own = tower.get_input_embeddings().weight.detach()
    for piece in ("kite"[0], "##e", "dog", "[PAD]"):
        row = own[tokenizer.convert_tokens_to_ids(piece)]
        old = teacher.get_input_embeddings().weight.detach()[theirs.convert_tokens_to_ids(piece)]
        assert F.cosine_similarity(row, old, dim=0) == pytest.approx(1, abs=1e-5), piece
    assert tokenizer.convert_tokens_to_ids("dog") > 1


def test_the_command_says_what_is_wrong_before_anything_is_written(places, trained, eyes, tmp_path, capsys):
    out, teacher, names = tmp_path / "run", str(places / "teacher"), str(places / "names.txt")
    make_model(343).save_pretrained(tmp_path / "narrow")
    make_tokenizer().save_pretrained(tmp_path / "narrow")
    capsys.readouterr()
    for given, hint in (
        (["--wordnet", names], "--teacher is missing"),
        (["--teacher", teacher], "--wordnet is missing"),
        (["--teacher", teacher, "--wordnet", str(tmp_path / "none")], "cannot be read"),
        (["--teacher", str(tmp_path), "--wordnet", names], "--teacher="),
        (["--teacher", teacher, "--wordnet", names, "--steps", "-1"], "--steps -1"),
        (["--teacher", teacher, "--wordnet", names, "--vocabulary", "30"], "--vocabulary 30 is too small"),
        (["--teacher", teacher, "--wordnet", names, "--emphasis", "nowhere.txt"], "--emphasis nowhere.txt"),
        (["--teacher", teacher, "--wordnet", names, "--vision", str(tmp_path / "narrow")], "--vision is 48 wide"),
        (["--teacher", teacher, "--wordnet", names, "--base", str(trained[0]), "--layers", "2"], "--layers cannot be"),
        (["--resume"], "holds no run"),
    ):
        assert main(["text", "--out", str(out), *given]) == 2
        found = capsys.readouterr().err.strip()
        assert hint in found and len(found.splitlines()) == 1 and not out.exists(), given
    assert main(["text", "--out", str(trained[0]), "--teacher", teacher, "--wordnet", names]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert main(["text", "--out", str(trained[0]), "--resume", "--seed", "5"]) == 2
    assert "was begun with seed=0, not 5" in capsys.readouterr().err
