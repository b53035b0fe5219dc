"""Runs with sharding=full: two gloo processes hold halves, train as two whole ones do, and leave the same files."""

import json
import os
import shutil

import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file
from transformers import Tipsv2Model

from train.network.tokenizer import train_tokenizer
from train.network.towers import build
from train.objectives import Objective
from train.recipe import recipes
from train.recipe.overrides import override
from train.run import checkpoint, monitor, sharded_checkpoint, shown
from train.run.loop import fit
from train.run.step import agree, optimizer_of

pytestmark = [pytest.mark.slow, pytest.mark.processes]

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
    checkpoint.thin = lambda *given, **more: None  # a run at its end would go on from its newest checkpoint only
    for name, fields in CASES.items():
        for sharding in ("none", "full"):
            meet(rank, folder / name / sharding)
            train(folder / name / sharding, [*fields, f"sharding={sharding}"])
    for name in ("again", "older"):  # as if it had been killed after its third step
        again = folder / "full" / name
        if rank == 0:
            shutil.copytree(folder / "full" / "full", again)
            shutil.rmtree(again / "checkpoints" / "step-0000006")
        if rank == 0 and name == "older":  # when one file held all
            as_one_file(again / "checkpoints" / "step-0000003")
        meet(rank, again)
        train(again, [*CASES["full"], "sharding=full"], seed=9, resume=True)
    meet(rank, folder / "agreed")
    _, flags = agree({"loss": torch.ones(())}, [False, rank == 1])  # the second one's clock
    (folder / f"agreed-{rank}.json").write_text(json.dumps(flags))
    torch.distributed.destroy_process_group()

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
    return read(checkpoint.latest(run))


def read(place):
    """Every tensor of a checkpoint; of one in parts put together, numbers as numbers."""
    if (place / "state.safetensors").exists():
        return load_file(place / "state.safetensors")
    found = {name: torch.empty(size, dtype=dtype) for name, (size, dtype) in sharded_checkpoint.shapes(place).items()}
    sharded_checkpoint.read(place, found, alone=True)
    numbers = [k for k in found if "temperature" in k or k.endswith((".step", ".done"))]
    found |= {k: found[k].view(()) for k in numbers}
    return found


def as_one_file(place):
    whole = read(place)
    for path in place.glob("*.safetensors"):
        path.unlink()
    save_file(whole, place / "state.safetensors")
    (place / "trainer.json").write_text('{"step": 3}')


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


def test_all_processes_follow_the_one_whose_clock_says_so(runs):
    assert [json.loads((runs / f"agreed-{rank}.json").read_text()) for rank in (0, 1)] == [[False, True]] * 2


def test_every_process_writes_its_parts(runs):
    place = checkpoint.latest(runs / "heads" / "full")
    names = {path.name for path in place.iterdir()}
    assert "state.safetensors" not in names and {"trainer.json", "rng.safetensors"} < names
    sizes = list(sharded_checkpoint.files(place).values())
    assert len(sizes) == 2 and max(sizes) < 0.6 * sum(sizes)
    first, second = (load_file(path) for path in sorted(place.glob("shard-*")))
    divided = "objective.model.vision_model.encoder.layer.0.mlp.fc1.weight"
    assert torch.equal(torch.cat([first[divided], second[divided]]), state(runs / "heads" / "full")[divided])


def test_of_an_older_checkpoint_in_parts_the_encoder_stays(runs, tmp_path):
    shutil.copytree(checkpoint.latest(runs / "full" / "full"), tmp_path / "checkpoints" / "step-0000001")
    recipe, objective = setting(CASES["full"], seed=9)
    kept = read(tmp_path / "checkpoints" / "step-0000001")
    for step in (2, 3):
        checkpoint.save(tmp_path, step, objective, optimizer_of(recipe, objective), milestones=3)
    place = tmp_path / "checkpoints" / "step-0000001"
    assert [path.name for path in place.iterdir()] == ["state.safetensors"]
    found = load_file(place / "state.safetensors")
    assert found.keys() == {k for k in kept if k.startswith("objective.model.")}
    assert all(torch.equal(value, kept[key]) and value.shape == kept[key].shape for key, value in found.items())


def test_a_checkpoint_in_parts_that_is_not_whole_is_named(runs, tmp_path):
    place = tmp_path / "checkpoints" / "step-0000003"
    shutil.copytree(checkpoint.latest(runs / "heads" / "full"), place)
    recipe, objective = setting(["tower.width=96", "tower.heads=3"])
    with pytest.raises(ValueError, match="belongs to another recipe: "):
        checkpoint.load(place, objective, optimizer_of(recipe, objective))
    recipe, objective = setting([])
    before = {k: v.clone() for k, v in objective.state_dict().items()}
    second = sorted(place.glob("shard-*"))[1]
    content = second.read_bytes()
    for damage in (content[:-9], b"\x08" * len(content), None):
        second.write_bytes(damage) if damage else second.unlink()
        with pytest.raises(ValueError, match=r"step-0000003 is damaged .*: delete that folder, and --resume goes on"):
            checkpoint.load(place, objective, optimizer_of(recipe, objective))
    assert all(torch.equal(v, before[k]) for k, v in objective.state_dict().items())


@pytest.mark.parametrize("name", ["again", "older"])
def test_a_resumed_sharded_run_is_bit_for_bit_the_uninterrupted_one(runs, name):
    whole, again = state(runs / "full" / "full"), state(runs / "full" / name)
    assert whole.keys() == again.keys()
    assert all(torch.equal(again[k], v) for k, v in whole.items())
    logs = [(runs / "full" / name / "metrics.jsonl").read_text().splitlines() for name in ("full", name)]
    losses = [[(x["step"], x["loss"], x["gradient_norm"]) for x in map(json.loads, log) if "loss" in x] for log in logs]
    assert len(losses[0]) == 6 and losses[0] == losses[1]


def test_each_process_holds_half_and_the_halves_are_the_encoder(runs):
    first, second = (json.loads((runs / f"held-{rank}.json").read_text()) for rank in (0, 1))
    assert first["held"] + second["held"] == first["all"] + 1  # both hold the temperature
    assert max(first["held"], second["held"]) < 0.52 * first["all"]
    assert first["same"]


def test_checkpoint_and_export_are_those_of_any_run(runs):
    recipe, objective = setting(["sharding=full"], seed=9)
    optimizer = optimizer_of(recipe, objective)
    assert checkpoint.load(checkpoint.latest(runs / "heads" / "full"), objective, optimizer) == 3
    kept = state(runs / "heads" / "full")
    moved = {n: p for n, p in objective.named_parameters() if p in optimizer.state}
    for name, parameter in moved.items():
        for key, value in optimizer.state[parameter].items():
            assert torch.equal(value, kept[f"optimizer.{name}.{key}"]), (name, key)
    assert {k for k in kept if k.startswith("optimizer.")} == {
        f"optimizer.{name}.{key}" for name in moved for key in ("step", "exp_avg", "exp_avg_sq")
    }
    model = Tipsv2Model.from_pretrained(runs / "heads" / "full" / "model")
    for name, value in model.state_dict().items():
        assert torch.equal(value, kept[f"objective.model.{name}"]), name
        assert torch.equal(value, objective.model.state_dict()[name]), name


@pytest.mark.slow
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
