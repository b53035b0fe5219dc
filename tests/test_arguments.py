"""The command line of python -m train: what it says of what it does not know, and its help."""

import textwrap

import pytest

from train.__main__ import main
from train.cli.arguments import FIELDS, TRAINING
from train.recipe.overrides import override, paths
from train.recipe.recipes import RECIPES, get


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["fintune"], "there is no command 'fintune': choose pretrain, distill, finetune,"),
        (["fintune"], "did you mean 'finetune'?"),
        (["finetune", "--base", "x", "--out", "y", "--steps", "5"], "no flag --steps"),
        (["finetune", "--base", "x", "--out", "y", "--steps", "5"], "did you mean 'stages.*.steps=5'?"),
        (["pretrain", "--out", "y", "--learning-rate=0.1", "seed=1"], "did you mean 'stages.*.learning_rate=0.1'?"),
        (["check", "photos", "--web", "alt"], "did you mean data.web=alt?"),
        (["pretrain", "--checkpointing", "--out", "y"], "did you mean checkpointing=VALUE?"),
        (["finetune", "--base", "x", "--out", "y", "steps=5"], "did you mean 'stages.*.steps=5'?"),
        (["pretrain"], "--out is missing: name the run's folder, for example python -m train pretrain --out runs/new"),
        (["pretrain", "--dry-run", "--resume"], "--out is missing"),
        (["finetune", "--out", "y"], "--base is missing"),
        (["distill", "--dry-run"], "--teacher is missing"),
        (["sfclip", "--out", "y"], "sfclip needs --vision-teacher, --text-teacher or both"),
    ],
)
def test_mistakes_are_one_sentence(arguments, told, capsys):
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert told in said and said.count("\n") == 1


def test_unknown_flags_of_commands_without_fields_show_the_usage_of_that_command(capsys):
    with pytest.raises(SystemExit):
        main(["scenes", "--out", "y", "--colour", "red"])
    assert "usage: python -m train scenes" in capsys.readouterr().err


@pytest.mark.parametrize("command", TRAINING)
def test_the_help_of_a_training_names_its_recipes_and_shows_fields_that_it_has(command, capsys):
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    said = capsys.readouterr().out
    assert left.value.code == 0 and f"  python -m train {command} --out runs/mine --resume\n" in said
    listed = said.split("one of ")[1].split(" (default")[0].replace(",", " ").split()
    assert listed == [name for name in RECIPES if get(name).command == command]
    assert len(FIELDS[command]) == 3
    for field in FIELDS[command]:
        assert f"  {field} " in said and override(get(TRAINING[command][0]), [field])


PLAIN_COMMANDS = ["scenes", "textteacher", "text", "curves", "benchmark", "check", "caption", "reproduce"]


@pytest.mark.parametrize("command", PLAIN_COMMANDS)
def test_the_help_of_other_commands_says_what_they_do(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    lines = textwrap.dedent(capsys.readouterr().out).split("\n\n")
    assert lines[1].strip().endswith(".")


def test_every_field_has_a_path():
    found = list(paths())
    assert len(found) == len(set(found)) and {"seed", "stages.*.steps", "tower.width", "checkpointing"} <= set(found)
    smoke = get("smoke")
    for path in found:
        value = smoke.stages[0] if path.startswith("stages") else smoke
        for name in path.removeprefix("stages.*.").split("."):
            value = getattr(value, name)
        override(smoke, [f"{path}={value}"])  # it can be set


def test_ctrl_c_while_a_command_is_read_is_a_sentence(capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("train.cli.arguments.parse", interrupted)
    assert main(["pretrain", "--out", "x"]) == 130
    assert capsys.readouterr().err == "interrupted at once; nothing was saved, so start again.\n"


def test_alone_it_shows_its_commands(capsys):
    with pytest.raises(SystemExit) as end:
        main([])
    assert end.value.code == 0 and "pretrain" in capsys.readouterr().out
