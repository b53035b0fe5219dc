"""A run with patience ends once pairs kept apart are found no better, and leaves the encoder that found them best.

python -m pytest tests/test_early.py
"""

import json
import os

import photos
import pytest
import torch
import torch.multiprocessing as mp
from run_folders import logged, run_folder, short
from safetensors.torch import load_file
from transformers import Tipsv2Model

from demos.train import state, views
from train.network.tokenizer import train_tokenizer
from train.network.towers import build
from train.objectives import Objective
from train.recipe import recipes
from train.recipe.bounds import check
from train.recipe.metrics import left
from train.recipe.overrides import override
from train.run import checkpoint, early, monitor, recall, shown
from train.run.loop import fit

THIRD = 1 / 3  # is rounded in metrics.jsonl
RECALLS = {0: 0.9, 1: 0.25, 2: THIRD, 3: THIRD, 4: 0.25, 5: 0.75, 6: 0.5, 7: 0.5, 8: 0.5, 9: 0.5, 10: 0.5}


def ended(recalls, patience):
    """After which of these samples a run ends, by counting; None: after none."""
    best, since = None, 0
    for number, found in enumerate(recalls, 1):
        best, since = (found, 0) if best is None or found > best else (best, since + 1)
        if patience and since == patience:
            return number
    return None


@pytest.mark.parametrize("patience", [0, 1, 2, 3])
def test_a_run_ends_after_so_many_samples_that_were_no_better(patience):
    draws = torch.randint(4, (200, 5), generator=torch.Generator().manual_seed(0)).tolist()
    for draw in draws:
        over = (k for k in range(1, 6) if early.over({0: 9.0} | dict(enumerate(draw[:k], 1)), patience))
        assert next(over, None) == ended(draw, patience)
    assert any(ended(draw, 2) for draw in draws) and not all(ended(draw, 2) for draw in draws)


def test_the_first_of_the_best_samples_is_left_and_never_the_start():
    held = {0: 0.9, 10: 0.2, 20: 0.6, 30: 0.6, 40: 0.1}
    assert early.best(held) == 20 and early.best(held, [10, 30, 40]) == 30
    assert early.best({0: 0.9}) is None and early.best(held, [5]) is None
    assert not early.over({}, 1)
    sentence = left(20, 40, 50, held)
    assert sentence.startswith("The run ended after step 40 of 50, ") and "that of step 20, where 60 % of" in sentence
    assert sentence.endswith(", and after step 40 10 %. Before the first step it was 90 %.")
    assert left(50, 50, 50, {0: 0.1, 50: 0.5}).endswith(
        "of step 50, where most pairs kept apart were found at once, 50 %."
    )


@pytest.mark.parametrize(
    "fields, what",
    [
        (["patience=-1"], "patience=-1 cannot be: a whole number from 0"),
        (["patience=1", "data.source=photos"], "patience=1 cannot be: 0 unless data.held_out keeps pairs apart"),
        (["patience=1", "data.held_out=0.2"], "patience=1 cannot be: 0 unless"),  # of scenes
        (["patience=1", "data.source=photos", "data.held_out=0.2", "sample_every=0"], "patience=1 cannot be: 0 unless"),
    ],
)
def test_patience_needs_a_measure(fields, what):
    with pytest.raises(ValueError, match=what):
        check(override(recipes.get("smoke"), fields))


# The run

FIELDS = [
    *("precision=fp32", "tower.vocabulary=400", "trackers=", "workers=0", "warmup=1", "stages.*.batch_size=4"),
    *("data.held_out=0.2", "sample_every=1", "save_every=1000", "stages.1.local_crops=0", "stages.1.patch_weight=0"),
]


def scripted(run, asked=None):
    """In the stead of `recall.measure`, whose numbers of so small a run are luck: RECALLS of the step after the last
    line.
    """

    def measure(*_):
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        step = max((line["step"] for line in lines), default=0)
        if asked is not None:
            asked.append(step)
        return {"recall_learned": 1.0, "recall_held_out": RECALLS[step]}

    return measure


@pytest.fixture
def train(tmp_path, monkeypatch):
    monkeypatch.setattr(monitor, "SCENES", 1)
    monkeypatch.setattr(shown, "IMAGES", 1)
    source = photos.folder(tmp_path / "photos", 20)
    tokenizer = train_tokenizer([f"picture number {i}" for i in range(99)], 400)

    def train(name, *fields, **more):
        """-> the steps that were measured."""
        asked = []
        monkeypatch.setattr(recall, "measure", scripted(tmp_path / name, asked))
        chosen = override(recipes.get("smoke"), [*FIELDS, f"data.source={source}", *fields])
        torch.manual_seed(0)
        fit(chosen, Objective(chosen, build(chosen, 400)), tokenizer, tmp_path / name, **{"show": False} | more)
        return asked

    return train


def lines(run):
    noise = ("images_per_second", "data_wait")
    logged = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key not in noise} for line in logged]


def same(run, step):
    """Whether the model is that of this step's checkpoint."""
    state = load_file(run / "checkpoints" / f"step-{step:07d}" / "state.safetensors")
    model = Tipsv2Model.from_pretrained(run / "model").state_dict()
    return all(torch.equal(value, state[f"objective.model.{key}"].view(value.shape)) for key, value in model.items())


