"""Values no run can use are one sentence, on the command line and before anything is trained."""

import pytest
import torch
from small import WORDS

from tipsv2 import scenes
from tipsv2.evaluation.shared import drawings
from train.__main__ import main
from train.data.batches import Batches
from train.network.tokenizer import train_tokenizer
from train.recipe import bounds, recipes
from train.recipe.overrides import override
from train.run import monitor


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(WORDS, 400)


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_named_recipes_are_within_the_bounds(name):
    recipe = recipes.get(name)
    bounds.check(override(recipe, ["tuning.base=opentips-nano"] if recipe.command == "finetune" else []))


@pytest.mark.parametrize(
    "assignment, what",
    [
        ("stages.0.steps=-5", "stages.0.steps=-5 cannot be: a whole number from 1."),
        ("stages.1.batch_size=0", "stages.1.batch_size=0 cannot be: a whole number from 1."),
        ("stages.*.size=100", "stages.0.size=100 cannot be: a multiple of the patch size, 14 pixels."),
        ("stages.1.size=0", "a multiple of the patch size, 14 pixels."),
        ("stages.1.learning_rate=-1", "stages.1.learning_rate=-1 cannot be: above 0."),
        ("stages.0.learning_rate=0", "cannot be: above 0."),
        ("stages.0.learning_rate=inf", "cannot be: above 0."),
        ("stages.1.local_size=15", "stages.1.local_size=15 cannot be: a multiple of the patch size"),
        ("stages.0.mask_ratio=1.5", "from 0 to 1"),
        ("stages.0.grounding_temperature=0", "above 0"),
        ("tower.heads=0", "tower.heads=0 cannot be: a whole number from 1."),
        ("tower.width=97", "tower.width=97 cannot be: a multiple of tower.heads=2."),
        ("tower.table=10", "a multiple of the patch size"),
        ("accumulate=0", "accumulate=0 cannot be"),
        ("sample_every=-1", "sample_every=-1 cannot be: a whole number from 0."),
        ("web_weight=2", "from 0 to 1"),
        ("beta2=1", "beta2=1 cannot be: from 0 to below 1."),
        ("clip=nan", "clip=nan cannot be"),
        ("seed=1000", "seed=1000 cannot be: its scenes would be those of scenes:val, kept for measuring."),
        ("seed=2000", "of scenes:style"),
        ("seed=2500", "of scenes:search"),
        ("seed=3000", "of the monitor's scenes"),
        ("seed=4000", "of single drawings"),
        ("stages.0.size=1120", "stages.0.size=1120 cannot be: scenes are drawn up to 1024 pixels."),
        ("stages.1.dino_weight=0", "above 0, and stages.*.local_crops=0 leaves its term out"),
        ("stages.1.mask_ratio=0", "stages.1.patch_weight=2 cannot be: 0 where mask_ratio=0 hides no patch."),
        ("stages.1.teacher_size=-14", "stages.1.teacher_size=-14 cannot be"),
        ("self_distillation.prototypes=-1", "a whole number from 1"),
        ("self_distillation.momentum=5", "self_distillation.momentum=5 cannot be: from 0 to 1."),
        ("self_distillation.teacher_temperature=0", "above 0"),
        ("self_distillation.student_temperature=0", "above 0"),
        ("sparc.weight=-1", "sparc.weight=-1 cannot be: 0 or more."),
        ("sfclip.text_weight=-1", "sfclip.text_weight=-1 cannot be: 0 or more."),
        ("patch_labels.temperature=0", "above 0"),
        ("sparc.width=-8", "sparc.width=-8 cannot be: a whole number from 0."),
        ("sfclip.hidden=-1", "sfclip.hidden=-1 cannot be"),
    ],
)
def test_what_no_run_can_use_is_named(assignment, what):
    with pytest.raises(ValueError) as error:
        bounds.check(override(recipes.get("smoke"), [assignment]))
    assert what in str(error.value)


@pytest.mark.slow
def test_what_is_refused_as_seed_is_what_would_be_trained_on(tokenizer):
    """Seed 1000 of the bundled scenes starts with the first pictures of scenes:val; its neighbours have none."""
    recipe = override(recipes.get("smoke"), ["seed=1000", "stages.0.size=28"])
    first = Batches(recipe, tokenizer)[0]["image"][0]
    val = scenes.split("val", 28)[0].image
    assert torch.equal(first, torch.from_numpy(val).permute(2, 0, 1) / 255)
    for seed in (0, 7, 999, 1001, 1999, 2999, 3001, 4001, 4242):
        bounds.check(override(recipe, [f"seed={seed}"]))
    elsewhere = override(recipe, ["seed=1000", "data.source=photos"])
    bounds.check(elsewhere)  # of other data no seed is anybody's


def test_what_is_held_out_is_where_it_is_drawn():
    """The monitor and the single drawings have their seeds elsewhere."""
    assert scenes.held_out(monitor.MONITOR_SEED + monitor.SCENES - 1, 1) == "the monitor's scenes"
    last = drawings.FIRST_SEED + (max(drawings.NUMBERS.values()) + 1) * drawings.NUMBER_STEP
    assert scenes.held_out(drawings.FIRST_SEED, 1) == scenes.held_out(last, 1) == "single drawings"
    assert scenes.held_out(10**12 - 5, 5) == "" and scenes.held_out(10**12 - 5, 6) == "scenes:val"
    assert scenes.held_out(10**12 + 499, 1) == "scenes:val" and scenes.held_out(10**12 + 500, 9) == ""


def test_a_distilled_grid_is_of_whole_patches():
    recipe = override(recipes.get("nano-distill"), ["distillation.teacher=opentips-nano"])
    bounds.check(override(recipe, ["stages.0.teacher_size=224"]))
    with pytest.raises(ValueError, match="teacher_size=100 cannot be: 0, or a multiple of the patch size"):
        bounds.check(override(recipe, ["stages.0.teacher_size=100"]))


def test_a_base_has_a_size_and_a_rate_of_its_own():
    recipe = override(recipes.get("finetune"), ["tuning.base=opentips-nano", "stages.0.size=0"])
    bounds.check(override(recipe, ["stages.0.learning_rate=0"]))
    with pytest.raises(ValueError, match="or 0 for the base's own"):
        bounds.check(override(recipe, ["stages.0.size=15"]))


def test_the_command_line_refuses_before_it_trains(tmp_path, capsys):
    command = ["pretrain", "--recipe", "smoke", "--out", str(tmp_path / "run")]
    for more in (["--dry-run"], []):
        assert main([*command, *more, "stages.0.batch_size=0"]) == 2
        assert capsys.readouterr().err == "stages.0.batch_size=0 cannot be: a whole number from 1.\n"
    assert main([*command, "--resume"]) == 2
    assert "holds no run to go on with" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
