"""A SentencePiece file (tokenizer.model of the official releases) -> the tokenizer transformers reads, checked.

transformers' own extraction is used; afterwards every piece and some prompts are encoded by both, and a tokenizer that
differs anywhere from SentencePiece is refused. One difference stays, as in the released folders: where the file has no
byte pieces, transformers leaves a character without a piece out, for which SentencePiece gives its unknown piece. Needs
the packages sentencepiece and protobuf, and only here: a model folder with tokenizer.json needs neither.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tipsv2.checkpoints.catalogue import ModelError
from tipsv2.prompts import TEMPLATES

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor
    from transformers import Tipsv2Tokenizer

MAX_LENGTH = 64  # tokens of a text, github.com/google-deepmind/tips pytorch/text_encoder.py
SAMPLES = (
    "a dog on the grass",
    "Two  CATS, one black ",
    "café Zürich 東京 собака",
    "ﬁne ½ ①",
    "🐕 x̂ ¿",
    "1,234.5-6",
)


def read_sentencepiece(path: Path, vocab_size: int) -> Tipsv2Tokenizer:
    """The SentencePiece BPE model in `path` as the released models' tokenizer: lower case, 64 tokens, no BOS or EOS.

    Text is lowered in all alphabets, as the released folders do (the official code lowers ASCII alone).
    Raises ModelError where the file is no such model, has not `vocab_size` pieces or its first piece is not the
    padding, or sentencepiece is not installed.
    """
    try:
        from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2
    except ImportError:
        raise ModelError(
            "Reading a SentencePiece file needs two more packages: pip install sentencepiece protobuf."
        ) from None
    from transformers import Tipsv2Tokenizer

    try:
        proto = sentencepiece_model_pb2.ModelProto.FromString(path.read_bytes())
        theirs = SentencePieceProcessor(model_proto=proto.SerializeToString())
        theirs.id_to_piece(0)  # an empty file is a model too, to both
    except Exception as error:  # protobuf's DecodeError, sentencepiece's RuntimeError and IndexError
        raise ModelError(f"'{path}' is not a SentencePiece model: download tokenizer.model again.") from error
    if proto.trainer_spec.model_type != proto.trainer_spec.BPE:
        raise ModelError(f"'{path}' is no BPE model, but TIPS has one: give tokenizer.model of the official release.")
    if len(theirs) != vocab_size:
        raise ModelError(f"'{path}' has {len(theirs)} pieces, the model {vocab_size} tokens: they do not fit.")
    if not theirs.is_control(0):
        raise ModelError(f"Piece 0 of '{path}' is '{theirs.id_to_piece(0)}': TIPS pads with 0, so it must be padding.")
    ours = Tipsv2Tokenizer(
        **Tipsv2Tokenizer._convert_from_sentencepiece(str(path), {}),
        pad_token=theirs.id_to_piece(0),
        unk_token=theirs.id_to_piece(theirs.unk_id()),
        model_max_length=MAX_LENGTH,
    )
    if difference := _difference(ours, theirs):
        raise ModelError(
            f"'{path}' cannot be turned into a tokenizer.json that encodes {difference!r} as it does: give the folder "
            "of a released model as --tokenizer instead."
        )
    return ours


def _difference(ours: Tipsv2Tokenizer, theirs: SentencePieceProcessor) -> str | None:
    """The first text of known characters the two encode differently: every piece alone, templates around samples."""
    plain = (i for i in range(len(theirs)) if not (theirs.is_control(i) or theirs.is_unknown(i) or theirs.is_byte(i)))
    pieces = [theirs.id_to_piece(i).replace("▁", " ") for i in plain]
    texts = pieces + [frame.replace("{}", text) for text in SAMPLES for frame in TEMPLATES["tips9"]]
    lowered = [ours.backend_tokenizer.normalizer[0].normalize_str(text) for text in texts]
    ids = ours(texts, truncation=False, verbose=False)["input_ids"]
    rows, unknown = zip(texts, ids, theirs.encode(lowered), strict=True), theirs.unk_id()
    return next((text for text, a, b in rows if a != b and unknown not in b), None)