@pytest.mark.slow
def test_a_run_ends_early_with_its_best_weights_and_goes_on_without_patience(train, tmp_path, capsys):
    run = tmp_path / "run"
    assert train("run", "patience=2", "milestones=0", show=True) == [0, 1, 2, 3, 4]
    said = left(2, 4, 10, dict(list(RECALLS.items())[:5]))
    assert said in capsys.readouterr().out
    assert lines(run)[-1] == {"step": 4, "best_step": 2} and checkpoint.steps(run) == [2, 4]
    assert same(run, 2) and not same(run, 4)
    assert not any("optimizer" in key for key in load_file(run / "checkpoints" / "step-0000002" / "state.safetensors"))
    before = lines(run)
    assert train("run", "patience=2", "milestones=0", resume=True) == []  # it has ended, and does so again
    assert lines(run) == before and same(run, 2)
    assert train("run", "patience=0", resume=True) == [5, 6, 7, 8, 9, 10]
    assert lines(run)[-1]["step"] == 10 and "best_step" not in lines(run)[-1] and same(run, 10)


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 3, 4])
def test_a_resumed_run_ends_where_the_other_one_does(step, train, tmp_path, monkeypatch):
    """It died in a sample: before the best one, after it, and in that which ends it."""
    train("whole", "patience=2")
    score = monitor.score_scenes
    scores = iter([score] * step)
    monkeypatch.setattr(monitor, "score_scenes", lambda *given, **more: next(scores)(*given, **more))
    with pytest.raises(StopIteration):
        train("parts", "patience=2")
    monkeypatch.setattr(monitor, "score_scenes", score)
    train("parts", "patience=2", resume=True)
    assert lines(tmp_path / "parts") == lines(tmp_path / "whole") and same(tmp_path / "parts", 2)
    models = [load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "parts")]
    assert all(torch.equal(models[0][key], models[1][key]) for key in models[0])


@pytest.mark.slow
def test_a_run_that_takes_all_its_steps_leaves_its_best_ones_too(train, tmp_path):
    train("run", "patience=9", "milestones=2")
    assert lines(tmp_path / "run")[-1] == {"step": 10, "best_step": 5} and same(tmp_path / "run", 5)
    assert len(checkpoint.steps(tmp_path / "run")) == 3 and {5, 10} < set(checkpoint.steps(tmp_path / "run"))


@pytest.mark.slow
def test_too_few_pairs_to_keep_any_apart_end_nothing(train, tmp_path, capsys):
    few = photos.folder(tmp_path / "few", 8)
    assert train("run", "patience=1", f"data.source={few}", "stages.1.steps=1", show=True) == []
    assert "no pairs are kept apart, so patience ends nothing" in capsys.readouterr().err
    assert lines(tmp_path / "run")[-1]["step"] == 5 and same(tmp_path / "run", 5)


@pytest.mark.slow
def test_of_a_run_at_its_end_one_checkpoint_keeps_its_moments(train, tmp_path):
    """Ten times as many bytes in moments, heads and random state would serve nobody: the others are encoders."""
    train("run", "patience=0", "data.held_out=0", "sample_every=0", "save_every=2")
    places = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert [int(place.name[5:]) for place in places] == [2, 4, 6, 8, 10]
    assert [(place / "trainer.json").exists() for place in places] == [False] * 4 + [True]
    sizes = [(place / "state.safetensors").stat().st_size for place in places]
    model = (tmp_path / "run" / "model" / "model.safetensors").stat().st_size
    assert max(sizes[:4]) < 1.05 * model < 3 * model < sizes[4]


def worker(rank, run, source, sharding):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}  # accelerate asks for them; files bring us together
    torch.set_num_threads(1)
    monitor.SCENES = shown.IMAGES = 1
    recall.measure = scripted(run)
    torch.distributed.init_process_group("gloo", init_method=f"file://{run}.meet", rank=rank, world_size=2)
    fields = [*FIELDS, f"data.source={source}", "patience=1", f"sharding={sharding}", "milestones=0"]
    chosen = override(recipes.get("smoke"), fields)
    torch.manual_seed(0)
    objective, taken = Objective(chosen, build(chosen, 400)), []
    after_step = objective.after_step
    objective.after_step = lambda step: taken.append(step) or after_step(step)
    fit(chosen, objective, train_tokenizer(["picture number"] * 40, 400), run, show=False)
    run.with_name(f"taken-{rank}.json").write_text(json.dumps(taken))


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize("sharding", ["none", "full"])
def test_all_processes_end_when_the_first_one_says_so(sharding, tmp_path):
    """It alone measures. The best sample is the one before the last, which in a sharded run lies in parts."""
    mp.spawn(worker, (tmp_path / "run", photos.folder(tmp_path / "photos", 20), sharding), nprocs=2)
    steps = [json.loads((tmp_path / f"taken-{rank}.json").read_text()) for rank in (0, 1)]
    assert steps == [[0, 1, 2]] * 2
    assert lines(tmp_path / "run")[-1] == {"step": 3, "best_step": 2} and same(tmp_path / "run", 2)


# The tab Train


def test_the_tab_says_why_a_run_ended_before_its_last_step(tmp_path):
    found = [{"step": step, "recall_held_out": RECALLS[step]} for step in range(5)]
    given = [*found[:1], *(line for pair in zip(logged(4), found[1:], strict=True) for line in pair)]
    recipe = short(10)
    run_folder(tmp_path, "early", recipe, [*given, {"step": 4, "best_step": 2}], done=True)
    look = state.look(tmp_path, "early")
    assert (look.state, look.step, look.steps) == ("done", 4, 10)
    assert look.note == left(2, 4, 10, dict(list(RECALLS.items())[:5])) and look.note in views.head(look)
    run_folder(tmp_path, "on", recipe, [*given, {"step": 4, "best_step": 2}, *logged(5)[4:]], done=True)
    assert state.look(tmp_path, "on").state != "done"  # resumed without patience, and stopped
    run_folder(tmp_path, "whole", short(4), logged(4), done=True)
    assert (state.look(tmp_path, "whole").state, state.look(tmp_path, "whole").note) == ("done", "")
