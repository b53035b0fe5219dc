"""python -m train from outside: what --dry-run says, and chains of generations that stop and go on."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from shapes import write
from small import save_teacher

from train.__main__ import main
from train.objectives import Objective
from train.run import cost, monitor

TINY = [
    *("tower.width=48", "tower.vision_layers=2", "tower.text_layers=1", "tower.heads=2", "tower.table=56"),
    *("stages.0.steps=4", "stages.0.size=56", "stages.0.batch_size=4", "warmup=1", "precision=fp32"),
    *("trackers=", "workers=1", "save_every=1000", "sample_every=1000"),
]
NUMBER = r"([\d.]+ [MGTPE])"


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A teacher 64 wide, of which a student 48 wide must guess the words."""
    return str(save_teacher(tmp_path_factory.mktemp("teacher") / "wide", "tower.width=64"))


def dry(capsys, *arguments):
    """The resolved recipe and what is said of it."""
    assert main([*arguments, "--dry-run"]) == 0
    said = capsys.readouterr()
    return json.loads(said.out), said.err


def amount(text):
    number, prefix = text.split()
    return float(number) * {"M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}[prefix]


def test_a_dry_run_says_what_training_will_take(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe, said = dry(capsys, "pretrain", "--recipe", "smoke", "seed=5", "precision=fp32")
    assert recipe["seed"] == 5 and not list(tmp_path.iterdir())
    assert recipe["sparc"] == {"weight": 0} and recipe["tower"]["width"] == 48  # a term without weight is no more
    assert "10 steps, 80 images" in said and "drawn anew, so there are no epochs" in said
    found = re.search(rf"about {NUMBER}B: weights, gradients and moments {NUMBER}B, activations {NUMBER}B", said)
    total, state, activations = map(amount, found.groups())
    trained = float(re.search(r"([\d.]+)M trained", said)[1]) * 1e6
    assert total == pytest.approx(state + activations, rel=0.02) and state > 16 * trained * 0.95
    first, second, whole = map(amount, re.search(rf"{NUMBER}FLOP.*, {NUMBER}FLOP.* {NUMBER}FLOP in all", said).groups())
    assert first < second and whole == pytest.approx(4 * first + 6 * second, rel=0.02)
    _, less = dry(capsys, "pretrain", "--recipe", "smoke", "precision=fp32", "accumulate=8", "checkpointing=true")
    assert amount(re.search(rf"activations {NUMBER}B", less)[1]) < activations / 2


WRONG = {  # a command -> what it says
    "check no": "no file or folder 'no'",
    "check folder:no": "no folder 'no'",
    "caption no --model m --out c.jsonl": "no file or folder 'no'",
    "pretrain --recipe smoke --data no --out new": "no file or folder 'no'",
    "finetune --base opentips-nano --data no/*.tar --out new": "no file matches 'no/*.tar'",
    "finetune --base nowhere --data scenes --out new": "no model or folder 'nowhere'",
    "distill --teacher nowhere --data scenes --out new": "no model or folder 'nowhere'",
}


def test_what_is_not_there_is_named_before_torch_is_imported(tmp_path):
    """In a process in which torch cannot be imported: it alone takes seconds."""
    code = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from train.__main__ import main\n"
        "for line in sys.argv[1:]:\n"
        "    assert main(line.split()) == 2, line\n"
        "    print('--', file=sys.stderr)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    run = subprocess.run(
        [sys.executable, "-c", code, *WRONG], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    for line, said in zip(WRONG, run.stderr.split("--\n"), strict=False):
        assert WRONG[line] in said, (line, said)
    assert not list(tmp_path.iterdir())


def test_a_dry_run_knows_epochs_and_processes(capsys, tmp_path, monkeypatch):
    write(tmp_path / "photos", 10, size=56)
    command = ["pretrain", "--recipe", "smoke", "--data", str(tmp_path / "photos"), "--out", str(tmp_path / "x")]
    command += ["precision=fp32"]
    _, said = dry(capsys, *command)
    assert "10 pairs, 8.0 epochs" in said
    monkeypatch.setenv("WORLD_SIZE", "4")
    _, shared = dry(capsys, *command, "sharding=full")
    assert "a process, of 4" in shared and "2 images of 56 px" in shared
    work = [amount(re.search(rf"{NUMBER}FLOP in all", text)[1]) for text in (said, shared)]
    state = [amount(re.search(rf"moments {NUMBER}B", text)[1]) for text in (said, shared)]
    assert work[1] == pytest.approx(work[0] / 4, rel=0.02) and state[1] == pytest.approx(state[0] / 4, rel=0.05)
    monkeypatch.setenv("RANK", "1")
    assert main([*command, "--dry-run"]) == 0
    assert capsys.readouterr().out == ""  # the first process speaks for all
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert main([*command, "--dry-run"]) == 2
    assert "cannot be shared by 3 processes" in capsys.readouterr().err.splitlines()[-1]
    for variable in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(variable)
    assert main([*command, "--dry-run", "stages.*.batch_size=12"]) == 2
    said = capsys.readouterr()
    assert (
        json.loads(said.out)["stages"][1]["batch_size"] == 12 and "in all\n" in said.err
    )  # what it would take, all the same
    assert said.err.endswith("holds: 10 pairs. Set 'stages.*.batch_size=10' or less.\n")
    assert main([*command, "--dry-run", "stages.1.batch_size=12"]) == 2
    assert capsys.readouterr().err.endswith("Set stages.1.batch_size=10 or less.\n")


def test_a_dry_run_of_a_giant_needs_no_memory(capsys, tmp_path, monkeypatch):
    """Its 1.5 billion parameters would take 6 GB: none is made that takes a megabyte."""
    made, inner = [], torch.nn.Parameter.__new__

    def note(kind, data=None, *rest, **named):
        made.append(data)
        return inner(kind, data, *rest, **named)

    monkeypatch.setattr(torch.nn.Parameter, "__new__", note)
    size = ["tower.width=1536", "tower.vision_layers=40", "tower.text_layers=12", "tower.heads=24"]
    command = ["pretrain", "--recipe", "nano", "--out", str(tmp_path / "x"), *size, "attention=sdpa"]
    _, said = dry(capsys, *command)
    assert float(re.match(r"\nnano: ([\d.]+)M", said)[1]) > 1400
    assert sum(t.numel() for t in made if t is not None) > 1.4e9
    assert all(t.is_meta for t in made if t is not None and t.numel() > 250_000)
    assert amount(re.search(rf"moments {NUMBER}B", said)[1]) > 16 * 1.4e9


def test_numbers_have_prefixes():
    found = [cost.in_units(n, "FLOP") for n in (6.1e11, 2.5e7, 1.2e13, 3e18)]
    assert found == ["0.61 TFLOP", "25.00 MFLOP", "12.0 TFLOP", "3.00 EFLOP"]


@pytest.mark.slow
def test_a_chain_is_killed_goes_on_and_ends_as_if_it_never_was(wide, tmp_path, capsys, monkeypatch):
    """The first student is narrower than its teacher and learns through a projection; the second needs none."""
    monkeypatch.setattr(monitor, "SCENES", 1)
    after_step = Objective.after_step
    command = ["distill", "--teacher", wide, *TINY, "distillation.text=random", "distillation.generations=2"]

    def chain(name, *more, stop_in=0):
        """Run it; with `stop_in`, SIGTERM comes in that step of those it takes, counted from 1."""
        steps = []

        def stopping(objective, done):
            after_step(objective, done)
            steps.append(done)
            if len(steps) == stop_in:
                os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr(Objective, "after_step", stopping)
        given = ["distill"] if "--resume" in more else command  # the rest is in the record
        assert main([*given, "--out", str(tmp_path / name), *more]) == (143 if stop_in else 0)
        return steps, capsys.readouterr().err

    whole, said = chain("whole")
    assert whole == [0, 1, 2, 3] * 2 and "generation 2 of 2, taught by" in said
    steps, said = chain("parts", stop_in=4)  # too late to stop the first student, who is done
    assert steps == [0, 1, 2, 3] and "stopped after generation 1; go on with: python -m train distill --out" in said
    assert not (tmp_path / "parts" / "generation-2").exists()
    steps, said = chain("parts", "--resume", stop_in=1)
    assert (
        steps == [0, 1]
        and "generation 1 of 2 is done" in said
        and f"stopped after step 2; go on with: python -m train distill --out {tmp_path / 'parts'} --resume\n" in said
    )
    steps, said = chain("parts", "--resume")
    assert steps == [2, 3]
    for number in (1, 2):
        folders = [tmp_path / name / f"generation-{number}" for name in ("whole", "parts")]
        models = [load_file(folder / "model" / "model.safetensors") for folder in folders]
        assert all(torch.equal(models[0][key], models[1][key]) for key in models[0])
        recipe = json.loads((folders[1] / "recipe.json").read_text())["distillation"]
        assert recipe["generations"] == 2
        assert recipe["teacher"] == (wide if number == 1 else str(tmp_path / "parts" / "generation-1" / "model"))
        state = load_file(folders[1] / "checkpoints" / "step-0000004" / "state.safetensors")
        assert any("distillation.project" in key for key in state) == (number == 1)
    models = [load_file(tmp_path / "whole" / f"generation-{n}" / "model" / "model.safetensors") for n in (1, 2)]
    assert any(not torch.equal(models[0][key], models[1][key]) for key in models[0])

    assert main([*command, "--out", str(tmp_path / "parts")]) == 2
    assert "add --resume" in capsys.readouterr().err
    assert main([*command, "--out", str(tmp_path / "parts"), "--resume", "seed=1"]) == 2
    assert "another recipe: seed: 0 in" in capsys.readouterr().err
    assert main([*command, "--out", str(tmp_path / "whole" / "generation-1"), "--resume"]) == 2
    assert "no generation of a chain" in capsys.readouterr().err


def test_chains_that_cannot_be_are_refused(wide, tmp_path, capsys):
    for field in ("distillation.generations=0", "distillation.weight=0"):
        command = ["distill", "--teacher", wide, "--out", str(tmp_path / "x"), "distillation.generations=2", field]
        assert main(command) == 2
        assert "distillation.generations=" in capsys.readouterr().err
    _, said = dry(capsys, *command[:-2], *TINY, "distillation.text=random", "distillation.generations=3")
    assert "each of 3 generations" in said and re.search(rf"teachers {NUMBER}B", said)
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_a_student_does_not_go_on_with_another_teacher(tmp_path, capsys):
    teacher = tmp_path / "teacher"
    save_teacher(teacher)
    command = ["distill", "--teacher", str(teacher), "--out", str(tmp_path / "x"), *TINY, "save_every=1"]
    assert main(command) == 0
    record = tmp_path / "x" / "recipe.json"
    values = json.loads(record.read_text())
    assert len(values["distillation"]["digest"]) == 16
    older = {**values, "distillation": {k: v for k, v in values["distillation"].items() if k != "digest"}}
    for kept in (older, values):  # a run older than digests goes on, too
        record.write_text(json.dumps(kept))
        assert main([*command, "--resume"]) == 0
    weights = load_file(teacher / "model.safetensors")
    save_file({name: value + 0.1 for name, value in weights.items()}, teacher / "model.safetensors", {"format": "pt"})
    capsys.readouterr()
    assert main([*command, "--resume"]) == 2
    assert "another recipe: distillation.digest: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["scenes"], "what is finished stands, go on with the same command"),
        (["textteacher"], "nothing was saved, so start again"),
        (["text", "--teacher", "x"], "nothing was saved, so start again"),
        (["pretrain", "--recipe", "smoke"], "nothing was saved, so start again"),
    ],
)
def test_an_interrupted_command_says_what_it_leaves(arguments, said, tmp_path, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("train.tools.benchmark.run", interrupted)
    assert main(["benchmark"]) == 130 and "so start again" in capsys.readouterr().err
    for name in (
        "train.data.shards.write_shards",
        "train.text.multilingual.train_teacher",
        "train.text.distill.run",
        "train.run.start.start",
    ):
        monkeypatch.setattr(name, interrupted)
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err == f"interrupted at once; {said}.\n"
    if arguments[0] in ("pretrain", "text"):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / {"pretrain": "recipe.json", "text": "text.json"}[arguments[0]]).write_text("{}")
        assert main([*arguments, "--out", str(tmp_path / "out")]) == 130
        assert (
            f"what was saved stands, go on with: python -m train {arguments[0]} --out {tmp_path / 'out'} --resume."
            in capsys.readouterr().err
        )
