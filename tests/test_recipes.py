"""Recipes: every one constructs, overrides are strict, the record in a run's folder reads back."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from train.recipe.overrides import override
from train.recipe.recipes import RECIPES, get
from train.recipe.settings import Recipe, from_dict, to_dict


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_construct_and_survive_json(name):
    recipe = get(name)
    assert recipe.name == name and recipe.steps > 0
    assert from_dict(json.loads(json.dumps(to_dict(recipe)))) == recipe
    assert f"--recipe {name}" in RECIPES[name].__doc__  # the docstring holds the command


def test_the_chain_on_photographs_is_the_same_in_its_recipe_and_its_page():
    """Every command of the docstring stands in docs/training.md, in the same order."""
    page = (Path(__file__).parents[1] / "docs" / "training.md").read_text("utf-8")
    chain = [
        " ".join(command.split())
        for command in RECIPES["photos"].__doc__.replace("\\\n", " ").splitlines()
        if command.strip().startswith("python -m")
    ]
    places = [page.find(f"\n{command}\n") for command in chain]
    assert len(chain) > 6 and -1 not in places and places == sorted(places), chain


def test_override_reaches_nested_fields():
    recipe = override(
        get("nano"), ["seed=3", "stages.1.steps=7", "tower.width=96", "self_distillation.targets=centre", "beta2=0.9"]
    )
    assert (recipe.seed, recipe.stages[1].steps, recipe.tower.width) == (3, 7, 96)
    assert (recipe.self_distillation.targets, recipe.beta2) == ("centre", 0.9)
    assert recipe.stages[0] == get("nano").stages[0]
    every = override(get("nano"), ["stages.*.steps=7"])
    assert every.stages == tuple(replace(stage, steps=7) for stage in get("nano").stages)


@pytest.mark.parametrize(
    "assignment, hint",
    [
        ("sed=3", r"did you mean seed=3\?$"),
        ("steps=3", r"no field steps; did you mean 'stages\.\*\.steps=3'\?$"),
        ("lr=3", r"did you mean 'stages\.\*\.learning_rate=3'\?$"),
        ("batch=8", r"did you mean 'stages\.\*\.batch_size=8'\?$"),
        ("width=8", r"did you mean tower\.width=8 or sparc\.width=8\?$|sparc\.width=8 or tower\.width=8\?$"),
        ("towr.width=8", r"did you mean tower\.width=8 or "),
        ("tuning.hidden=8", "self_distillation.hidden=8"),
        ("stage.1.steps=3", r"did you mean 'stages\.\*\.steps=3'"),
        ("qqq=3", "no field qqq\\.$"),
        ("stages.0.step=3", r"did you mean stages\.0\.steps=3\?$"),
        ("stages.9.steps=3", "stages 0 to"),
        ("stages.*.step=3", r"did you mean 'stages\.\*\.steps=3'\?$"),
        ("seed=three", "whole number"),
        ("beta2=much", "a number"),
        ("tower=3", "holds several fields"),
        ("seed", "key=value"),
    ],
)
def test_bad_overrides_are_sentences(assignment, hint):
    with pytest.raises(ValueError, match=hint):
        override(get("nano"), [assignment])


def test_unknown_recipe_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'nano'"):
        get("nanno")


def test_stage_at_walks_the_stages():
    recipe = override(get("smoke"), ["stages.0.steps=2", "stages.1.steps=3"])
    assert [recipe.stage_at(i) is recipe.stages[k] for i, k in enumerate((0, 0, 1, 1, 1))] == [True] * 5
    assert recipe.images == 5 * 8
    with pytest.raises(ValueError, match="past"):
        recipe.stage_at(5)
    assert isinstance(recipe, Recipe)
