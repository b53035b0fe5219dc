"""The cost model against torch's own counter of operations and what autograd keeps; the linear fit against numpy."""

import numpy as np
import pytest
import torch
import unimodal
from small import save_teacher, small
from torch.utils.flop_counter import FlopCounterMode
from tqdm.auto import tqdm
from transformers import Tipsv2Config, Tipsv2Model

from train.data.batches import Batches
from train.network.tokenizer import train_tokenizer
from train.network.towers import build
from train.objectives import Objective
from train.recipe import recipes
from train.recipe.overrides import override
from train.run import cost, loop, paper
from train.run import start as run
from train.tools import benchmark


@pytest.mark.parametrize("ema", ["heads", "full"])
@pytest.mark.parametrize("step, within", [(0, 0.05), (4, 0.05)])
def test_operations_are_what_torch_counts(ema, step, within, monkeypatch):
    """Stage 0 is contrastive alone, stage 1 has every term; the model counts no embeddings, losses or norms."""
    fields = ["tower.vocabulary=400", "tower.width=96", "tower.heads=4", f"self_distillation.ema={ema}"]
    recipe = override(recipes.get("smoke"), fields)
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
    assert shape == paper.TOWERS["g14"][0]
    blocks = shape.parameters
    kept = sum(p.numel() for n, p in model.vision_model.named_parameters() if "encoder.layer" in n)
    assert blocks == pytest.approx(kept, rel=0.01) and blocks == pytest.approx(1.1e9, rel=0.05)


def test_linearity_is_the_fit_of_numpy():
    points = [(1.0, 2.1), (2.0, 3.9), (4.0, 8.2), (8.0, 15.5)]
    found, (x, y) = benchmark.linearity(points), np.array(points).T
    assert found["r_squared"] == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2)
    assert found["exponent"] == pytest.approx(np.polyfit(np.log(x), np.log(y), 1)[0])
    assert benchmark.linearity([(k, k**2) for k in (1.0, 2.0, 5.0)])["exponent"] == pytest.approx(2)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory, tiny_folder):
    top = tmp_path_factory.mktemp("teachers")
    return unimodal.save(top / "unimodal", tiny_folder) | {"tipsv2": save_teacher(top / "encoder")}


def opened(name, teachers, *fields):
    """A small recipe's parts, and its batch at the last stage."""
    recipe = small(name, 4 * len(recipes.get(name).stages), teachers, *fields)
    parts = run.prepare(recipe, teachers["tipsv2"])
    return parts, Batches(parts.recipe, parts.tokenizer)[recipe.steps - 1], parts.recipe.stages[-1]


@pytest.mark.parametrize(
    "name, fields",
    [
        ("nano", []),
        ("nano", ["stages.*.grounding=0"]),
        ("nano-distill", []),
        ("nano-distill", ["distillation.text=teacher", "stages.0.mask_ratio=0.5"]),
        ("sfclip", ["sfclip.share=1"]),
        ("finetune", ["tuning.part=last", "tuning.layers=1"]),
        ("finetune", ["tuning.part=lora", "tuning.rank=1"]),
        ("finetune", ["tuning.towers=vision"]),
        ("smoke", ["checkpointing=true"]),
        ("smoke", ["accumulate=2"]),
    ],
)
def test_every_kind_of_step_costs_what_torch_counts(teachers, name, fields, monkeypatch):
    """Teachers look too, frozen parts are not gone back through, and what is not kept is computed again."""
    monkeypatch.setattr(run, "TOKENIZER_PAIRS", 60)
    parts, batch, stage = opened(name, teachers, *fields)
    lengths = [batch[f"{role}_ids"].shape[1] for role in ("web", "synthetic")]
    monkeypatch.setattr(cost, "TEXT_TOKENS", sum(lengths) / 2)
    with FlopCounterMode(display=False) as counter:
        parts.objective(batch, stage)[0].backward()
    counted = sum(n for op, n in counter.get_flop_counts()["Global"].items() if "convolution" not in str(op))
    towers = cost.towers(parts.objective.model)
    predicted = cost.operations(parts.recipe, stage, *towers)
    predicted += cost.teaching(parts.recipe, stage, parts.teacher, parts.unimodal)
    assert predicted * stage.batch_size == pytest.approx(counted, rel=0.15)  # without cutting images into patches


