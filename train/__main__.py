"""python -m train COMMAND: make encoders, and what they are made from.

    python -m train pretrain --recipe nano --data scenes --out runs/nano
    python -m train distill --recipe nano-distill --teacher runs/nano/model --data scenes --out runs/nano-2
    python -m train finetune --base opentips-nano --data photos --out runs/mine
    python -m train textteacher --out runs/words
    python -m train foundations --out foundations
    python -m train text --teacher foundations/minilm --wordnet foundations/nouns.jsonl --out runs/text
    python -m train assemble --vision foundations/dinov2-s14 --text foundations/minilm --out runs/start
    python -m train keep folder:photos --vision runs/start --blocks 9 --crops 10 --out kept/photos
    python -m train sfclip --recipe sfclip --vision-teacher runs/nano/model --text-teacher runs/words --out runs/sfclip
    python -m train sparc --data scenes --out runs/sparc
    python -m train check photos --out sample.png
    python -m train caption photos --model HuggingFaceTB/SmolVLM-256M-Instruct --out captions.jsonl
    python -m train scenes --out scenes --count 10000 --size 224
    python -m train reproduce --out runs/table
    python -m train curves runs/nano runs/sparc --out curves.png
    python -m train simulate --pairs 116e6 --shards 11600 --processes 512 --batch 8192

Any field of a recipe can be set after the flags: seed=1 stages.0.steps=200 'stages.*.size=112' (every stage).
pretrain, distill, finetune, sparc and sfclip take --dry-run (what a run would be and cost) and --resume:
python -m train finetune --out runs/mine --resume goes on exactly where that run stopped, with its own settings.
distill ... distillation.generations=3 makes three students in a row, each the next one's teacher.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from train.recipe.settings import Recipe


def main(arguments: list[str] | None = None) -> int:
    """Run a sub-command; returns the exit status: 0, 2 after a mistake, which gives one sentence on stderr, 130 after
    Ctrl-C and 143 after SIGTERM, also where a training saved its state.
    """
    options = None
    try:
        from train.cli.arguments import parse  # here: Ctrl-C in the first moment is to end in a sentence, too

        options = parse((sys.argv[1:] if arguments is None else arguments) or ["--help"], __doc__)
        return _do(options)
    except (ValueError, FloatingPointError, OSError) as error:
        print(f"{error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"interrupted at once; {_going_on(options)}.", file=sys.stderr)
        return 130


def _do(options: argparse.Namespace) -> int:
    if options.command == "scenes":
        from train.data.shards import write_shards

        paths = write_shards(options.out, options.count, options.size, options.seed, options.styles.split(","))
        print(f"{options.count} scenes of {options.size} px in {options.out}, shards: {len(paths)}")
    elif options.command == "textteacher":
        from train.text.multilingual import train_teacher

        for name, share in train_teacher(options.out, options.steps, options.seed).items():
            print(f"{name}: {share:.3f} of the translations are nearest to their own English name")
    elif options.command == "keep":
        _keep(options)
    elif options.command == "text":
        return _text(options)
    elif options.command == "assemble":
        from train.tools.assemble import assemble

        given = {key: value for key, value in vars(options).items() if key != "command"}
        print(assemble(**given))
    elif options.command == "foundations":
        from train.foundations.build import build

        for path in build(options.out, options.packages, options.classifier):
            print(path)
    elif options.command == "curves":
        from train.tools.curves import plot

        print(plot(options.runs, options.out, options.chain))
    elif options.command == "benchmark":
        from train.tools import benchmark as measure

        measurements = measure.run()
        print(json.dumps(measurements) if options.json else json.dumps(measurements, indent=2))
        if options.out:
            measure.plot(measurements, options.out)
    elif options.command == "simulate":
        from train.tools import simulate

        simulated = simulate.run(options)
        if options.json:
            print(json.dumps(simulated))
        else:
            from train.tools.simulated_report import report

            print(report(simulated))
    elif options.command == "reproduce":
        _reproduce(options)
    elif options.command == "check":
        _check(options)
    elif options.command == "caption":
        _caption(options)
    else:
        return _train(options)
    return 0


def _going_on(options: argparse.Namespace | None) -> str:
    """What an interrupted command leaves, and how one goes on."""
    command = options.command if options else ""
    if command == "text" and (options.out / "text.json").exists():
        return f"what was saved stands, go on with: python -m train text --out {options.out} --resume"
    if command in ("reproduce", "scenes", "caption", "keep", "foundations"):
        return "what is finished stands, go on with the same command"
    out = getattr(options, "out", None)
    if out and any(out.glob("**/recipe.json")):  # without a checkpoint --resume starts from the beginning
        from train.run.resume import command_line

        return f"what was saved stands, go on with: {command_line(command, out)}"
    return "nothing was saved, so start again"


def _reproduce(options: argparse.Namespace) -> None:
    from train.reproduce import runner as reproduce
    from train.reproduce import tables

    rows = [name for name in options.rows.split(",") if name]
    if not options.table:
        seeds = options.seeds.split(",")
        if not all(seed.isdecimal() and int(seed) for seed in seeds):
            raise ValueError(f"--seeds {options.seeds}: whole numbers from 1 with commas, for example 1,2,3.")
        reproduce.run(options.out, rows, tuple(map(int, seeds)), options.jobs)
    print(tables.write(options.out))


def _keep(options: argparse.Namespace) -> None:
    from train.data.kept.folder import open_kept
    from train.data.kept.keep import Settings, keep

    given = {k: v for k, v in vars(options).items() if k not in ("command", "out", "temperature")}
    kept = open_kept(keep(Settings(**given, classifier_temperature=options.temperature), options.out))
    teachers = "--text-teacher foundations/minilm --names foundations/names.jsonl"
    command = f"sfclip --recipe photos --kept {kept.folder}:8 --base {options.vision} {teachers} --out runs/bridge"
    print(f"{kept.rows} crops in {kept.folder}, to learn from: python -m train {command}")


def _kept(options: argparse.Namespace) -> list[str]:
    """The fields that the flags of recipe photos set."""
    flags = {"base": "tuning.base", "names": "kept.names", "exclude": "kept.exclude"}
    given = [f"{key}={value}" for flag, key in flags.items() if (value := getattr(options, flag))]
    return [*given, *([f"data.source=kept:{options.kept}"] if options.kept else [])]


def _text(options: argparse.Namespace) -> int:
    from train.parallel.signals import Stopped
    from train.text import distill

    given = {key: value for key, value in vars(options).items() if key not in ("command", "out", "vision", "resume")}
    if "wordnet" in given:
        given["wordnet"] = tuple(given["wordnet"])
    if "base" in given and (fixed := [f"--{key}" for key in ("layers", "vocabulary") if key in given]):
        raise ValueError(f"{' and '.join(fixed)} cannot be set with --base: the tower that goes on has its own.")
    settings = distill.recorded(options.out, given) if options.resume else distill.Settings(**given)
    try:
        scores = distill.run(settings, options.out, options.vision, options.resume)
    except Stopped as stopped:
        print(f"{stopped}; go on with: python -m train text --out {options.out} --resume", file=sys.stderr)
        return 128 + stopped.number
    for name, value in scores.items():
        print(f"{name}: {value:.4f}")
    return 0


def _data(options: argparse.Namespace):
    """The fields of data, as settings.Data."""
    from train.recipe import settings
    from train.recipe.overrides import override

    none = settings.Recipe(name="none", command=options.command, stages=())
    recipe = override(none, [f"data.source={options.data}", *options.overrides])
    _look(recipe)
    return recipe.data


def _look(recipe: Recipe) -> None:
    """Raises ValueError where the data, the base or the teacher that a recipe names are not there: before torch, which
    takes seconds to import.
    """
    from tipsv2.checkpoints.catalogue import find
    from tipsv2.collections.sources import check_place
    from tipsv2.scenes.splits import is_scenes
    from train.recipe.kept_settings import PREFIX

    source = recipe.data.source
    if not (is_scenes(source) or source.startswith(PREFIX)):
        check_place(source)
    for name in (recipe.tuning.base, recipe.distillation.teacher):
        if name:
            find(name)


def _check(options: argparse.Namespace) -> None:
    data = _data(options)
    from train.tools.check import draw, look_through

    report = look_through(data, options.limit)
    print(report)
    if report.shown and options.out:
        print(f"{len(report.shown)} of them are drawn in {draw(report.shown, options.out)}")
    if report.refusal:
        raise ValueError(report.refusal)


def _caption(options: argparse.Namespace) -> None:
    data = _data(options)
    if options.out.suffix != ".jsonl":
        raise ValueError(f"--out {options.out}: the table's name must end in .jsonl.")
    from train.tools.caption import caption

    prompts = {role: text for role in ("short", "detailed") if (text := getattr(options, role))}
    added, problems = caption(data, options.model, options.out, prompts, options.batch_size, options.max_tokens)
    print(f"{added} lines added to {options.out}; {len(problems)} images left out")
    for problem in problems[:5]:
        print(f"  {problem}", file=sys.stderr)


def _teachers(options: argparse.Namespace) -> list[str]:
    """The fields of `sfclip` that the flags set: a teacher that is not given leaves its part out of a new run."""
    given = {kind: getattr(options, f"{kind}_teacher") for kind in ("vision", "text")}
    fields = [f"sfclip.{kind}_teacher={name}" for kind, name in given.items() if name]
    if options.resume:
        return fields
    without_vision = ["sfclip.vision_weight=0"] if not given["vision"] else []
    without_text = ["sfclip.text_weight=0", "sfclip.words=own"] if not given["text"] else []
    return fields + without_vision + without_text


def _train(options: argparse.Namespace) -> int:
    from train.cli.arguments import TRAINING
    from train.recipe import recipes
    from train.recipe.overrides import override
    from train.run.resume import recorded

    flags = {"data": "data.source", "teacher": "distillation.teacher"}
    if options.command != "sfclip":
        flags["base"] = "tuning.base"
    given = [f"{key}={value}" for flag, key in flags.items() if (value := getattr(options, flag, None)) is not None]
    if options.command == "sfclip":
        given += [*_teachers(options), *_kept(options)]
    given += options.overrides
    name = options.recipe or TRAINING[options.command][0]
    recipe = recipes.get(name)  # a name that there is not is a mistake in any case
    if recipe.command != options.command:
        raise ValueError(f"recipe {name} is for `python -m train {recipe.command}`, not {options.command}.")
    if options.resume:
        recipe = recorded(options.out, options.command, given, options.recipe or "")
    else:
        recipe = override(recipe, given)
        _look(recipe)
    # torch and transformers take seconds to import; --help and the mistakes above need neither
    if options.dry_run:
        from train.run import dry_run

        dry_run.report(recipe, options.out, options.resume)
        return 0
    from train.run import start as run

    stopped = run.start(recipe, options.out, options.resume)
    return 128 + stopped if stopped else 0


if __name__ == "__main__":
    sys.exit(main())
