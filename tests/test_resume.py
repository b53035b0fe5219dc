"""What a checkpoint holds is all that the next steps need, for every named recipe and kind of state; a run that is
stopped goes on as if it never was; and what --resume takes from the record, lets be given anew, and refuses.
"""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import unimodal
from safetensors.torch import load_file
from small import save_teacher, small

from train.__main__ import main
from train.data.batches import open_batches
from train.objectives import Objective
from train.recipe import recipes
from train.recipe.overrides import override
from train.recipe.recipes import RECIPES
from train.recipe.settings import Tower, as_given, to_dict
from train.run import checkpoint, monitor
from train.run import start as run
from train.run.resume import command_line, recorded
from train.run.step import optimizer_of

KINDS = {name: (name, []) for name in RECIPES if name != "photos"} | {  # which tests/test_photos_run.py resumes
    f"finetune {part}": ("finetune", [f"tuning.part={part}", "tuning.layers=1"]) for part in ("full", "last", "lora")
}
KINDS |= {  # what no named recipe has
    "grounding": ("smoke", ["grounding.weight=1"]),
    "sparc": ("smoke", ["sparc.weight=1", "sparc.width=16"]),
    "centre": ("smoke", ["self_distillation.targets=centre", "self_distillation.teacher_warmup=9"]),
    "teacher of both towers": ("smoke", ["self_distillation.ema=full"]),
}


@pytest.fixture(scope="module")
def teachers(tmp_path_factory, tiny_folder):
    top = tmp_path_factory.mktemp("teachers")
    return unimodal.save(top / "unimodal", tiny_folder) | {"tipsv2": save_teacher(top / "encoder")}


def trained(recipe, objective, optimizer, batches, steps):
    """The losses of some steps."""
    losses = []
    for step in steps:
        loss, _ = objective(batches[step], recipe.stage_at(step))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        objective.after_step(step)
        losses.append(loss.item())
    return losses


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_holds_all_that_the_next_steps_need(teachers, tmp_path, monkeypatch, kind):
    """Four steps are two, a checkpoint, and two from it on weights of another seed: the same bits in all that is kept,
    for every named recipe and kind of state. docs/claims.md names the tests of whole runs that go on.
    """
    name, fields = KINDS[kind]
    monkeypatch.setattr(run, "TOKENIZER_PAIRS", 60)
    parts = run.prepare(small(name, 4, teachers, *fields), None)
    recipe, objective = parts.recipe, parts.objective
    batches, optimizer = open_batches(recipe, parts.tokenizer), optimizer_of(recipe, objective)
    trained(recipe, objective, optimizer, batches, range(2))
    place = checkpoint.save(tmp_path / "run", 2, objective, optimizer)
    whole = trained(recipe, objective, optimizer, batches, range(2, 4))
    ends = [load_file(checkpoint.save(tmp_path / "whole", 4, objective, optimizer) / "state.safetensors")]

    other = run.prepare(small(name, 4, teachers, *fields, "seed=9"), None).objective
    optimizer = optimizer_of(recipe, other)
    torch.rand(7)  # a new process would not share the old one's random state
    assert checkpoint.load(place, other, optimizer) == 2
    assert trained(recipe, other, optimizer, batches, range(2, 4)) == whole
    ends.append(load_file(checkpoint.save(tmp_path / "parts", 4, other, optimizer) / "state.safetensors"))
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])
    before = load_file(place / "state.safetensors")
    assert any(not torch.equal(before[key], ends[0][key]) for key in before)


QUICK = ["stages.0.steps=4", "stages.0.batch_size=4", "warmup=1", "precision=fp32", "trackers=", "workers=0"]


@pytest.mark.slow
def test_a_stopped_run_goes_on_by_its_folder_alone(tiny_folder, tmp_path, capsys, monkeypatch):
    """By Ctrl-C here, by SIGTERM in tests/test_cli_train.py."""
    command = ["finetune", "--base", str(tiny_folder), *QUICK, "tuning.part=lora", "tuning.rank=3", "seed=4"]
    monkeypatch.setattr(monitor, "SCENES", 1)
    assert main([*command, "--out", str(tmp_path / "whole")]) == 0
    said = capsys.readouterr().err
    assert "training on " in said and " in fp32; data: scenes, every one drawn anew" in said and "from step" not in said
    after_step = Objective.after_step

    def stopping(objective, done):
        after_step(objective, done)
        if done == 0:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Objective, "after_step", stopping)
    assert main([*command, "--out", str(tmp_path / "parts")]) == 130
    monkeypatch.setattr(Objective, "after_step", after_step)
    goes_on = f"stopped after step 2; go on with: python -m train finetune --out {tmp_path / 'parts'} --resume\n"
    assert capsys.readouterr().err.endswith(goes_on)
    assert main(["finetune", "--out", str(tmp_path / "parts"), "--resume", "save_every=3"]) == 0
    assert "from step 2 on" in capsys.readouterr().err
    models = [load_file(tmp_path / k / "model" / "model.safetensors") for k in ("whole", "parts")]
    assert all(torch.equal(models[0][key], models[1][key]) for key in models[0])