def kept(objective, batch, stage, half=False):
    """Bytes that autograd keeps for the backward pass, parameters apart, each tensor once."""
    own, found = {p.untyped_storage().data_ptr() for p in objective.parameters()}, {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage  # held, so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            objective(batch, stage)
    return sum(storage.nbytes() for storage in found.values())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("fields", [[], ["attention=sdpa", "grounding.weight=0"], ["self_distillation.prototypes=999"]])
def test_memory_is_what_autograd_keeps(precision, fields, monkeypatch):
    fields = [f"precision={precision}", "stages.1.size=112", "tower.width=96", *fields]
    recipe = override(recipes.get("smoke"), ["grounding.weight=1", "tower.vision_layers=4", *fields])
    tokenizer = train_tokenizer(["a dog on the grass, under the sky"] * 20, 400)
    torch.manual_seed(0)
    objective = Objective(recipe, build(recipe, 400))
    batch, stage = Batches(recipe, tokenizer)[4], recipe.stages[1]
    lengths = [batch[f"{role}_ids"].shape[1] for role in ("web", "synthetic")]
    monkeypatch.setattr(cost, "TEXT_TOKENS", sum(lengths) / 2)
    found = cost.memory(recipe, objective)
    assert found.stage == 1 and found.teachers == 0
    measured = kept(objective, batch, stage, precision == "bf16")
    if precision == "bf16":  # copies of the weights, which are counted with them
        measured -= 2 * sum(p.numel() for p in objective.parameters() if p.requires_grad)
    assert found.activations == pytest.approx(measured, rel=0.2)


def test_state_is_weights_gradients_and_moments():
    """The sizes of what an optimiser holds after a step, and its share of a process among several."""
    recipe = override(recipes.get("smoke"), ["precision=fp32"])
    objective = Objective(recipe, build(recipe, 400))
    trained = [p for p in objective.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    sum(p.sum() for p in trained).backward()
    optimizer.step()
    tensors = [*objective.parameters(), *(p.grad for p in trained)]
    tensors += [v for state in optimizer.state.values() for k, v in state.items() if k != "step"]
    alone = cost.memory(recipe, objective)
    assert alone.state == sum(t.numel() * t.element_size() for t in tensors)
    copied, divided = (cost.memory(override(recipe, f), objective, 4) for f in ([], ["sharding=full"]))
    assert divided.state == alone.state / 4
    assert copied.state == alone.state + sum(p.grad.numel() * 4 for p in trained)  # DDP's buckets
    assert divided.activations < 0.3 * alone.activations
    read = cost.memory(recipe, objective, teachers=[build(recipe, 400).bfloat16()])
    assert read.total - alone.total == 2 * sum(p.numel() for p in objective.model.parameters())


def test_memory_grows_with_the_batch_and_shrinks_with_parts():
    recipe = recipes.nano()
    with torch.device("meta"):
        objective = Objective(recipe, build(recipe, 400))
    base = cost.memory(recipe, objective).activations
    for field in ("accumulate=8", "checkpointing=true"):
        assert cost.memory(override(recipe, [field]), objective).activations < base / 2
    halves = [f"stages.{k}.batch_size={stage.batch_size // 2}" for k, stage in enumerate(recipe.stages)]
    assert cost.memory(override(recipe, halves), objective).activations == pytest.approx(base / 2, rel=0.1)


def test_the_benchmark_takes_the_steps_of_a_run(tmp_path):
    """Clipping, learning rates and averages among them: the weights after two steps are a run's."""
    fields = ["precision=fp32", "trackers=", "sample_every=0", "clip=0.01", "stages.1.steps=2", "warmup=3"]
    recipe = override(recipes.get("smoke"), fields)
    trainer = benchmark.Trainer(recipe, recipe.stages[1])
    torch.manual_seed(0)
    objective = Objective(trainer.recipe, build(trainer.recipe, recipe.tower.vocabulary))
    loop.fit(trainer.recipe, objective, train_tokenizer(benchmark.WORDS, 400), tmp_path / "run", show=False)
    for _ in range(2):
        took, waited = trainer.step()
    assert 0 < waited < took
    ours, theirs = trainer.objective.state_dict(), objective.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name].cpu(), theirs[name].cpu()) for name in ours)


def test_medians_of_steps_with_and_without_their_batch():
    class Timed:
        def __init__(self, *took):
            self.took = iter(took)

        def step(self):
            return next(self.took)

    slow = Timed((99.0, 0.0), (4.0, 1.0), (10.0, 5.0), (8.0, 4.0))  # the first warms up
    quick = Timed((99.0, 0.0), (2.0, 0.5), (2.0, 0.5), (2.0, 0.5))
    found = benchmark.in_turns({"slow": slow, "quick": quick}, 3, tqdm(disable=True), warm=1)
    assert found == {"slow": (8.0, 4.0, 0.5), "quick": (2.0, 1.5, 0.25)}
