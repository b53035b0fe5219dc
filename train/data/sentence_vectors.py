"""What the teacher says of every phrase: computed once, kept on the disk, and where asked carried over a bridge.

A folder holds phrases.txt (one a line), vectors.npy (float16 [N, W], rows of length one; not-a-number where a phrase
was not read yet, so that a stopped reading goes on) and teacher.json (whose they are).
Sizes: N phrases, W the teacher's width, D the target's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from tipsv2.checkpoints.weights import digest_of
from tipsv2.files import whole_file
from train.data.phrase_batches import pad
from train.network.teachers import TextTeacher

SLICE = 2048  # phrases that are read before what is known is on the disk
BATCH = 128
PHRASES, VECTORS, TEACHER = "phrases.txt", "vectors.npy", "teacher.json"


def sentence_vectors(teacher: TextTeacher, ids: Sequence[Sequence[int]]) -> Tensor:
    """The mean over all tokens of the teacher's features, of length one: [N, W] float32. Sentence-BERT's reading.

    ids: tokens of N phrases as the teacher's own tokenizer gives them, [CLS] and [SEP] with them.
    """
    padded, mask = pad(ids, teacher.tokenizer.pad_token_id)
    features = teacher.read(padded, mask)
    return F.normalize((features * mask[..., None]).sum(1), dim=-1)  # of length one: the sum does as the mean


def teach(
    teacher: TextTeacher, phrases: Sequence[str], folder: Path, known: Path | None = None, show: bool = True
) -> np.ndarray:
    """The teacher's vectors of `phrases`, in `folder`: a memory map, float16 [N, W].

    What `folder` holds of the same phrases and teacher is taken up; what `known`, another such folder of this teacher,
    holds is copied. Raises ValueError if a phrase has more than one line.
    """
    if any("\n" in phrase for phrase in phrases):
        raise ValueError("a phrase has more than one line: names and definitions must not.")
    about = _whose(teacher)
    if holds(teacher, phrases, folder):
        vectors = np.load(folder / VECTORS, mmap_mode="r+")
    else:
        vectors = _begin(folder, phrases, about)
        if known is not None and _about(known) == about:
            rows = {phrase: row for row, phrase in enumerate(_lines(known))}
            old = np.load(known / VECTORS, mmap_mode="r")
            for row, phrase in enumerate(phrases):
                if phrase in rows:
                    vectors[row] = old[rows[phrase]]
    missing = np.flatnonzero(np.isnan(vectors[:, 0]))
    if len(missing):
        ids = teacher.tokenizer([phrases[row] for row in missing], truncation=True)["input_ids"]
        order = sorted(range(len(missing)), key=lambda k: len(ids[k]))
        with tqdm(total=len(missing), unit="phrase", desc="the teacher reads", disable=not show) as bar:
            for start in range(0, len(order), SLICE):
                some = order[start : start + SLICE]
                for first in range(0, len(some), BATCH):
                    batch = some[first : first + BATCH]
                    vectors[missing[batch]] = sentence_vectors(teacher, [ids[k] for k in batch]).cpu().numpy()
                    bar.update(len(batch))
                vectors.flush()
    return np.load(folder / VECTORS, mmap_mode="r")


def holds(teacher: TextTeacher, phrases: Sequence[str], folder: Path) -> bool:
    """Whether `folder` is of this teacher and these phrases, read already or not."""
    return _about(folder) == _whose(teacher) and _lines(folder) == list(phrases)


class Bridge(nn.Module):
    """From a teacher's sentence vector to where the images are: two linear layers with GELU between them."""

    def __init__(self, width: int, hidden: int, out: int):
        super().__init__()
        self.map = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, out))

    @torch.no_grad()
    def forward(self, vectors: Tensor) -> Tensor:
        """[N, W] of length one -> [N, D] of length one."""
        return F.normalize(self.map(vectors), dim=-1)


def open_bridge(file: Path, width: int) -> Bridge:
    """A bridge out of safetensors: 0.weight [H, W], 0.bias, 2.weight [D, H], 2.bias. Raises ValueError otherwise."""
    try:
        state = load_file(file)
        (hidden, _), (out, _) = state["0.weight"].shape, state["2.weight"].shape
        bridge = Bridge(width, hidden, out)
        bridge.map.load_state_dict({key: value.float() for key, value in state.items()})
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
        raise ValueError(
            f"--bridge {file} cannot be used ({reason}): it must hold 0.weight [H, {width}], 0.bias, 2.weight [D, H] "
            "and 2.bias as safetensors."
        ) from error
    return bridge.requires_grad_(False)


def _whose(teacher: TextTeacher) -> dict:
    return {"digest": digest_of(teacher.model), "width": teacher.width}


def _begin(folder: Path, phrases: Sequence[str], about: dict) -> np.memmap:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TEACHER).unlink(missing_ok=True)  # first: until all three are there, nothing counts
    vectors = np.lib.format.open_memmap(folder / VECTORS, "w+", np.float16, (len(phrases), about["width"]))
    vectors[:] = np.nan
    vectors.flush()
    (folder / PHRASES).write_text("\n".join(phrases) + "\n", encoding="utf-8")
    with whole_file(folder / TEACHER) as part:
        part.write_text(json.dumps(about) + "\n")
    return vectors


def _about(folder: Path) -> dict | None:
    try:
        return json.loads((folder / TEACHER).read_text())
    except (OSError, ValueError):
        return None


def _lines(folder: Path) -> list[str]:
    return (folder / PHRASES).read_text("utf-8").removesuffix("\n").split("\n")
