"""Runs with sharding=full: two gloo processes hold halves, train as two whole ones do, and leave the same files."""

import json
import os
import shutil

import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file
from transformers import Tipsv2Model

from train.network.tokenizer import train_tokenizer
from train.network.towers import build
from train.objectives import Objective
from train.recipe import recipes
from train.recipe.overrides import override
from train.run import checkpoint, monitor, shown
from train.run.loop import _optimizer, fit

WORDS = ["a dog on the grass, under the sky", "two cats in the snow", "a red car at the left"] * 20
FIELDS = [
    *("precision=fp32", "tower.vocabulary=400", "trackers=", "workers=0", "save_every=3", "sample_every=1000"),
    *("stages.0.steps=1", "stages.1.steps=2", "stages.0.batch_size=4", "stages.1.batch_size=4"),
]
CASES = {
    "heads": [],
    "full": ["self_distillation.ema=full", "stages.1.steps=5"],  # six steps; the run that is resumed
    "parts": ["accumulate=2", "checkpointing=true", "grounding.weight=1", "grounding.features=both", "sparc.weight=1"],
}


def setting(fields, seed=0):
    recipe = override(recipes.get("smoke"), FIELDS + list(fields))
    torch.manual_seed(seed)
    return recipe, Objective(recipe, build(recipe, 400))


def meet(rank, place):
    """Processes meet before every run, as its end parts them."""
    place.parent.mkdir(exist_ok=True)
    torch.distributed.init_process_group("gloo", init_method=f"file://{place}.meet", rank=rank, world_size=2)


def train(folder, fields, seed=0, resume=False):
    recipe, objective = setting(fields, seed)
    fit(recipe, objective, train_tokenizer(WORDS, 400), folder, resume, show=False)


def worker(rank, folder):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}  # accelerate asks for them; files bring us together
    torch.set_num_threads(1)
    monitor.SCENES = shown.IMAGES = 1  # what the samples show is not looked at here
    for name, fields in CASES.items():
        for sharding in ("none", "full"):
            meet(rank, folder / name / sharding)
            train(folder / name / sharding, [*fields, f"sharding={sharding}"])
    again = folder / "full" / "again"  # as if it had been killed after its third step
    if rank == 0:
        shutil.copytree(folder / "full" / "full", again)
        shutil.rmtree(again / "checkpoints" / "step-0000006")
    meet(rank, again)
    train(again, [*CASES["full"], "sharding=full"], seed=9, resume=True)

    from train.parallel.sharding import Shards

    meet(rank, folder / "held")
    _, objective = setting(CASES["full"])
    before = {k: v.clone() for k, v in objective.model.state_dict().items()}
    shards = Shards(objective, torch.device("cpu"))
    encoder = shards.encoder()
    held = [p.to_local().numel() if hasattr(p, "to_local") else p.numel() for p in objective.parameters()]
    same = encoder is not None and all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())
    (folder / f"held-{rank}.json").write_text(
        json.dumps({"held": sum(held), "all": sum(p.numel() for p in objective.parameters()), "same": same})
    )
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    mp.spawn(worker, (folder,), nprocs=2)
    return folder


def state(run):
    return load_file(checkpoint.latest(run) / "state.safetensors")


@pytest.mark.parametrize("case", CASES)
def test_sharded_training_is_training(runs, case):
    """Sums are taken in another order, so moments agree to a rounding of float32. Adam divides by their size: where a
    gradient is all rounding, a weight moves as far as others do (1e-3 a step) and nowhere in particular. That is so of
    the bias of keys, which adds the same to all scores of a query, and of single weights elsewhere.
    """
    whole, parts = state(runs / case / "none"), state(runs / case / "full")
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        found = parts[name]
        assert found.shape == value.shape and found.dtype == value.dtype, name
        difference = (found.double() - value.double()).abs()
        if name.startswith("objective.") and not name.endswith("k_proj.bias"):
            assert difference.square().mean().sqrt() < 1e-6 and difference.max() < 1e-4, name
        if name.startswith("optimizer."):
            assert difference.max() <= 2e-5 * value.double().abs().max() + 1e-8, name


def test_a_resumed_sharded_run_is_bit_for_bit_the_uninterrupted_one(runs):
    whole, again = state(runs / "full" / "full"), state(runs / "full" / "again")
    assert whole.keys() == again.keys()
    assert all(torch.equal(again[k], v) for k, v in whole.items())
    logs = [(runs / "full" / name / "metrics.jsonl").read_text().splitlines() for name in ("full", "again")]
    losses = [[(x["step"], x["loss"], x["gradient_norm"]) for x in map(json.loads, log) if "loss" in x] for log in logs]
    assert len(losses[0]) == 6 and losses[0] == losses[1]


def test_each_process_holds_half_and_the_halves_are_the_encoder(runs):
    first, second = (json.loads((runs / f"held-{rank}.json").read_text()) for rank in (0, 1))
    assert first["held"] + second["held"] == first["all"] + 1  # both hold the temperature
    assert max(first["held"], second["held"]) < 0.52 * first["all"]
    assert first["same"]


def test_checkpoint_and_export_are_those_of_any_run(runs):
    recipe, objective = setting(["sharding=full"], seed=9)
    optimizer = _optimizer(recipe, objective)
    assert checkpoint.load(checkpoint.latest(runs / "heads" / "full"), objective, optimizer) == 3
    kept = state(runs / "heads" / "full")
    moved = {n: p for n, p in objective.named_parameters() if p in optimizer.state}
    assert {k for k in kept if k.startswith("optimizer.")} == {
        f"optimizer.{name}.{key}" for name in moved for key in ("step", "exp_avg", "exp_avg_sq")
    }
    model = Tipsv2Model.from_pretrained(runs / "heads" / "full" / "model")
    for name, value in model.state_dict().items():
        assert torch.equal(value, kept[f"objective.model.{name}"]), name
        assert torch.equal(value, objective.model.state_dict()[name]), name


def test_one_process_has_nothing_to_divide(tmp_path, monkeypatch):
    monkeypatch.setattr(monitor, "SCENES", 1)
    for sharding in ("none", "full"):
        train(tmp_path / sharding, ["stages.0.steps=1", "stages.1.steps=1", f"sharding={sharding}"])
    none, full = state(tmp_path / "none"), state(tmp_path / "full")
    assert none.keys() == full.keys() and all(torch.equal(full[k], v) for k, v in none.items())


@pytest.mark.parametrize(
    "fields, sentence",
    [(["sharding=ful"], "did you mean 'full'"), (["sharding=full", "precision=fp16"], "set precision to bf16 or fp32")],
)
def test_what_cannot_be_is_a_sentence(tmp_path, fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        train(tmp_path / "run", fields)
    assert not (tmp_path / "run").exists()
