"""The multilingual text teacher: a dictionary of the names it was trained with, made without any image."""

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModel, AutoTokenizer

from tipsv2 import scenes
from tipsv2.scenes import scene, sprites
from train.__main__ import main
from train.network.teachers import TextTeacher
from train.text import multilingual

NOUNS = [noun for noun in scenes.nouns() if noun.name in ("dog", "cat", "fire engine", "apple", "tree", "book", "hat")]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A teacher of seven nouns and its scores; drawing anything at all would fail."""
    folder = tmp_path_factory.mktemp("text") / "teacher"
    with pytest.MonkeyPatch.context() as patch:

        def no_images(*_):
            raise AssertionError("the text teacher looked at an image")

        for module, name in ((sprites, "sprites"), (scene, "sprites"), (scene, "draw"), (scenes, "draw")):
            patch.setattr(module, name, no_images, raising=False)
        patch.setattr(multilingual, "TOKENIZER_CAPTIONS", 60)
        patch.setattr(multilingual, "SENTENCES", 8)
        return folder, multilingual.train_teacher(folder, steps=250, nouns=NOUNS, width=64, show=False)


def nearest(model, tokenizer, text):
    """Which English name is nearest to `text`, by the mean word embedding, in plain transformers."""

    def mean(of):
        return model.get_input_embeddings()(torch.tensor(tokenizer(of)["input_ids"])).mean(0)

    found = [F.cosine_similarity(mean(text), mean(noun.name), dim=0).item() for noun in NOUNS]
    return NOUNS[max(range(len(NOUNS)), key=found.__getitem__)].name


@pytest.mark.slow
def test_the_names_of_a_noun_are_nearest_to_each_other_in_plain_transformers(teacher):
    """All of them were trained with: this says that the dictionary was learned, nothing about words left out."""
    folder, scores = teacher
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    right = total = 0
    with torch.no_grad():
        for noun in NOUNS:
            for name in noun.translations.values():
                right, total = right + (nearest(model, tokenizer, name) == noun.name), total + 1
    assert total == 7 * 13 and right / total > 0.95
    assert scores["words"] == pytest.approx(right / total, abs=1e-6)
    assert scores["features"] > 0.95 and scores["chance"] == pytest.approx(1 / 7)


@pytest.mark.slow
def test_before_training_they_are_not(teacher):
    folder, _ = teacher
    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    fresh = AutoModel.from_config(AutoModel.from_pretrained(folder).config)
    scores = multilingual.scores(fresh, tokenizer, NOUNS)
    assert scores["words"] < 0.5 and scores["features"] < 0.5  # a few names are the same word in both languages


@pytest.mark.slow
def test_it_opens_as_a_teacher_whose_words_are_whole(teacher):
    opened = TextTeacher(str(teacher[0]))
    assert opened.width == 64 and opened.matrix.shape == (len(opened.tokenizer), 64)
    for word in ("Hund", "собака", "イヌ", "dog", "fire"):
        assert len(opened.tokenizer(word)["input_ids"]) == 1, word


def test_sentences_of_equal_seed_differ_in_the_names_alone():
    german = multilingual.in_language(NOUNS, "de")
    for k in range(30):
        english, other = (multilingual.sentence(k / 30, nouns, "detailed") for nouns in (NOUNS, german))
        for noun in sorted(NOUNS, key=lambda n: -len(n.plural)):
            # its plural is the same word in the other language, and articles follow the sound of what they stand before
            english = english.replace(noun.plural, noun.translations["de"])
            english = english.replace(noun.name, noun.translations["de"])
        assert english.replace("an ", "a ") == other.replace("an ", "a ")


def test_the_command_says_what_is_wrong(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("precious")
    for arguments, hint in ((["--out", str(tmp_path)], "is not empty"), (["--out", "x", "--steps", "0"], "--steps 0")):
        assert main(["textteacher", *arguments]) == 2
        assert hint in capsys.readouterr().err
