"""python -m train COMMAND: make encoders, and what they are made from.

    python -m train pretrain --recipe nano --data scenes --out runs/nano
    python -m train distill --recipe nano-distill --teacher runs/nano/model --data scenes --out runs/nano-2
    python -m train finetune --base tipsv2-nano --data photos --out runs/mine
    python -m train textteacher --out runs/words
    python -m train sfclip --recipe sfclip --vision-teacher runs/nano/model --text-teacher runs/words --out runs/sfclip
    python -m train sparc --data scenes --out runs/sparc
    python -m train check photos --out sample.png
    python -m train caption photos --model HuggingFaceTB/SmolVLM-256M-Instruct --out captions.jsonl
    python -m train scenes --out scenes --count 10000 --size 224
    python -m train reproduce --out runs/table
    python -m train curves runs/nano runs/sparc --out curves.png

Any field of a recipe can be set after the flags: seed=1 stages.0.steps=200 'stages.*.size=112' (every stage).
pretrain, distill, finetune, sparc and sfclip take --resume (on exactly where a run stopped) and --dry-run (its cost).
distill ... distillation.generations=3 makes three students in a row, each the next one's teacher.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from train import claims, recipes, settings
from train.overrides import override

DATA = "a folder, table (.csv .tsv .jsonl .parquet), tar shards ('shards/*.tar') or hf:owner/name, of captioned images"
NEEDS = {  # what a command cannot do without, for its example
    "distill": "--teacher runs/nano/model ",
    "finetune": "--base tipsv2-nano ",
    "sfclip": "--vision-teacher runs/nano/model --text-teacher runs/words ",
}


def main(arguments: list[str] | None = None) -> int:
    """Run a sub-command; returns the exit status. Mistakes give one sentence on stderr and status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, default, text in (
        ("pretrain", "nano", "TIPSv2 pretraining: contrastive on two CLS tokens, iBOT++, DINO, head-only EMA"),
        ("distill", "nano-distill", "patch-level distillation from a frozen teacher into a fresh vision tower"),
        ("finetune", "finetune", "go on from a trained encoder on your own images and captions, all of it or LoRA"),
        ("sparc", "sparc", "contrastive beside words that find their patches in each image, after SPARC"),
        ("sfclip", "sfclip", "contrastive and masked distillation from unimodal teachers, after SF-CLIP"),
    ):
        command = commands.add_parser(
            name,
            help=text,
            description=text,
            epilog=f"example: python -m train {name} --recipe {default} "
            + NEEDS.get(name, "")
            + "--data scenes --out runs/new seed=1",
        )
        command.add_argument(
            "--recipe", default=default, help=f"one of {', '.join(recipes.RECIPES)} (default {default})"
        )
        command.add_argument("--data", default="scenes", help=f"scenes (the bundled data set), or {DATA}")
        command.add_argument("--out", type=Path, required=True, help="the run's folder")
        command.add_argument("--resume", action="store_true", help="go on exactly where the run in --out stopped")
        command.add_argument(
            "--dry-run",
            action="store_true",
            help="train nothing: print the recipe and what it takes",
        )
        if name == "distill":
            command.add_argument("--teacher", required=True, help="a model folder, a bundled name or a Hub id")
        if name == "finetune":
            command.add_argument("--base", required=True, help="a bundled name, a model folder or a Hub id")
        if name == "sfclip":
            command.add_argument("--vision-teacher", default="", help="a vision model; left out, so is its term")
            command.add_argument("--text-teacher", default="", help="a text model; left out, so are its term and words")
        command.add_argument("overrides", nargs="*", metavar="key=value", help="fields of the recipe")
    _data_commands(commands)
    scenes = commands.add_parser(
        "scenes",
        help="write drawn scenes as webdataset shards (jpg, json, png)",
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
        epilog="example: python -m train textteacher --out runs/words",
    )
    words.add_argument("--out", type=Path, required=True, help="folder for the teacher")
    words.add_argument("--steps", type=int, default=200, help="how many (default 200)")
    words.add_argument("--seed", type=int, default=0, help="of its weights and texts (default 0)")
    curves = commands.add_parser(
        "curves",
        help="draw the losses and the alignment of runs as one picture",
        epilog="example: python -m train curves runs/nano runs/sparc --out curves.png",
    )
    curves.add_argument("runs", type=Path, nargs="+", help="run folders")
    curves.add_argument("--chain", action="store_true", help="end to end, for runs that go on from one another")
    curves.add_argument("--out", type=Path, default=Path("curves.png"), help="the picture (default curves.png)")
    benchmark = commands.add_parser(
        "benchmark",
        help="ratios of step times on this machine: head-only EMA, precision and attention, cost of patches and images",
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
    options, more = parser.parse_known_args(arguments)  # argparse leaves key=value after a later flag unread
    if wrong := [a for a in more if a.startswith("-") or "=" not in a or "overrides" not in options]:
        parser.error(f"unrecognized arguments: {' '.join(wrong)}")
    if more:
        options.overrides += more
    try:
        if options.command == "scenes":
            from train.data.shards import write_shards

            paths = write_shards(options.out, options.count, options.size, options.seed, options.styles.split(","))
            print(f"{options.count} scenes of {options.size} px in {options.out}, shards: {len(paths)}")
        elif options.command == "textteacher":
            from train.multilingual import train_teacher

            for name, share in train_teacher(options.out, options.steps, options.seed).items():
                print(f"{name}: {share:.3f} of the translations are nearest to their own English name")
        elif options.command == "curves":
            from train.curves import plot

            print(plot(options.runs, options.out, options.chain))
        elif options.command == "benchmark":
            from train import benchmark as measure

            found = measure.run()
            print(json.dumps(found) if options.json else json.dumps(found, indent=2))
            if options.out:
                measure.plot(found, options.out)
        elif options.command == "reproduce":
            _reproduce(options)
        elif options.command == "check":
            _check(options)
        elif options.command == "caption":
            _caption(options)
        else:
            _train(options)
    except (ValueError, FloatingPointError, OSError) as error:
        print(f"{error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"interrupted at once; {_going_on(options)}.", file=sys.stderr)
        return 130
    return 0


def _going_on(options: argparse.Namespace) -> str:
    """What an interrupted command leaves, and how one goes on."""
    if options.command in ("reproduce", "scenes", "caption"):
        return "what is finished stands, go on with the same command"
    out = getattr(options, "out", None)
    if out and any(out.glob("**/recipe.json")):  # without a checkpoint --resume starts from the beginning
        return "what was saved stands, go on with --resume"
    return "nothing was saved, so start again"


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


def _reproduce(options: argparse.Namespace) -> None:
    from train import reproduce, tables

    rows = [name for name in options.rows.split(",") if name]
    if not options.table:
        seeds = options.seeds.split(",")
        if not all(seed.isdecimal() and int(seed) for seed in seeds):
            raise ValueError(f"--seeds {options.seeds}: whole numbers from 1 with commas, for example 1,2,3.")
        reproduce.run(options.out, rows, tuple(map(int, seeds)), options.jobs)
    print(tables.write(options.out))


def _data(options: argparse.Namespace) -> settings.Data:
    none = settings.Recipe(name="none", command=options.command, stages=())
    return override(none, [f"data.source={options.data}", *options.overrides]).data


def _check(options: argparse.Namespace) -> None:
    data = _data(options)
    from train.check import draw, look_through

    report = look_through(data, options.limit)
    print(report)
    if report.shown:
        print(f"{len(report.shown)} of them are drawn in {draw(report.shown, options.out)}")
    if report.refusal:
        raise ValueError(report.refusal)


def _caption(options: argparse.Namespace) -> None:
    data = _data(options)
    if options.out.suffix != ".jsonl":
        raise ValueError(f"--out {options.out}: the table's name must end in .jsonl.")
    from train.caption import caption

    prompts = {role: text for role in ("short", "detailed") if (text := getattr(options, role))}
    added, problems = caption(data, options.model, options.out, prompts, options.batch_size, options.max_tokens)
    print(f"{added} lines added to {options.out}; {len(problems)} images left out")
    for problem in problems[:5]:
        print(f"  {problem}", file=sys.stderr)


def _teachers(options: argparse.Namespace) -> list[str]:
    """The fields of `sfclip` that the flags set: a teacher that is not given leaves its part out."""
    if not (options.vision_teacher or options.text_teacher):
        raise ValueError("sfclip needs --vision-teacher, --text-teacher or both.")
    without_vision = ["sfclip.vision_weight=0"] if not options.vision_teacher else []
    without_text = ["sfclip.text_weight=0", "sfclip.words=own"] if not options.text_teacher else []
    names = [f"sfclip.{kind}_teacher={getattr(options, f'{kind}_teacher')}" for kind in ("vision", "text")]
    return names + without_vision + without_text


def _train(options: argparse.Namespace) -> None:
    given = [f"data.source={options.data}"]
    if options.command == "distill":
        given.append(f"distillation.teacher={options.teacher}")
    if options.command == "sfclip":
        given += _teachers(options)
    if options.command == "finetune":
        given.append(f"tuning.base={options.base}")
    recipe = override(recipes.get(options.recipe), given + options.overrides)
    if recipe.command != options.command:
        raise ValueError(f"recipe {recipe.name} is for `python -m train {recipe.command}`, not {options.command}.")
    from train import run  # torch and transformers take seconds to import; --help and mistakes above need neither

    run.start(recipe, options.out, options.resume, options.dry_run)


if __name__ == "__main__":
    sys.exit(main())
