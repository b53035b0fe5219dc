"""python -m train from outside: what --dry-run says."""

import json
import re

import pytest
import torch
from shapes import write

from train import cost
from train.__main__ import main

NUMBER = r"([\d.]+ [MGTPE])"


def dry(capsys, *arguments):
    """The resolved recipe and what is said of it."""
    assert main([*arguments, "--dry-run"]) == 0
    said = capsys.readouterr()
    return json.loads(said.out), said.err


def amount(text):
    number, prefix = text.split()
    return float(number) * {"M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}[prefix]


def test_a_dry_run_says_what_training_will_take(capsys, tmp_path):
    out = ["--out", str(tmp_path / "x")]
    recipe, said = dry(capsys, "pretrain", "--recipe", "smoke", *out, "seed=5", "precision=fp32")
    assert recipe["seed"] == 5 and not (tmp_path / "x").exists()
    assert "10 steps, 80 images" in said and "drawn anew, so there are no epochs" in said
    found = re.search(rf"about {NUMBER}B: weights, gradients and moments {NUMBER}B, activations {NUMBER}B", said)
    total, state, activations = map(amount, found.groups())
    trained = float(re.search(r"([\d.]+)M trained", said)[1]) * 1e6
    assert total == pytest.approx(state + activations, rel=0.02) and state > 16 * trained * 0.95
    first, second, whole = map(amount, re.search(rf"{NUMBER}FLOP.*, {NUMBER}FLOP.* {NUMBER}FLOP in all", said).groups())
    assert first < second and whole == pytest.approx(4 * first + 6 * second, rel=0.02)
    _, less = dry(capsys, "pretrain", "--recipe", "smoke", *out, "precision=fp32", "accumulate=8", "checkpointing=true")
    assert amount(re.search(rf"activations {NUMBER}B", less)[1]) < activations / 2


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
    assert "cannot be shared by 3 processes" in capsys.readouterr().err


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
    assert float(re.match(r"nano: ([\d.]+)M", said)[1]) > 1400
    assert sum(t.numel() for t in made if t is not None) > 1.4e9
    assert all(t.is_meta for t in made if t is not None and t.numel() > 250_000)
    assert amount(re.search(rf"moments {NUMBER}B", said)[1]) > 16 * 1.4e9


def test_numbers_have_prefixes():
    found = [cost.in_units(n, "FLOP") for n in (6.1e11, 2.5e7, 1.2e13, 3e18)]
    assert found == ["0.61 TFLOP", "25.00 MFLOP", "12.0 TFLOP", "3.00 EFLOP"]
