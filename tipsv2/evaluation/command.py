"""The evaluate command: a task, a data set, an encoder -> a table or one line of JSON, and with --out a record.

    python -m tipsv2 evaluate segmentation --data scenes:val --model opentips-nano --json
    python -m tipsv2 evaluate segmentation --data ade20k:/data/ADEChallengeData2016 --protocol slide --out out/ade

A task is a module. `add_arguments(parser)` adds its own flags, whose names are keyword arguments of its
`evaluate(encoder, data, *, resolution, limit, out, progress, **own) -> dict` of numbers that JSON can hold. A module is
imported when its task is asked for, so that nobody waits for the others.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

RECORD = "record.json"
DATA = "scenes:val"
HELP = {"-h", "--help"}
COMMON = ("run", "task", "data", "model", "device", "dtype", "limit", "resolution", "out", "json")


class Task(NamedTuple):
    """Where a task's code is, as which task its data are opened (`tipsv2.evaluation.layouts`), what it measures."""

    module: str
    data: str
    summary: str


TASKS = {
    "segmentation": Task(
        "tipsv2.evaluation.segmentation.zero_shot",
        "segmentation",
        "zero-shot segmentation: which class is every pixel?",
    ),
    "classification": Task(
        "tipsv2.evaluation.tasks.classification",
        "classification",
        "zero-shot classification: which class is the image?",
    ),
    "retrieval": Task("tipsv2.evaluation.tasks.retrieval", "retrieval", "image to text and text to image"),
    "segmentation_probe": Task(
        "tipsv2.evaluation.segmentation.linear", "segmentation", "linear segmentation: a layer on frozen patches"
    ),
    "depth": Task("tipsv2.evaluation.tasks.depth", "depth", "depth in metres: a layer on frozen patches, or DPT heads"),
    "normals": Task(
        "tipsv2.evaluation.tasks.normals", "normals", "surface normals: a layer on frozen patches, or DPT heads"
    ),
    "knn": Task("tipsv2.evaluation.tasks.knn", "knn", "classification by the nearest training images"),
    "probe": Task("tipsv2.evaluation.tasks.probe", "probe", "a linear classifier on frozen embeddings"),
    "instances": Task("tipsv2.evaluation.tasks.instances", "instances", "find the other pictures of the same thing"),
}


class _TaskParser(argparse.ArgumentParser):
    """Learns a task's own flags, and what its --help says, when arguments reach it."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        task = self.get_default("task")
        if self.description is None:
            module = import_module(TASKS[task].module)
            module.add_arguments(self)
            self.description = module.__doc__
        return super().parse_known_args(args, namespace)


def add_command(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `evaluate` to the command line. command: the function in tipsv2.__main__ that adds a sub-command."""
    parser = command(
        "evaluate",
        run,
        "Measure an encoder on a data set and print a table, or one line of JSON.",
        "evaluate segmentation --data scenes:val --model opentips-nano --json\n"
        "  python -m tipsv2 evaluate segmentation --data ade20k:/data/ADEChallengeData2016 --out out/ade20k\n"
        "  python -m tipsv2 evaluate segmentation --help",
    )
    tasks = parser.add_subparsers(title="tasks", metavar="TASK", required=True, parser_class=_TaskParser)
    for name, task in TASKS.items():
        added = tasks.add_parser(name, help=task.summary, formatter_class=argparse.RawDescriptionHelpFormatter)
        added.set_defaults(task=name)
        added.add_argument(
            "--data",
            default=DATA,
            help="scenes:val, scenes:style, a folder, or LAYOUT:FOLDER; folder:FOLDER is your own labelled pictures, "
            "and retrieval takes your own captioned images (default: %(default)s)",
        )
        added.add_argument(
            "--model", default="auto", help="auto, opentips-nano, google/tipsv2-b14, a folder, ... (default: auto)"
        )
        added.add_argument("--device", default="auto", help="auto, cpu, cuda, mps (default: auto)")
        added.add_argument(
            "--dtype", default="auto", help="auto, float32, bfloat16, float16, on a CPU int8 (default: auto)"
        )
        added.add_argument("--limit", type=int, help="only the first so many samples")
        added.add_argument(
            "--resolution", type=int, help="short side in pixels that the network sees (default: as trained)"
        )
        added.add_argument(
            "--out", type=Path, metavar="DIR",
            help=f"write {RECORD} and pictures here, and keep what is known: after a stop the same command goes on",
        )  # fmt: skip
        added.add_argument("--json", action="store_true", help="print one line of JSON; the rest goes to stderr")


