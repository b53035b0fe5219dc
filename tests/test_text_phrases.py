"""What a text tower is taught: WordNet's nouns, the phrases made of names, the word pieces kept, the batches."""

import json
import random
import re
import string

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tipsv2.prompts import TEMPLATES
from train.data.phrase_batches import Batches
from train.foundations.wordnet import noun_table, read_nouns
from train.text import phrases, vocabulary

WORDNET = (
    "  1 This software and database is being provided to you\n"
    "00000001 03 n 01 entity 0 001 ~ 00000002 n 0000 | that which exists  \n"
    "00000002 03 n 01 physical_entity 0 002 @ 00000001 n 0000 ~ 00000003 n 0000 | what one can touch  \n"
    "00000003 03 n 0a fire_engine 0 fire_truck 0 c 0 d 0 e 0 f 0 g 0 h 0 i 0 j 0 003 @ 00000002 n 0000 + 00000009 v "
    '0101 ~i 00000004 n 0000 | a truck for fires; "the fire engine came"; also red  \n'
    "00000004 03 n 01 Old_Betsy 0 001 @i 00000003 n 0000 | a fire engine of 1942  \n"
    "00000005 03 n 02 beauty 0 idea 0 001 @ 00000001 n 0000 | what pleases  \n"
)
WORDS = "a photo of the dog puppy cat kitten lawn grass red car automobile pup ##py truck fire engine and on".split()


def word_pieces(words=WORDS):
    """A WordPiece tokenizer as BERT's: [CLS] and [SEP] around a text; letters and signs, alone and within a word."""
    letters = [c for c in string.ascii_lowercase + string.digits]
    known = ["[PAD]", "[unused]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{c}" for c in letters)]
    known += [*string.punctuation, "東", *words]
    inner = Tokenizer(models.WordPiece({word: i for i, word in enumerate(dict.fromkeys(known))}, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    around = [("[CLS]", 3), ("[SEP]", 4)]
    inner.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair=None, special_tokens=around)
    inner.enable_truncation(20)
    inner.enable_padding(length=20)
    names = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **names)


def letters_of(texts):
    """Tokens of a tokenizer that knows letters alone, later letters later."""
    return [[ord(c) for c in text if c != " "] for text in texts]