@pytest.fixture
def stop(tmp_path):
    """A run's folder as a base of 48 left it: its sizes and digest are in the record."""
    given = override(recipes.get("finetune"), ["tuning.base=opentips-nano", "data.source=photos", "stages.0.steps=20"])
    (stage,) = given.stages
    found = replace(given, stages=(replace(stage, size=56, learning_rate=1e-3),), tower=Tower(width=48))
    found = replace(found, tuning=replace(found.tuning, digest="0123"))
    (tmp_path / "stop").mkdir()
    (tmp_path / "stop" / "recipe.json").write_text(json.dumps(to_dict(found)))
    return tmp_path / "stop", as_given(found)


def test_what_is_not_given_is_in_the_record(stop):
    folder, recipe = stop
    assert recorded(folder, "finetune", []) == recipe and recipe.tower == Tower() and not recipe.tuning.digest
    same = ["tuning.base=opentips-nano", "stages.*.steps=20", "stages.0.size=0", "stages.0.learning_rate=0"]
    assert recorded(folder, "finetune", same, "finetune") == recipe
    assert recorded(folder, "finetune", ["tuning.base=opentips-nano"]).tuning.base == "opentips-nano"  # its name now
    anew = ["workers=7", "trackers=", "save_every=9", "milestones=1", "sample_every=8", "patience=3"]
    assert recorded(folder, "finetune", anew) == override(recipe, anew)


@pytest.mark.parametrize(
    "given, told",
    [
        (["stages.0.steps=200"], "recipe: stages.0.steps: 20 in {0}, 200 given. Leave out what differs, or"),
        (
            ["seed=1", "workers=3", "data.source=x"],
            "recipe: data.source: photos in {0}, x given; seed: 0 in {0}, 1 given",
        ),
        (["tower.width=96"], "tower.width: 48 in {0}, 96 given"),
        (["--recipe", "nano-styles"], "name: finetune in {0}, nano-styles given"),
        (["--base", "other"], "tuning.base: opentips-nano in {0}, other given"),
        (["steps=3"], "did you mean 'stages.*.steps=3'?"),
    ],
)
def test_what_is_given_must_be_as_it_was(stop, capsys, given, told):
    assert main(["finetune", "--out", str(stop[0]), "--resume", *given]) == 2
    assert told.format(stop[0]) in capsys.readouterr().err


def test_runs_of_other_commands_and_damaged_ones_are_refused(stop, capsys):
    folder, _ = stop
    assert main(["pretrain", "--out", str(folder), "--resume"]) == 2
    assert capsys.readouterr().err.endswith(f"go on with: python -m train finetune --out {folder} --resume\n")
    (folder / "recipe.json").write_text('{"stages": 3}')
    assert main(["finetune", "--out", str(folder), "--resume"]) == 2
    assert "recipe.json is damaged" in capsys.readouterr().err


def test_a_chain_knows_how_many_students_it_has(tmp_path):
    record = tmp_path / "generation-1" / "recipe.json"
    record.parent.mkdir()
    chain = override(recipes.get("nano-distill"), ["distillation.teacher=nano", "distillation.generations=3"])
    record.write_text(json.dumps(to_dict(chain)))
    assert recorded(tmp_path, "distill", []) == chain
    assert recorded(tmp_path, "distill", ["distillation.generations=4"]).distillation.generations == 4
    assert recorded(record.parent, "distill", []).distillation.generations == 1  # by itself it is an ordinary run
    record.write_text(json.dumps(to_dict(override(chain, ["distillation.generations=1"]))))  # before they were recorded
    with pytest.raises(ValueError, match="such as distillation.generations=3"):
        recorded(tmp_path, "distill", [])


def test_where_there_is_no_run_that_is_said_at_once(tmp_path):
    code = (
        "import sys; from train.__main__ import main\n"
        f"assert main(['sfclip', '--out', {str(tmp_path / 'x')!r}, '--resume']) == 2\n"
        "assert 'torch' not in sys.modules"
    )
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0 and "holds no run to go on with" in done.stderr, done.stderr
    assert not (tmp_path / "x").exists()


def test_a_command_to_go_on_can_be_typed(monkeypatch):
    assert command_line("finetune", Path("my runs/a")) == "python -m train finetune --out 'my runs/a' --resume"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert command_line("sparc", Path("a")) == "torchrun --nproc-per-node 2 -m train sparc --out a --resume"
