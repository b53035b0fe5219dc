"""The state of a divided objective (sharding=full) on the disk: every process writes the parts it holds, and any number
of processes, one too, reads them.

This is torch.distributed.checkpoint in safetensors files, shard-<process>-....safetensors, whose headers say where in
its tensor each part lies. So nothing is put together in one process's memory, and nothing is pickled.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed import checkpoint as parts

from train.parallel import distributed

PATTERN = "shard-*.safetensors"


def files(folder: Path) -> dict[str, int]:
    """The files of a checkpoint in parts and their sizes in bytes; none where it is another kind."""
    return {path.name: path.stat().st_size for path in sorted(folder.glob(PATTERN))}


def write(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write `tensors`, divided ones and such as are the same in every process; every process must call it."""
    writer = parts.HuggingFaceStorageWriter(str(folder), save_distributed=True)
    parts.save(_of_a_dimension(tensors), storage_writer=writer)


def shapes(folder: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """What a checkpoint holds: name -> shape, [1] for a number, and dtype."""
    known = parts.HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    return {name: (about.size, about.properties.dtype) for name, about in known.items()}


def read(folder: Path, tensors: Mapping[str, Tensor], alone: bool = False) -> None:
    """Fill `tensors` with what the checkpoint holds under their names. alone: only this process calls it, else all do.

    Raises whatever torch does where names or shapes are others or a file is damaged.
    """
    reader = parts.HuggingFaceStorageReader(str(folder))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that one process is alone
        parts.load(_of_a_dimension(tensors), storage_reader=reader, no_dist=alone or distributed.world() == 1)


def _of_a_dimension(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Numbers as vectors of one, in the same memory: safetensors reads a part of a tensor by its dimensions."""
    return {name: value.detach().view(1) if value.ndim == 0 else value.detach() for name, value in tensors.items()}