def test_a_dictionary_begins_with_what_is_seen_and_common(tmp_path):
    rows = noun_table(read_nouns(WORDNET.encode()))
    (tmp_path / "nouns.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "names.tsv").write_text("index\tname\n0\ttench\n1\tkite\n")
    both = phrases.read_dictionary(
        [tmp_path / "nouns.jsonl", tmp_path / "names.tsv"], lambda texts: [[len(t)] * (len(t) > 9) for t in texts]
    )
    assert set(both.names[:2]) == {"tench", "kite"} and both.names[-1] == "Old Betsy"
    assert both.names.index("fire truck") < both.names.index("idea")
    assert both.visible == 2 + len(["physical entity", "fire engine", "fire truck", *"cdefghij"])
    assert "a truck for fires" in both.glosses and len(both.glosses) == 5
    with pytest.raises(ValueError, match="cannot be read .Is a directory."):
        phrases.read_dictionary([tmp_path], letters_of)


def test_among_equals_whole_words_come_first_and_then_those_of_low_numbers(tmp_path):
    (tmp_path / "names.txt").write_text("bb\ncc\na\nred b\n")
    numbers = {"bb": [7, 8], "cc": [9], "a": [5], "red b": [4, 6]}
    known = phrases.read_dictionary([tmp_path / "names.txt"], lambda texts: [numbers[text] for text in texts])
    assert known.names == ["a", "red b", "cc", "bb"]


def test_files_of_names(tmp_path):
    (tmp_path / "a.txt").write_text("dog\n\ncat\ndog\n")
    (tmp_path / "b.tsv").write_text("value\tname\n1\tdog\n")
    lines = [{"name": "dog", "lemmas": ["domestic dog"], "gloss": "a pet"}, {"lemmas": ["cat"]}]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert [phrases.read_names(tmp_path / name) for name in ("a.txt", "b.tsv", "c.jsonl")] == [
        ["dog", "cat"],
        ["dog"],
        ["dog", "domestic dog", "cat"],
    ]
    (tmp_path / "d.tsv").write_text("value\tlabel\n1\tdog\n")
    (tmp_path / "e.txt").write_text("\n")
    (tmp_path / "f.jsonl").write_text("[1]\n")
    (tmp_path / "h.jsonl").write_text('{"name": 3}\n')
    for name, hint in (
        ("d.tsv", "is no list"),
        ("e.txt", "holds no names"),
        ("f.jsonl", "is no list"),
        ("h.jsonl", "is no list"),
        ("g", "No such"),
    ):
        with pytest.raises(ValueError, match=hint):
            phrases.read_names(tmp_path / name)


@pytest.mark.parametrize("row", [{"lemmas": ["dog"], "key": "b"}, {"lemmas": ["dog"], "hypernyms": ["a"]}])
def test_a_wordnet_that_does_not_say_what_is_a_kind_of_what_is_named(tmp_path, row):
    root = {"lemmas": ["physical entity"], "key": "a", "hypernyms": []}
    (tmp_path / "nouns.jsonl").write_text("\n".join(map(json.dumps, [root, row])))
    with pytest.raises(ValueError, match=r"nouns.jsonl: row 2 lacks `key` or `hypernyms`.*train foundations"):
        phrases.read_dictionary([tmp_path / "nouns.jsonl"], lambda texts: [[1] for _ in texts])


NAMES = [f"{a}{b}" for a in ("dog", "cat", "car", "tree", "bird", "ship") for b in ("", *string.ascii_lowercase[:15])]
GLOSSES = [f"a thing of the kind {name}, like a puppy" for name in NAMES]


@pytest.fixture(scope="module")
def composed():
    dictionary = phrases.Dictionary([*NAMES, "puppy", "fire engine", "Zeus"], len(NAMES) + 2, GLOSSES)
    return phrases.compose(
        dictionary, ["kite", "zebra", "puppy dog", "guard dogs"], ["puppy", "fire engine", "dog"], 900
    )


def test_phrases_are_different_and_come_out_the_same_again(composed):
    assert len(set(composed.all)) == len(composed.all) > 600
    dictionary = phrases.Dictionary([*NAMES, "puppy", "fire engine", "Zeus"], len(NAMES) + 2, GLOSSES)
    assert (
        phrases.compose(dictionary, ["kite", "zebra", "puppy dog", "guard dogs"], ["puppy", "fire engine", "dog"], 900)
        == composed
    )


def test_excluded_words_stand_in_definitions_alone(composed):
    holding = re.compile(r"\b(puppy|fire engine|dog)(s|es)?\b")
    with_one = [text for text in (*composed.taught, *composed.emphasised) if holding.search(text.lower())]
    assert with_one and set(with_one) <= set(GLOSSES)
    assert any("doga" in text for text in composed.taught)  # a longer word is another word
    assert composed.excluded == [f"a photo of a {word}" for word in ("puppy", "fire engine", "dog")]


def test_no_phrase_is_made_from_a_name_held_out(composed):
    names = [text.removeprefix("a photo of a ") for text in composed.held_out]
    assert len(names) == (len(NAMES) - 1) // 10 and set(names) < set(NAMES)
    framed = [text for text in composed.taught if text not in GLOSSES]
    scenery = ("bird", "ship", "car", "cat", "tree")  # which captions of scenes name as well
    for name in set(names) - set(scenery):
        assert not any(re.search(rf"\b{name}s?\b", text) for text in framed), name


def test_emphasised_names_stand_in_the_frames_they_are_asked_in(composed):
    for name in ("kite", "zebra"):
        own = {text for text in composed.emphasised if name in text}
        assert {name, f"a photo of a {name}", f"a {name}"} <= own
        assert len(own & {frame.replace("{}", name) for frame in TEMPLATES["tips9"]}) >= 3
    assert not set(composed.taught) & set(composed.emphasised)
    assert any("kite" in text and "zebra" in text for text in composed.taught)  # several in a sentence


def test_a_cut_vocabulary_reads_what_is_gone_as_smaller_pieces(tmp_path):
    whole = word_pieces()
    texts = ["a photo of the dog", "a kitten on the grass"]
    smaller, numbers = vocabulary.cut(whole, ["pup"], texts, 2 + 72 + 32 + 7)
    assert len(smaller) == len(numbers) == 113 and smaller.pad_token_id == 0 and smaller.unk_token_id == 1
    assert smaller.tokenize("Puppy") == ["pup", "##p", "##y"]  # names come first, and their pieces
    assert smaller.tokenize("a") == ["a"] and smaller("a")["input_ids"] == [smaller.convert_tokens_to_ids("a")]
    old = whole.convert_ids_to_tokens(numbers)
    assert old == smaller.convert_ids_to_tokens(range(len(smaller)))
    smaller.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    rng = random.Random(0)
    for _ in range(50):
        text = "".join(rng.choices(string.ascii_letters + string.digits + string.punctuation + " ", k=20))
        ids = again(text)["input_ids"]
        assert again.unk_token_id not in ids and ids == smaller(text)["input_ids"]
    assert again("a" * 70, truncation=True)["input_ids"][:2] and again.model_max_length == 64
    assert again("東")["input_ids"] == [1]


def test_a_vocabulary_that_is_large_enough_reads_as_the_whole_one():
    whole = word_pieces()
    same, _ = vocabulary.cut(whole, WORDS, [], 10_000)
    for text in ("a photo of the puppy", "Fire-Engine, x9", "automobiles"):
        assert same.tokenize(text) == whole.tokenize(text)


def test_what_cannot_be_cut_is_a_sentence():
    from conftest import make_tokenizer

    with pytest.raises(ValueError, match="no WordPiece tokenizer.*--vocabulary 0"):
        vocabulary.cut(make_tokenizer(), [], ["a dog"], 300)
    with pytest.raises(ValueError, match="--vocabulary 50 is too small: letters and signs alone are"):
        vocabulary.cut(word_pieces(), [], ["a dog"], 50)


def test_batches_take_every_phrase_once_before_any_again_and_of_like_length():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 40, 800 + 320)
    batches = Batches(lengths, 320, 20, seed=3)
    rows = np.stack([batches.rows(step) for step in range(96)])
    plain, emphasised = rows[:, :16], rows[:, 16:]
    assert plain.max() < 800 <= emphasised.min()  # a fifth of every batch
    for kind, first, count in ((plain, 0, 800), (emphasised, 800, 320)):
        drawn = np.bincount(kind.ravel() - first, minlength=count)
        assert drawn.max() - drawn.min() <= 1
    spread = [np.ptp(lengths[batch]) for batch in plain]
    assert np.mean(spread) < 6  # of 39
    assert len({tuple(sorted(batch)) for batch in rows.tolist()}) == 96
    again = Batches(lengths, 320, 20, seed=3)
    assert all((again.rows(step) == rows[step]).all() for step in (77, 3, 40))  # whatever was asked before


def test_batches_of_one_kind_alone():
    assert sorted(Batches([2] * 64, 64, 4, 0).rows(0)) != list(range(4))
    assert all(len(Batches([2] * 8, 0, 4, 0).rows(step)) == 4 for step in range(40))
