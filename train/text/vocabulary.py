"""The word pieces that pay: a WordPiece tokenizer cut to those that a set of texts needs.

Word embeddings are most of a small text tower, and many of BERT's 30 522 pieces are of other scripts, or names and
years that no picture shows. A word whose piece is gone is read as smaller pieces, down to single letters.
"""

from __future__ import annotations

import json
import string
from collections import Counter
from collections.abc import Iterable

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from train.network.teachers import MAX_LENGTH


def cut(
    tokenizer: PreTrainedTokenizerBase, names: Iterable[str], texts: Iterable[str], size: int
) -> tuple[PreTrainedTokenizerFast, list[int]]:
    """`tokenizer` with `size` pieces, those of `names` before those of `texts`, of either the ones used most; and each
    new token's number in the old one.

    Padding is 0 and the unknown piece 1; letters, digits and ASCII signs stay, used or not, so that nothing written
    with them is unknown; there are no tokens around a text, which the tower has no use for.
    Raises ValueError if it is no WordPiece tokenizer, or if `size` is too small for the letters.
    """
    inner = getattr(tokenizer, "backend_tokenizer", None)
    written = json.loads(inner.to_str()) if inner is not None else {"model": {}}
    if written["model"].get("type") != "WordPiece":
        raise ValueError(
            f"the teacher's tokenizer ({type(tokenizer).__name__}) is no WordPiece tokenizer, and no other kind can be "
            "cut: keep its whole vocabulary with --vocabulary 0."
        )
    vocabulary: dict[str, int] = written["model"]["vocab"]
    prefix = written["model"]["continuing_subword_prefix"]
    letters = {c for c in string.printable if not c.isspace()}
    kept = {piece for piece in vocabulary if piece.removeprefix(prefix) in letters}
    fixed = [tokenizer.pad_token, tokenizer.unk_token]
    if size < len(kept) + len(fixed):
        raise ValueError(
            f"--vocabulary {size} is too small: letters and signs alone are {len(kept) + len(fixed)} pieces."
        )
    special = set(tokenizer.all_special_ids)
    pieces = {number: piece for piece, number in vocabulary.items() if number not in special}
    for some in filter(None, map(list, (names, texts))):
        read = tokenizer(some, add_special_tokens=False, verbose=False)["input_ids"]
        for number, _ in Counter(number for ids in read for number in ids).most_common():
            if len(kept) + len(fixed) < size and number in pieces:
                kept.add(pieces[number])
    order = [*fixed, *sorted(kept - set(fixed), key=vocabulary.__getitem__)]
    written["model"]["vocab"] = {piece: i for i, piece in enumerate(order)}
    written |= {"added_tokens": [], "post_processor": None, "padding": None, "truncation": None}
    smaller = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(written)),
        pad_token=tokenizer.pad_token,
        unk_token=tokenizer.unk_token,
        model_max_length=MAX_LENGTH,
        padding_side="right",
    )
    return smaller, [vocabulary[piece] for piece in order]
