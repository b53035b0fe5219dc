"""tipsv2.checkpoints.sentencepiece_files against sentencepiece itself, on small models trained here.

python -m pytest tests/test_pieces.py
"""

import io

import pytest
import sentencepiece
from conftest import DATA
from transformers import AutoTokenizer

from tipsv2 import scenes
from tipsv2.checkpoints.catalogue import ModelError
from tipsv2.checkpoints.official import read_npz, write_npz
from tipsv2.checkpoints.sentencepiece_files import read_sentencepiece
from tipsv2.network.encoder import load
from tipsv2.sharing.convert import to_folder

TEXTS = [
    "a photo of a banana.",
    "A PHOTO of a Watermelon",
    "  two   spaces and\ta tab\nand a line ",
    "café, Zürich, Straße, naïve",
    "東京 の 猫, собака, ภาษา, हिन्दी",
    "ﬁne ½ ① ＡＢＣ ™ x̂",
    "🐕 with 👩‍🚀",
    "1,234.5 - 'quoted' (brackets) <0x41> #@!",
    "unbelievably antidisestablishmentarianism",
    "",
]


def train(path, **changes):
    """A SentencePiece model of the released kind: BPE, id 0 for padding, bytes for what it has never seen."""
    names = [name.lower() for name in scenes.names()]
    lines = [f"a photo of a {name} on {names[k - 9]}" for k, name in enumerate(names)] + ["café zürich 東京 собака"] * 9
    settings = dict(vocab_size=700, model_type="bpe", byte_fallback=True, pad_id=0, eos_id=1, unk_id=2, bos_id=3)
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=written, hard_vocab_limit=False, minloglevel=2, **settings | changes
    )
    path.write_bytes(written.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())


@pytest.mark.parametrize("rule", ["nmt_nfkc", "nmt_nfkc_cf", "identity"])
def test_ids_are_sentencepieces_own_in_the_saved_folder_too(tmp_path, rule):
    theirs = train(tmp_path / "tokenizer.model", normalization_rule_name=rule)
    texts = [text for text in TEXTS if rule != "identity" or "\t" not in text]  # for which a tab is a character
    read_sentencepiece(tmp_path / "tokenizer.model", len(theirs)).save_pretrained(tmp_path / "saved")
    ours = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert len(ours) == len(theirs) and ours.pad_token_id == 0 and ours.model_max_length == 64
    for text in texts:
        assert ours(text)["input_ids"] == theirs.encode(text.lower()), text
    assert any(theirs.is_byte(i) for i in ours(TEXTS[4])["input_ids"])
    long = "banana watermelon " * 60
    assert ours(long, truncation=True)["input_ids"] == theirs.encode(long)[:64]


def test_a_converted_pair_reads_text_through_it(tmp_path):
    theirs = train(tmp_path / "tokenizer.model")
    text = read_npz(DATA / "tiny_mlp_text.npz")
    rows = text["token_embedding.weight"]
    text["token_embedding.weight"] = rows[[i % len(rows) for i in range(len(theirs))]]
    write_npz(tmp_path / "text.npz", text)
    files = DATA / "tiny_mlp_vision.npz", tmp_path / "text.npz"
    to_folder(*files, tmp_path / "out", heads=4, tokenizer=tmp_path / "tokenizer.model")
    encoder = load(tmp_path / "out", "cpu", "float32")
    assert encoder.tokenizer("A Banana")["input_ids"] == theirs.encode("a banana")
    assert encoder.encode_text(["a banana"]).shape == (1, 48)
    with pytest.raises(ModelError, match="has 700 pieces, the model 96 tokens"):
        to_folder(files[0], DATA / "tiny_mlp_text.npz", tmp_path / "no", 4, tokenizer=tmp_path / "tokenizer.model")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(model_type="unigram"), "is no BPE model"),
        (dict(pad_id=-1, unk_id=0, bos_id=2), "must be padding"),
        (dict(remove_extra_whitespaces=False), "cannot be turned into"),
    ],
)
def test_models_of_another_kind_are_refused(tmp_path, changes, words):
    theirs = train(tmp_path / "tokenizer.model", **changes)
    with pytest.raises(ModelError) as error:
        read_sentencepiece(tmp_path / "tokenizer.model", len(theirs))
    assert words in str(error.value) and "tokenizer.model" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"not a model", bytes(200)])
def test_unreadable_files(tmp_path, content):
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(ModelError, match=r"tokenizer.model.* is not a SentencePiece model"):
        read_sentencepiece(tmp_path / "tokenizer.model", 700)


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sentencepiece", None)
    with pytest.raises(ModelError, match="pip install sentencepiece"):
        read_sentencepiece(tmp_path / "tokenizer.model", 700)
