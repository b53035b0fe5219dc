"""The text tower that learns: new with a teacher's words, or an earlier one; written alone or as a whole encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, Tipsv2Model, Tipsv2TextConfig, Tipsv2TextModel

from tipsv2.checkpoints.weights import quiet, read_tokenizer, read_whole
from tipsv2.files import whole_folder
from train.data.phrase_batches import pad
from train.network.from_dinov2 import assemble
from train.network.inherited_words import embedding
from train.network.teachers import MAX_LENGTH
from train.run.checkpoint import export

HEAD = 64  # width of an attention head, as in all released towers
TEMPERATURE = 0.05  # of the encoder that is written; nothing here trains it. Cosines to patches differ by tenths
FOLDER = "text"  # in a run, the tower as plain transformers


def new_tower(matrix: Tensor, width: int, layers: int, padding: int) -> Tipsv2TextModel:
    """A random tower of `width` whose word embeddings are a teacher's [V, E]. Raises ValueError for an odd width."""
    if width % HEAD:
        raise ValueError(f"the targets are {width} wide, and a tower's width must be a multiple of {HEAD}.")
    config = Tipsv2TextConfig(
        vocab_size=len(matrix), hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
        num_attention_heads=width // HEAD, max_position_embeddings=MAX_LENGTH, pad_token_id=padding,
    )  # fmt: skip
    tower = Tipsv2TextModel._from_config(config, attn_implementation="sdpa")
    words = embedding(tower, matrix, frozen=False)
    if isinstance(words, nn.Sequential):  # the matrix trains: it may as well have the tower's width at once
        words = nn.Embedding.from_pretrained(words[1](words[0].weight).detach(), freeze=False)
    tower.embeddings.token_embedding = words
    return tower


def open_tower(base: Path) -> tuple[Tipsv2TextModel, PreTrainedTokenizerBase]:
    """The tower of a run of this command, or of the folder that it wrote, and its tokenizer. Raises ModelError."""
    folder = base / FOLDER if (base / FOLDER).is_dir() else base
    tower = read_whole(Tipsv2TextModel, folder, torch.float32, "sdpa")
    return tower, read_tokenizer(folder, tower.config.vocab_size)


def write_tower(tower: Tipsv2TextModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> Path:
    """As plain transformers opens it: Tipsv2TextModel and the tokenizer."""
    with whole_folder(folder) as part, quiet():
        tower.save_pretrained(part)
        tokenizer.save_pretrained(part)
    return folder


def write_encoder(
    tower: Tipsv2TextModel, tokenizer: PreTrainedTokenizerBase, vision: Tipsv2Model, folder: Path
) -> Path:
    """A whole Tipsv2Model: this text tower beside the vision tower of `vision`, which must be as wide."""
    return export(folder, assemble(vision.vision_model, tower, TEMPERATURE), tokenizer)


@torch.no_grad()
def embed(tower: Tipsv2TextModel, ids: Sequence[Sequence[int]], batch: int = 128) -> Tensor:
    """Tokens of N texts as [N, D], rows of length one; those of equal length go through together."""
    rows = torch.empty(len(ids), tower.config.hidden_size)
    for some in torch.tensor([len(tokens) for tokens in ids]).argsort(stable=True).split(batch):
        padded, mask = pad([ids[k] for k in some], tower.config.pad_token_id)
        pooled = tower(input_ids=padded, attention_mask=mask).pooler_output
        rows[some] = F.normalize(pooled.float(), dim=-1)
    return rows
