"""Twenty steps are ten steps and ten more, bit for bit, for every named recipe and every way to fine-tune."""

import json
import os
import signal

import pytest
import torch
import unimodal
from safetensors.torch import load_file
from small import save_teacher, small

from train import checkpoint, monitor, run
from train.objectives import Objective
from train.recipes import RECIPES

CASES = {name: (name, []) for name in RECIPES} | {
    f"finetune {part}": ("finetune", [f"tuning.part={part}", "tuning.layers=1"]) for part in ("last", "lora")
}


@pytest.fixture(scope="module")
def teachers(tmp_path_factory, tiny_folder):
    top = tmp_path_factory.mktemp("teachers")
    return unimodal.save(top / "unimodal", tiny_folder) | {"tipsv2": save_teacher(top / "encoder")}


@pytest.mark.parametrize("case", CASES)
def test_twenty_steps_are_ten_and_ten(teachers, tmp_path, monkeypatch, case):
    name, fields = CASES[case]
    recipe = small(name, 20, teachers, *fields)
    monkeypatch.setattr(run, "TOKENIZER_PAIRS", 60)
    monkeypatch.setattr(monitor, "SCENES", 1)
    run.start(recipe, tmp_path / "whole", show=False)

    after_step = Objective.after_step

    def stopping(objective, done):
        after_step(objective, done)
        if done == 8:  # the loop looks at the flag in the next step
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Objective, "after_step", stopping)
    run.start(recipe, tmp_path / "parts", show=False)
    monkeypatch.setattr(Objective, "after_step", after_step)
    assert checkpoint.latest(tmp_path / "parts").name == "step-0000010" and not (tmp_path / "parts" / "model").exists()
    torch.rand(7)  # a new process would not share the old one's random state
    run.start(recipe, tmp_path / "parts", resume=True, show=False)

    states, losses = [], []
    for folder in (tmp_path / "whole", tmp_path / "parts"):
        assert checkpoint.latest(folder).name == "step-0000020"
        states.append(load_file(checkpoint.latest(folder) / "state.safetensors"))
        lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        losses.append([(line["step"], line["loss"], line["gradient_norm"]) for line in lines if "loss" in line])
    assert losses[0] == losses[1] and len(losses[0]) == 20 and losses[0][0][1] != losses[0][-1][1]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    models = [load_file(tmp_path / k / "model" / "model.safetensors") for k in ("whole", "parts")]
    assert models[0].keys() == models[1].keys()
    assert all(torch.equal(models[0][key], models[1][key]) for key in models[0])
