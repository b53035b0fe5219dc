"""The command line of python -m train: its commands and their flags, and what to write for what they do not know.

options = parse(["finetune", "--base", "tipsv2-nano", "--out", "runs/mine", "tuning.part=lora"])
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from train import claims, recipes
from train.overrides import meant
from train.settings import near

DATA = (
    "a folder, table (.csv .tsv .jsonl .parquet), tar shards ('shards/*.tar') or hf:owner/name, of captioned images, "
    "or folder:PATH, labelled pictures (docs/evaluate.md)"
)
TRAINING = {  # command -> its usual recipe, what it does
    "pretrain": ("nano", "TIPSv2 pretraining: contrastive on two CLS tokens, iBOT++, DINO, head-only EMA"),
    "distill": ("nano-distill", "patch-level distillation from a frozen teacher into a fresh vision tower"),
    "finetune": ("finetune", "go on from a trained encoder on your own images and captions, all of it or LoRA"),
    "sparc": ("sparc", "contrastive beside words that find their patches in each image, after SPARC"),
    "sfclip": ("sfclip", "contrastive and masked distillation from unimodal teachers, after SF-CLIP"),
}
NEEDS = {  # what a command cannot do without, for its examples
    "distill": " --teacher runs/nano/model",
    "finetune": " --base tipsv2-nano",
    "sfclip": " --vision-teacher runs/nano/model --text-teacher runs/words",
}
FIELDS = {  # three that suit one's own photos
    "pretrain": {
        "stages.*.steps=500": "of every stage of the recipe",
        "stages.0.batch_size=32": "of the first",
        "data.crop_min=0.9": "the least share of a photo that a crop keeps",
    },
    "distill": {
        "stages.*.steps=500": "of every stage of the recipe",
        "stages.*.batch_size=32": "images a step",
        "distillation.target=final": "the teacher's last layer, not its value features",
    },
    "finetune": {
        "tuning.part=lora": "small updates beside the weights learn",
        "tuning.part=last": "the last blocks learn, the rest keeps its bits",
        "stages.*.steps=500": "of every stage of the recipe",
    },
    "sparc": {
        "stages.*.steps=500": "of every stage of the recipe",
        "stages.0.batch_size=32": "of the first",
        "data.crop_min=0.9": "the least share of a photo that a crop keeps",
    },
    "sfclip": {
        "stages.*.steps=500": "of every stage of the recipe",
        "stages.*.batch_size=32": "images a step",
        "sfclip.share=0.5": "of a batch that is masked and distilled",
    },
}


def parse(arguments: list[str], description: str) -> argparse.Namespace:
    """The flags, and under `overrides` every key=value wherever it stands.

    Raises ValueError for an unknown command, a field written as a flag, or a folder that is missing; what else is
    wrong ends the program as argparse does.
    """
    parser = argparse.ArgumentParser(
        prog="python -m train", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in TRAINING:
        _training_command(commands, name)
    _data_commands(commands)
    _plain_commands(commands)
    if arguments and not arguments[0].startswith("-") and arguments[0] not in commands.choices:
        known = ", ".join(commands.choices)
        raise ValueError(
            f"there is no command {arguments[0]!r}: choose {known}{near(arguments[0], commands.choices) or '.'}"
        )
    options, more = parser.parse_known_args(arguments)  # argparse leaves key=value after a later flag unread
    if wrong := [a for a in more if a.startswith("-") or "=" not in a or "overrides" not in options]:
        if wrong[0].startswith("--") and "overrides" in options:
            raise ValueError(_as_field(wrong[0], arguments))
        commands.choices[options.command].error(f"unrecognized arguments: {' '.join(wrong)}")
    if more:
        options.overrides += more
    if options.command in TRAINING:
        _complete(options)
    return options


def _as_field(flag: str, arguments: list[str]) -> str:
    """What to write in the place of a flag that there is not."""
    name, _, value = flag.removeprefix("--").partition("=")
    rest = arguments[arguments.index(flag) + 1 :]
    value = value or (rest[0] if rest and not rest[0].startswith("-") else "VALUE")
    hint = meant(name.replace("-", "_"), value)
    return f"there is no flag --{name}; fields are given as key=value, without dashes{hint or '.'}"


def _complete(options: argparse.Namespace) -> None:
    """Raises ValueError if a run has no folder, or lacks what only the run that it goes on with could tell."""
    example = f"python -m train {options.command}{NEEDS.get(options.command, '')}"
    if options.out is None and (options.resume or not options.dry_run):
        raise ValueError(f"--out is missing: name the run's folder, for example {example} --out runs/new")
    if options.resume:
        return
    for flag in ("teacher", "base"):
        if getattr(options, flag, "given") is None:
            raise ValueError(f"--{flag} is missing, the encoder to start from: for example {example} --out runs/new")
    if options.command == "sfclip" and not (options.vision_teacher or options.text_teacher):
        raise ValueError("sfclip needs --vision-teacher, --text-teacher or both.")


def _training_command(commands, name: str) -> None:
    default, text = TRAINING[name]
    run = f"python -m train {name}"
    start = f"{run}{NEEDS.get(name, '')} --data photos --out runs/mine"
    fields = "\n".join(f"  {field:<26} {what}" for field, what in FIELDS[name].items())
    first = shlex.quote(next(iter(FIELDS[name])))
    command = commands.add_parser(
        name,
        help=text,
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Any field of the recipe can be given as key=value, 'stages.*' for all its stages; --dry-run prints\n"
        f"them, train/settings.py explains them.\n\n{fields}\n\n"
        f"examples:\n  {start}\n  {start} {first}\n  {run} --out runs/mine --resume",
    )
    fitting = [key for key, make in recipes.RECIPES.items() if make().command == name]
    command.add_argument("--recipe", metavar="NAME", help=f"one of {', '.join(fitting)} (default {default})")
    command.add_argument("--data", help=f"scenes (the bundled data set, the default), or {DATA}")
    command.add_argument("--out", type=Path, help="the run's folder")
    command.add_argument(
        "--resume", action="store_true", help="go on exactly where the run in --out stopped; nothing else is needed"
    )
    command.add_argument(
        "--dry-run", action="store_true", help="train nothing: print the recipe and what it takes (without --out, too)"
    )
    if name == "distill":
        command.add_argument("--teacher", help="a model folder, a bundled name or a Hub id")
    if name == "finetune":
        command.add_argument("--base", help="a bundled name, a model folder or a Hub id")
    if name == "sfclip":
        command.add_argument("--vision-teacher", default="", help="a vision model; left out, so is its term")
        command.add_argument("--text-teacher", default="", help="a text model; left out, so are its term and words")
    command.add_argument("overrides", nargs="*", metavar="key=value", help="fields of the recipe, see below")


def _data_commands(commands) -> None:
    check = commands.add_parser(
        "check",
        help="look through images with captions before training on them",
        description="Count, statistics, what cannot be used, how columns are read, and six pairs as one picture.",
        epilog="example: python -m train check photos/captions.csv --out sample.png data.web=alt_text",
    )
    check.add_argument("data", help=DATA)
    check.add_argument("--out", type=Path, default=Path("sample.png"), help="the picture (default sample.png)")
    check.add_argument("--limit", type=int, default=0, help="look at the first so many only (default all)")
    check.add_argument("overrides", nargs="*", metavar="key=value", help="fields of data: data.web=COLUMN")
    caption = commands.add_parser(
        "caption",
        help="write short and detailed captions with a vision-language model",
        description="Adds the captions that are missing; stopped and started again, it goes on.",
        epilog="example: python -m train caption photos --model HuggingFaceTB/SmolVLM-256M-Instruct --out all.jsonl",
    )
    caption.add_argument("data", help=DATA)
    caption.add_argument("--model", required=True, help="folder or Hub id of an image-text-to-text model")
    caption.add_argument("--out", type=Path, required=True, help="the table to write (.jsonl)")
    caption.add_argument("--short", default="", help="the prompt for short captions")
    caption.add_argument("--detailed", default="", help="the prompt for detailed captions")
    caption.add_argument("--batch-size", type=int, default=8, help="images at once (default 8)")
    caption.add_argument("--max-tokens", type=int, default=128, help="longest caption (default 128)")
    caption.add_argument("overrides", nargs="*", metavar="key=value", help="fields of data: data.image=COLUMN")


def _plain_commands(commands) -> None:
    scenes = commands.add_parser(
        "scenes",
        help="write drawn scenes as webdataset shards (jpg, json, png)",
        description="Draw scenes of the bundled data set, with their captions and label maps, into tars.",
        epilog="example: python -m train scenes --out scenes --count 10000 --size 224",
    )
    scenes.add_argument("--out", type=Path, required=True, help="folder for the shards")
    scenes.add_argument("--count", type=int, default=1000, help="how many (default 1000)")
    scenes.add_argument("--size", type=int, default=224, help="side in pixels (default 224)")
    scenes.add_argument("--seed", type=int, default=0, help="first scene (default 0)")
    scenes.add_argument("--styles", default="fluent,noto", help="drawing styles (default fluent,noto)")
    words = commands.add_parser(
        "textteacher",
        help="a small multilingual text teacher for sfclip, from the bundled data's names",
        description="Train a small text encoder that puts translations of a name together, for sfclip --text-teacher.",
        epilog="example: python -m train textteacher --out runs/words",
    )
    words.add_argument("--out", type=Path, required=True, help="folder for the teacher")
    words.add_argument("--steps", type=int, default=200, help="how many (default 200)")
    words.add_argument("--seed", type=int, default=0, help="of its weights and texts (default 0)")
    curves = commands.add_parser(
        "curves",
        help="draw the losses and the alignment of runs as one picture",
        description="Draw every loss, and how well patches fit words, over the images that the runs have seen.",
        epilog="example: python -m train curves runs/nano runs/sparc --out curves.png",
    )
    curves.add_argument("runs", type=Path, nargs="+", help="run folders")
    curves.add_argument("--chain", action="store_true", help="end to end, for runs that go on from one another")
    curves.add_argument("--out", type=Path, default=Path("curves.png"), help="the picture (default curves.png)")
    benchmark = commands.add_parser(
        "benchmark",
        help="ratios of step times on this machine: head-only EMA, precision and attention, cost of patches and images",
        description="Time training steps on this machine, and print what each choice costs as a ratio of two times.",
        epilog="example: python -m train benchmark --json --out cost.png",
    )
    benchmark.add_argument("--json", action="store_true", help="print one line of JSON")
    benchmark.add_argument("--out", type=Path, help="also draw seconds a step over patches and images as this picture")
    reproduce = commands.add_parser(
        "reproduce",
        help="the papers' claims side by side on bundled scenes: hours, and it goes on where it stopped",
        description="Train and score what is missing of the table, then write table.md and table.png.",
        epilog=f"rows: {', '.join(row.name for row in claims.ROWS)}. "
        "example: python -m train reproduce --out runs/table --rows ibot,ibot++ --seeds 1,2,3",
    )
    reproduce.add_argument("--out", type=Path, required=True, help="folder of the records, the table and the picture")
    reproduce.add_argument("--rows", default="", help="names with commas, or 'try-*' (default all but try-*)")
    reproduce.add_argument("--seeds", default="1,2,3", help="numbers with commas, from 1 (default 1,2,3)")
    reproduce.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each (default 2)")
    reproduce.add_argument("--table", action="store_true", help="train nothing, write the table of what is there")
