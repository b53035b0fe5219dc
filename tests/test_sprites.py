"""The bundled drawings and names: complete, distinct, in agreement with the vocabulary, within the size limit.

python -m pytest tests/test_sprites.py
"""

import json

import numpy as np
import pytest
from PIL import Image

from tipsv2.scenes.sprites import ASSETS, SEEN_STYLES, STYLES, UNSEEN_STYLE, nouns, sprites
from tipsv2.scenes.vocabulary import MASS, NOUNS


def test_nouns_are_about_300_and_unique():
    forms = [form for noun in nouns() for form in {noun.name, noun.plural}]
    codes = [code for noun in nouns() for code in noun.codes]

    assert 290 <= len(nouns()) <= 320
    assert len(set(forms)) == len(forms)
    assert len(set(codes)) == len(codes)
    assert all(noun.name == noun.name.lower() and 1 <= len(noun.codes) <= 4 for noun in nouns())
    assert {noun.category for noun in nouns()} == {"animal", "food", "plant", "vehicle", "object"}
    assert {noun.name for noun in nouns() if noun.mass} == MASS


def test_keywords_never_name_another_noun():
    forms = {form for noun in nouns() for form in (noun.name, noun.plural)}
    words = [word for noun in nouns() for word in noun.keywords]

    assert not forms & set(words)
    assert len(set(words)) == len(words)  # nor do two nouns share one
    assert all(word.isascii() and word == word.lower().strip() for word in words)
    assert max(len(noun.keywords) for noun in nouns()) <= 8


def test_every_noun_has_its_own_name_in_ten_languages():
    languages = set(nouns()[0].translations)

    assert len(languages) >= 10 and "en" not in languages
    assert all(set(noun.translations) == languages for noun in nouns())
    for language in languages:
        names = [noun.translations[language].lower() for noun in nouns()]
        assert all(names) and len(set(names)) == len(names), language


def test_translations_are_the_things_not_the_emoji():
    german = {noun.name: noun.translations["de"] for noun in nouns()}
    japanese = {noun.name: noun.translations["ja"] for noun in nouns()}

    assert [german[name] for name in ("dog", "fire engine", "book")] == ["Hund", "Feuerwehrauto", "Buch"]
    assert japanese["cat"] == "ネコ" and not any(name.endswith("の顔") for name in japanese.values())


def test_names_file_agrees_with_the_vocabulary():
    texts = json.loads((ASSETS / "names.json").read_text(encoding="utf-8"))["nouns"]
    rows = [row for table in NOUNS.values() for row in table]

    assert list(texts) == [name for name, *_ in rows]
    for name, _, _, words in rows:
        assert ", ".join(texts[name]["keywords"]) == words, f"{name}: run python -m tipsv2.scenes.build"


@pytest.mark.parametrize("style", STYLES)
def test_atlas_has_one_cell_per_drawing_and_no_more(style):
    names = json.loads((ASSETS / "names.json").read_text(encoding="utf-8"))
    size, columns = names["cell"], names["columns"]
    with Image.open(ASSETS / f"{style}.webp") as image:
        alpha = np.asarray(image)[..., 3]
    cells = alpha.reshape(-1, size, columns, size).any(axis=(1, 3)).ravel()
    drawings = sum(len(codes.split()) for table in NOUNS.values() for _, _, codes, _ in table)

    assert cells[:drawings].all() and not cells[drawings:].any()
    assert 0 <= cells.size - drawings < columns


@pytest.mark.parametrize("style", STYLES)
def test_sprites_are_visible_centred_and_fill_their_cell(style):
    for noun, drawings in zip(nouns(), sprites(style), strict=True):
        assert len(drawings) == len(noun.codes)
        for drawing in drawings:
            size = drawing.shape[0]
            assert drawing.dtype == np.uint8 and drawing.shape == (size, size, 4)
            assert not drawing.flags.writeable
            visible = drawing[..., 3] > 16
            rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
            assert 0.1 < visible.mean() < 0.99, noun.name
            assert max(np.ptp(rows), np.ptp(columns)) + 1 >= size - 6, noun.name
            for line in (rows, columns):
                assert line[0] >= 1 and line[-1] <= size - 2, noun.name
                assert abs(line[0] + line[-1] - (size - 1)) <= 4, noun.name


def test_no_drawing_occurs_twice_in_a_style():
    for style in STYLES:
        seen = {}
        for noun, drawings in zip(nouns(), sprites(style), strict=True):
            for drawing in drawings:
                other = seen.setdefault(drawing.tobytes(), noun.name)
                assert other == noun.name, f"{style}: {noun.name} and {other} are the same drawing"


def test_cells_stand_where_the_vocabulary_says():
    # colours that everybody knows catch a shifted index, which no count would
    expected = {"frog": 1, "lemon": 0, "pig": 0, "broccoli": 1, "fire engine": 0, "cucumber": 1, "fire": 0, "cactus": 1}
    index = {noun.name: position for position, noun in enumerate(nouns())}
    for style in STYLES:
        for name, channel in expected.items():
            drawing = sprites(style)[index[name]][0].astype(float)
            colour = (drawing[..., :3] * drawing[..., 3:]).sum((0, 1))
            assert colour.argmax() == channel, f"{style}: {name}"


def test_unseen_style_is_not_among_the_seen_and_draws_differently():
    assert UNSEEN_STYLE in STYLES and UNSEEN_STYLE not in SEEN_STYLES
    for style in SEEN_STYLES:
        for ours, theirs in zip(sprites(style), sprites(UNSEEN_STYLE), strict=True):
            assert all(not np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_sprites_are_decoded_once():
    assert sprites("noto") is sprites("noto") and nouns() is nouns()


def test_unknown_style_is_refused_with_the_names_of_the_known():
    with pytest.raises(ValueError, match="emoji.*fluent, noto, twemoji, flat, openmoji"):
        sprites("emoji")


def test_files_stay_within_the_limit_and_say_where_they_come_from():
    assert sum(path.stat().st_size for path in ASSETS.iterdir()) < 15e6
    text = (ASSETS / "LICENSES.md").read_text(encoding="utf-8")
    assert all(f"{style}.webp" in text for style in STYLES)
