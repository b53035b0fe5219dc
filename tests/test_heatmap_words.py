"""Words in their sentence, nearest words, and the layers and distractors of a heatmap, against loops and the encoder.

python -m pytest tests/test_heatmap_words.py
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tipsv2.analysis.heatmap import heatmap, similarity, to_pixels
from tipsv2.analysis.words import content_words, nearest_words, phrases, word_maps, words_in_context
from tipsv2.network.view import View


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 100, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("A dog and the dog's red car, on grass.", ["dog", "dog's", "red", "car", "grass"]),
        ("Grass by the GRASS: 2 well-known cats!", ["Grass", "2", "well-known", "cats"]),
        ("of the", ["of", "the"]),  # nothing else to ask for
        ("ein Hund, крас_ная машина", ["ein", "Hund", "крас", "ная", "машина"]),
        ("一只狗", ["一只狗"]),
        ("🐶 … !", []),
    ],
)
def test_content_words(sentence, words):
    assert content_words(sentence) == words


@pytest.mark.parametrize(
    ("sentence", "found"),
    [
        ("A brown dog, asleep on the green\n grass.", ["brown dog", "asleep", "green grass"]),
        ("the red car by a Red Car", ["red car"]),
        ("dog and dog house", ["dog", "dog house"]),
        ("of the", ["of the"]),
        ("ein alter Hund", ["ein alter Hund"]),
        ("🐶 … !", []),
    ],
)
def test_phrases_are_the_runs_of_content_words(sentence, found):
    assert phrases(sentence) == found


def test_a_word_is_what_the_sentence_loses_without_it(tiny_encoder):
    words, found = words_in_context(tiny_encoder, "the red dog, a cat and a dog on grass")
    assert words == ["red", "dog", "cat", "grass"]
    rests = [
        "the dog, a cat and a dog on grass",
        "the red , a cat and a on grass",
        "the red dog, a and a dog on grass",
        "the red dog, a cat and a dog on",
    ]
    whole = tiny_encoder.encode_text(["the red dog, a cat and a dog on grass"])[0]
    for row, rest in zip(found, rests, strict=True):
        expected = whole - tiny_encoder.encode_text([rest])[0]
        assert torch.allclose(row, expected / expected.norm(), atol=1e-5)


@pytest.mark.parametrize(
    ("sentence", "rests"),
    [
        ("the dogs' kennel", {"dogs": "the ' kennel", "kennel": "the dogs'"}),
        ("a 'red' car", {"red": "a ' ' car", "car": "a 'red'"}),
        ("my_dog - big", {"dog": "my_ - big", "big": "my_dog -"}),
        ("a dog's dog", {"dog's": "a dog", "dog": "a dog's"}),
    ],
)
def test_a_word_next_to_a_sign_is_taken_out_too(tiny_encoder, sentence, rests):
    words, found = words_in_context(tiny_encoder, sentence)
    assert words == list(rests)
    for row, rest in zip(found, rests.values(), strict=True):
        expected = tiny_encoder.encode_text([sentence])[0] - tiny_encoder.encode_text([rest])[0]
        assert torch.allclose(row, expected / expected.norm(), atol=1e-5) and row.norm() > 0.99


def test_a_sentence_of_one_word_is_that_word(tiny_encoder):
    for sentence, word in (("dog", "dog"), ("Dog!", "Dog")):
        words, found = words_in_context(tiny_encoder, sentence)
        assert words == [word] and torch.allclose(found, tiny_encoder.encode_text([word]), atol=1e-5)
    with pytest.raises(ValueError, match="no words"):
        words_in_context(tiny_encoder, "… 🐶")


@pytest.mark.parametrize("mode", ["cosine", "competing"])
def test_word_maps(tiny_encoder, picture, mode):
    words, maps = word_maps(tiny_encoder, picture, "a dog on grass", mode, "final", 42, temperature=0.1)
    assert words == ["dog", "grass"] and maps.shape == (2, 60, 100)
    expected = similarity(
        tiny_encoder.encode_image(picture, 42).patches, words_in_context(tiny_encoder, "a dog on grass")[1]
    )
    expected = torch.softmax(expected / 0.1, dim=0) if mode == "competing" else expected
    np.testing.assert_allclose(maps, to_pixels(expected, (60, 100)), atol=1e-5)


def test_nearest_words(tiny_encoder, picture):
    patch = tiny_encoder.encode_image(picture).patches[1, 2]
    vocabulary = ["dog", "cat", "grass", "sky", "tree"]
    found = nearest_words(patch, tiny_encoder, vocabulary, 3)
    cosines = [float(F.cosine_similarity(patch, row, dim=0)) for row in tiny_encoder.encode_text(vocabulary)]
    expected = sorted(zip(vocabulary, cosines, strict=True), key=lambda pair: -pair[1])[:3]
    assert [word for word, _ in found] == [word for word, _ in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-5)
    assert len(nearest_words(patch, tiny_encoder, vocabulary, 99)) == 5
    with pytest.raises(ValueError, match="at least one word"):
        nearest_words(patch, tiny_encoder, [])


def test_layers_and_distractors_of_a_heatmap(tiny_encoder, picture):
    for layer in (1, 3):
        features = tiny_encoder.look(picture, View(42), layer)
        assert features.size == (60, 100)
        assert torch.equal(features.patches, tiny_encoder.encode_layers(picture, [layer], 42)[layer].patches)
    maps = heatmap(tiny_encoder, picture, ["dog"], "competing", 2, temperature=0.1, distractors=["cat", "sky"])
    every = heatmap(tiny_encoder, picture, ["dog", "cat", "sky"], "competing", 2, temperature=0.1)
    np.testing.assert_allclose(maps, every[:1], atol=1e-6)
    alone = heatmap(tiny_encoder, picture, ["dog"], distractors=["cat"])
    np.testing.assert_allclose(alone, heatmap(tiny_encoder, picture, ["dog"]), atol=1e-6)
    with pytest.raises(ValueError, match="no layer 9"):
        heatmap(tiny_encoder, picture, ["dog"], features=9)
