"""The embed command.

python -m tipsv2 embed photos --out embedded --model google/tipsv2-b14 --captions
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tipsv2.collections.embed import BATCH_SIZE, SHARD_SIZE, SHARD_SIZE_PATCHES, embed
from tipsv2.collections.parts import COLUMNS, named_columns
from tipsv2.collections.sources import check_place

if TYPE_CHECKING:
    import argparse


def add_command(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `embed` to the command line. command: the function in tipsv2.__main__ that adds a sub-command."""
    parser = command(
        "embed",
        run,
        "Embed a whole collection: ids and vectors as parquet, patch grids as safetensors. Run again, it goes on.",
        "embed photos --out embedded --model google/tipsv2-b14\n"
        "  python -m tipsv2 embed table.csv --out embedded --captions --data-columns data.image=photo data.web=alt\n"
        "  torchrun --nproc-per-node 2 -m tipsv2 embed 'shards/*.tar' --out embedded --patches\n"
        "  python -m tipsv2 embed scenes --limit 20000 --out embedded --part 1/2      # and 2/2 elsewhere",
    )
    parser.add_argument(
        "data", help="a folder, a table (csv, tsv, jsonl, parquet), tars, hf:owner/name, scenes or scenes:val"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write, or to go on with")
    parser.add_argument(
        "--model", default="auto", help="auto, opentips-nano, google/tipsv2-b14, a folder, ... (default: auto)"
    )
    parser.add_argument("--patches", action="store_true", help="also keep the patch grids, in float16")
    parser.add_argument(
        "--features", choices=("values", "final"), help="with --patches: which patch features (default: values)"
    )
    parser.add_argument("--captions", action="store_true", help="also embed the captions")
    parser.add_argument("--resolution", type=int, help="short side in pixels that the network sees (default: trained)")
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE, metavar="N", help="(default: %(default)s)")
    parser.add_argument(
        "--shard-size",
        type=int,
        metavar="N",
        help=f"images in a file (default: {SHARD_SIZE}; {SHARD_SIZE_PATCHES} of patches)",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only so many images; of scenes (default: 10000)")
    parser.add_argument(
        "--data-columns",
        nargs="+",
        default=[],
        metavar="data.KEY=COLUMN",
        help=f"where names do not say it; keys: {', '.join(COLUMNS)}",
    )
    parser.add_argument(
        "--part", metavar="K/N", help="do the K-th of N shares (default: as torchrun or accelerate launch say, or all)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="that read and resize ahead (default: up to 8)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default: auto)")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float16 (default: auto)")


def run(options: argparse.Namespace) -> None:
    """The embed command. Raises ValueError or OSError with one sentence for whoever typed it."""
    from tipsv2.checkpoints.catalogue import find
    from tipsv2.scenes.splits import is_scenes

    columns, worker = named_columns(options.data_columns), _worker(options.part)
    if options.features and not options.patches:
        raise ValueError("--features says which patches are kept: give --patches, too, or leave it out.")
    if not is_scenes(options.data):
        check_place(options.data)
    find(options.model)

    from tipsv2.network.encoder import load  # after what can be wrong: it takes seconds

    encoder = load(options.model, _device(options.device), options.dtype)
    print(encoder, file=sys.stderr)
    try:
        manifest = embed(
            encoder,
            options.data,
            options.out,
            (options.features or "values") if options.patches else "",
            options.captions,
            options.resolution,
            options.batch_size,
            options.shard_size,
            columns,
            options.limit,
            worker,
            options.threads,
        )
    except KeyboardInterrupt:
        print(f"what is finished is kept in {options.out}: the same command goes on.", file=sys.stderr)
        raise
    if not manifest["complete"]:
        print(f"part {worker[0]} of {worker[1]} is done; {options.out} is complete once the others are.")
        return
    lost, where = manifest["unreadable"], Path(options.out) / "unreadable"
    if not manifest["images"]:
        raise ValueError(f"{options.data}: none of its images can be read; {where} says why.")
    print(
        f"{manifest['images']} images"
        + f" and {manifest['captions']} captions" * options.captions
        + f" in {options.out}"
    )
    if lost:
        print(f"left out, since they cannot be read: {lost}, listed in {where}")


def _worker(part: str | None) -> tuple[int, int]:
    """(k, n) of "k/n", or as the launcher says."""
    if part is None:
        return int(os.environ.get("RANK", 0)) + 1, int(os.environ.get("WORLD_SIZE", 1))
    match = re.fullmatch(r"(\d+)/(\d+)", part)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError(f"--part {part}: write K/N, such as 1/4 for the first of four shares.")
    return int(match[1]), int(match[2])


def _device(device: str) -> str:
    """With several processes on a machine with several GPUs, each has its own."""
    import torch

    rank = os.environ.get("LOCAL_RANK")
    if device not in ("auto", "cuda") or rank is None or torch.cuda.device_count() < 2:
        return device
    return f"cuda:{int(rank) % torch.cuda.device_count()}"
