"""The cost model against torch's own counter of operations, and the linear fit against numpy."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import Tipsv2Config, Tipsv2Model

from train import benchmark, cost, recipes, settings
from train.data.batches import Batches
from train.objectives import Objective
from train.objectives.towers import build
from train.tokenizer import train_tokenizer


@pytest.mark.parametrize("ema", ["heads", "full"])
@pytest.mark.parametrize("step, within", [(0, 0.05), (4, 0.05)])
def test_operations_are_what_torch_counts(ema, step, within, monkeypatch):
    """Stage 0 is contrastive alone, stage 1 has every term; the model counts no embeddings, losses or norms."""
    fields = ["tower.vocabulary=400", "tower.width=96", "tower.heads=4", f"self_distillation.ema={ema}"]
    recipe = settings.override(recipes.get("smoke"), fields)
    tokenizer = train_tokenizer(["a dog on the grass, under the sky"] * 20, 400)
    objective = Objective(recipe, model := build(recipe, 400))
    batch, stage = Batches(recipe, tokenizer)[step], recipe.stage_at(step)
    lengths = [batch[f"{role}_ids"].shape[1] for role in ("web", "synthetic")]
    monkeypatch.setattr(cost, "TEXT_TOKENS", sum(lengths) / 2)
    with FlopCounterMode(display=False) as counter:
        objective(batch, stage)[0].backward()
    patchify = 2 * (stage.size // 14) ** 2 * 588 * 96 * 2 * (2 if step else 1)  # forward and weight gradient
    predicted = cost.operations(recipe, stage, *cost.towers(model)) * stage.batch_size
    assert counter.get_total_flops() - patchify * stage.batch_size == pytest.approx(predicted, rel=within)


def test_the_giants_shape_is_the_released_one():
    """1.1 billion parameters in the vision tower (official README), SwiGLU hidden width 4096."""
    vision = {"hidden_size": 1536, "num_hidden_layers": 40, "num_attention_heads": 24, "use_swiglu_ffn": True}
    with torch.device("meta"):
        config = Tipsv2Config(vision_config=vision, text_config={"hidden_size": 1536, "num_hidden_layers": 1})
        model = Tipsv2Model(config)
    shape, _ = cost.towers(model)
    assert shape == benchmark.GIANT[0]
    blocks = shape.layers * (4 * shape.width**2 + shape.matrices * shape.width * shape.hidden)
    kept = sum(p.numel() for n, p in model.vision_model.named_parameters() if "encoder.layer" in n)
    assert blocks == pytest.approx(kept, rel=0.01) and blocks == pytest.approx(1.1e9, rel=0.05)


def test_linearity_is_the_fit_of_numpy():
    points = [(1.0, 2.1), (2.0, 3.9), (4.0, 8.2), (8.0, 15.5)]
    found, (x, y) = benchmark.linearity(points), np.array(points).T
    assert found["r_squared"] == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2)
    assert found["exponent"] == pytest.approx(np.polyfit(np.log(x), np.log(y), 1)[0])
    assert benchmark.linearity([(k, k**2) for k in (1.0, 2.0, 5.0)])["exponent"] == pytest.approx(2)


def test_memory_grows_with_the_batch_and_shrinks_with_parts():
    recipe = recipes.nano()
    objective = Objective(recipe, model := build(recipe, 400))
    vision, heads = cost.towers(model)[0], recipe.tower.heads
    base = cost.memory(recipe, objective, vision, heads)
    assert base > sum(p.numel() for p in objective.parameters() if p.requires_grad) * 16
    assert cost.memory(settings.override(recipe, ["accumulate=8"]), objective, vision, heads) < base / 2
    assert cost.memory(settings.override(recipe, ["checkpointing=true"]), objective, vision, heads) < base / 2
    assert Tipsv2Model is type(model)
