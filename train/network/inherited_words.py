"""A text teacher's word embeddings, inherited by the student's text tower. After SF-CLIP (CVPR 2024).

That the paper inherits them is in its abstract, how is not public in text form; the ways here are our choice. Captions
in English move nothing but English words: a word of another language is understood if its embedding stood near its
English one from the start and stays there. Hence the matrix is frozen by default, and what trains is a linear map that
moves all words together (where widths differ) and the tower above.

While training, the tower's token embedding is `Sequential(embedding, map)`; `folded` puts their product in its place,
so that what is saved is a plain Tipsv2Model. V is the student's vocabulary, E the teacher's embedding width, D the
student's width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, Tipsv2Model, Tipsv2TextModel

from train.network.teachers import TextTeacher
from train.recipe.settings import Recipe

LENGTH = 1.4  # root mean square of a word's entries where they meet the positions', which is 0.7 (our choice)


def inherit(model: Tipsv2Model, recipe: Recipe, tokenizer: PreTrainedTokenizerBase, teacher: TextTeacher) -> None:
    """Put the teacher's words in the place of `model`'s token embedding, all scaled by one number (see LENGTH).

    `sfclip.words` says whether `tokenizer` is the teacher's or the student's own. With another width than the tower's a
    random map E -> D follows, which always trains; the matrix trains where `sfclip.matrix` says so.
    Raises ValueError for an unknown choice, or where the text tower is already another model's.
    """
    settings = recipe.sfclip
    own, frozen = settings.words == "pieces", settings.matrix == "frozen"
    if recipe.tuning.base or recipe.distillation.weight:
        raise ValueError(
            f"the text tower comes from another encoder, with its words: sfclip.words={settings.words} cannot be, set "
            "it to own."
        )
    text = model.config.text_config
    matrix = teacher.matrix
    if own:
        matrix = pieces_matrix(tokenizer, teacher.tokenizer, matrix, text.vocab_size)
    elif len(tokenizer) > len(matrix):
        raise ValueError(
            f"{teacher.field}={teacher.name!r} has {len(tokenizer)} tokens but {len(matrix)} word embeddings: they do "
            "not fit."
        )
    text.pad_token_id = tokenizer.pad_token_id
    model.text_model.embeddings.token_embedding = embedding(model.text_model, matrix, frozen)


def embedding(tower: Tipsv2TextModel, matrix: Tensor, frozen: bool) -> nn.Embedding | nn.Sequential:
    """A teacher's words [V, E] as `tower` can read them, scaled by one number (see LENGTH); followed by a random map
    that trains where the tower has another width. `folded` makes one embedding of both.
    """
    matrix = matrix * (LENGTH / tower.embeddings.embed_scale / matrix.square().mean().sqrt())
    words, width = nn.Embedding.from_pretrained(matrix.clone(), freeze=frozen), tower.config.hidden_size
    if matrix.shape[1] == width:
        return words
    turn = nn.Linear(matrix.shape[1], width, bias=False)
    nn.init.normal_(turn.weight, std=matrix.shape[1] ** -0.5)  # keeps the length of a word
    return nn.Sequential(words, turn)


def pieces_matrix(
    student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase, matrix: Tensor, vocabulary: int
) -> Tensor:
    """Each of the student's tokens as the mean of the teacher's embeddings [V', E] of its pieces: [vocabulary, E].

    A token's pieces are the teacher's tokens of its text, read as a text of its own. Tokens without text (padding,
    lone bytes, numbers no token has) get the mean of the whole matrix.
    """
    rows = matrix.mean(0).repeat(vocabulary, 1)
    special = set(student.all_special_ids)
    texts = {i: student.decode([i]).strip() for i in range(len(student)) if i not in special}
    texts = {i: text for i, text in texts.items() if text and "\ufffd" not in text}
    pieces = teacher(list(texts.values()), add_special_tokens=False)["input_ids"]
    for index, ids in zip(texts, pieces, strict=True):
        if ids:
            rows[index] = matrix[ids].mean(0)
    return rows


@contextmanager
def folded(model: Tipsv2Model) -> Iterator[None]:
    """While it lasts the model has a plain token embedding: an inherited matrix times its map."""
    embeddings = model.text_model.embeddings
    inherited = embeddings.token_embedding
    if isinstance(inherited, nn.Sequential):
        with torch.no_grad():
            embeddings.token_embedding = nn.Embedding.from_pretrained(inherited[1](inherited[0].weight))
    try:
        yield
    finally:
        embeddings.token_embedding = inherited