def look(arguments: Sequence[str]) -> None:
    """Raises ValueError where an evaluate command names data or an encoder that are not there. A task's code, which
    knows its flags, takes seconds to import: a wrong path should not cost them.
    """
    if len(arguments) < 2 or arguments[0] != "evaluate" or arguments[1] not in TASKS or HELP & set(arguments):
        return
    from tipsv2.checkpoints.catalogue import find
    from tipsv2.collections.sources import check_place
    from tipsv2.evaluation.layouts import OWN, SCENES, recognise
    from tipsv2.evaluation.shared.own_captions import is_own

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--data", default=DATA)
    parser.add_argument("--model", default="auto")
    parser.add_argument("--images")
    try:
        given, _ = parser.parse_known_args(arguments[2:])
    except argparse.ArgumentError:  # the task's own parser says what is wrong
        return
    task = TASKS[arguments[1]].data
    if is_own(task, given.data) or (given.data.partition(":")[0] == OWN and not given.images):
        check_place(given.data)
    elif given.data.partition(":")[0] != SCENES and not given.images:
        recognise(task, given.data)
    find(given.model)


def run(options: argparse.Namespace) -> None:
    """The evaluate command. Raises ValueError or OSError with one sentence for whoever typed it."""
    from tipsv2.evaluation import as_text
    from tipsv2.evaluation.layouts import HELD_OUT, SCENES, folder, open_data
    from tipsv2.evaluation.shared.own_captions import is_own, open_own

    task = TASKS[options.task]
    module = import_module(task.module)
    folder.take_arguments(options)
    # Before the model: wrong data should not cost its loading.
    if is_own(task.data, options.data):
        for note in open_own(options.data, options.captions, options.columns).pairs.notes:
            print(note, file=sys.stderr)
    elif options.data.partition(":")[0] != SCENES:
        probed = options.task == "segmentation_probe"
        split = open_data(task.data, options.data, HELD_OUT if probed else None)
        if probed:
            open_data(task.data, options.data, "train")
        print(f"{options.data}: {split.layout}, part {split.part}, {len(split.samples)} images", file=sys.stderr)
        for note in split.notes:
            print(note, file=sys.stderr)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
    from tipsv2.analysis.depth import load_dpt
    from tipsv2.network.encoder import load

    opened = load_dpt if getattr(options, "head", None) == "dpt" else load
    encoder = opened(options.model, options.device, options.dtype)
    print(encoder, file=sys.stderr)
    own = {name: value for name, value in vars(options).items() if name not in COMMON}
    try:
        numbers = module.evaluate(
            encoder,
            options.data,
            resolution=options.resolution,
            limit=options.limit,
            out=options.out,
            progress=True,  # on stderr: with --json, too, hours are not to pass in silence
            **own,
        )
    except KeyboardInterrupt:
        if options.out is not None:
            print(f"tipsv2: what is known is kept in {options.out}: the same command goes on.", file=sys.stderr)
        raise
    if options.out is not None:
        from tipsv2.records import identity, write_record

        write_record(options.out / RECORD, numbers, [identity(encoder)])
    print(json.dumps(numbers, ensure_ascii=False) if options.json else as_text(numbers))
    if options.out is not None:
        print(f"written to {options.out}", file=sys.stderr)
