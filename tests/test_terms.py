"""A term of the loss lives in one file: its class is all that its settings, bounds, needs, cost and loss need."""

import subprocess
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

import pytest
import torch
from small import WORDS

from train.data.batches import Batches
from train.network.tokenizer import train_tokenizer
from train.network.towers import build
from train.objectives import Objective
from train.objectives.term import Needs, PairTerm, Positive, Term, Weight, bounds, choices
from train.recipe import bounds as rules
from train.recipe import recipes
from train.recipe.metrics import term_title
from train.recipe.overrides import override, paths
from train.recipe.settings import Recipe, Stage, to_dict
from train.run import cost, dry_run

TERMS = recipes.get("smoke").all_terms()
ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("term", TERMS, ids=lambda term: term.name)
def test_a_terms_file_field_and_metrics_have_one_name(term):
    assert (ROOT / "train" / "objectives" / f"{term.name}.py").is_file()
    assert getattr(recipes.get("smoke"), term.name) == term
    assert term.idle == bool(term.WEIGHTS) and all(allowed for *_, allowed, _ in term.rules(on_kept=False))
    for name in (its.name for its in fields(term)):
        if isinstance(getattr(term, name), float):
            assert name in bounds(type(term)), f"{term.name}.{name} has no bound"
        for value in choices(type(term)).get(name, ()):
            assert getattr(override(recipes.get("smoke"), [f"{term.name}.{name}={value}"]), term.name) is not None


def test_every_term_is_in_the_recipe():
    files = {path.stem for path in (ROOT / "train" / "objectives").glob("*.py") if "Term):" in path.read_text("utf-8")}
    assert files - {"term"} == {term.name for term in TERMS} | {"contrastive"}  # whose settings are the recipe's own


def test_a_choice_that_there_is_not_is_a_sentence_wherever_it_comes_from():
    with pytest.raises(ValueError, match=r"grounding\.features='all' is unknown: choose values or final or both\."):
        type(recipes.get("nano").grounding)(features="all")
    with pytest.raises(ValueError, match=r"sfclip\.form='cosin' is unknown: .*; did you mean 'cosine'\?$"):
        override(recipes.get("sfclip"), ["sfclip.form=cosin"])


def test_terms_are_read_without_torch():
    code = "import sys, importlib\n"
    code += f"for name in {[term.name for term in TERMS]}: importlib.import_module(f'train.objectives.{{name}}')\n"
    code += "assert not {'torch', 'transformers'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# A term that the project does not have: nothing but this class and its field in a recipe.


@dataclass(frozen=True)
class Calm(PairTerm):
    """Value features of an image near their mean."""

    weight: Weight = 0.0
    power: Positive = 1.0
    over: Literal["patches", "images"] = "patches"

    def needs(self, stage: Stage) -> Needs:
        return Needs(values=True, images=0.5)

    def activations(self, stage: Stage, images: float, patch: int) -> float:
        return 1e9 * images

    def build(self, model, guides):
        return {"scale": torch.nn.Parameter(torch.tensor(2.0))}

    def losses(self, view, batch, stage, state):
        spread = view.values.var(1 if self.over == "patches" else 0).mean()
        return {"spread": (self.weight, state.scale * spread), "raw": (None, spread)}


@dataclass(frozen=True)
class WithCalm(Recipe):
    test_terms: Calm = field(default_factory=Calm)  # the name of this file


def calm(*assignments: str) -> WithCalm:
    smoke = recipes.get("smoke")
    return override(WithCalm(**{f.name: getattr(smoke, f.name) for f in fields(smoke)}), list(assignments))


def test_a_new_term_is_its_class_and_its_field():
    off, on = calm(), calm("test_terms.weight=3", "test_terms.over=images", "tower.vocabulary=400")
    with pytest.raises(ValueError, match=r"test_terms\.power=0 cannot be: above 0\."):
        rules.check(override(on, ["test_terms.power=0"]))
    with pytest.raises(ValueError, match="choose patches or images"):
        override(on, ["test_terms.over=words"])
    assert {"test_terms.weight", "test_terms.over"} <= set(paths(WithCalm))
    assert '"test_terms": {"weight": 0.0}' in dry_run.shown(off) and '"power"' in dry_run.shown(on)
    assert to_dict(on)["test_terms"] == {"weight": 3.0, "power": 1.0, "over": "images"}
    stage = on.stages[0]
    assert on.needs(stage) == Needs(values=True, images=0.5) and off.needs(stage) == Needs()
    shapes = cost.Shape(48, 2, 192), cost.Shape(48, 1, 192)
    assert cost.operations(on, stage, *shapes) > 1.2 * cost.operations(off, stage, *shapes)

    torch.manual_seed(0)
    objective = Objective(on, build(on, 400))
    batch = Batches(on, train_tokenizer(WORDS, 400))[0]
    loss, values = objective(batch, stage)
    spread = values["measured/test_terms/raw"]
    assert values["loss/test_terms/spread"].item() == pytest.approx(2 * spread.item())
    rest = (values["loss/contrastive/web"] + values["loss/contrastive/synthetic"]) / 2
    assert loss.item() == pytest.approx((rest + 3 * 2 * spread).item(), rel=1e-6)
    assert "terms.test_terms.scale" in objective.state_dict()
    assert [title for name in values if (title := term_title(name))][-1] == "test terms spread"
    assert cost.memory(on, objective).activations > 1e9 * stage.batch_size
    assert "test_terms" not in Objective(off, build(off, 400)).terms


def test_measures_and_other_numbers_are_no_terms_of_the_loss():
    names = ("loss", "lr", "measured/self_distillation/patch_entropy", "gradient_norm", "miou_values", "data_wait")
    assert not any(map(term_title, names)) and issubclass(Calm, Term)
