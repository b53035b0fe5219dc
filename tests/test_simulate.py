"""train simulate: the real order over pairs without pictures; what it counts, and what it computes of failures."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from train.__main__ import main
from train.cli import arguments
from train.run import failures, machines, paper
from train.tools import simulate, simulated_order
from train.tools.simulated_data import Numbers, NumbersOfTars, write_tars
from train.tools.simulated_order import Case, Ticks, measure
from train.tools.simulated_report import report


class Bar:
    """Counts what a progress bar is told."""

    def __init__(self):
        self.done = 0

    def update(self, count):
        self.done += count


@pytest.fixture
def here(monkeypatch):
    """A process that starts is this one: a new one imports torch for seconds."""
    monkeypatch.setattr(simulated_order, "start_alone", lambda *case: simulated_order._start(*case, began=0.0))


def test_ticks_count_pairs_that_come_twice_and_never():
    ticks = Ticks(10)
    for rows in ([[0, 1], [2, 3]], [[3, 3], [9, 0]]):
        ticks.add(np.array(rows))
    assert ticks.counts() == {"shown": 8, "twice": 3, "left_out": 5}


@pytest.mark.parametrize("pairs, shards, processes", [(5000, 40, 1), (5000, 40, 4), (5003, 37, 4), (5003, 0, 4)])
def test_an_epoch_shows_no_pair_twice_and_resumes_alike(tmp_path, here, pairs, shards, processes):
    case, bar = Case(pairs, shards, processes, 64), Bar()
    tars = write_tars(tmp_path / "tars", shards) if shards else None
    found = measure(case, tmp_path, tars, bar)
    share = 64 // processes
    assert found["epoch"]["twice"] == 0 and found["epoch"]["shown"] + found["epoch"]["left_out"] == pairs
    assert found["epoch"]["left_out"] < (64 if not shards else processes * share)  # what fills no batch
    assert found["resumed"] == found["sampled"] == 3 and found["start"]["as_shown"]
    assert found["others"]["processes"] == (2 if processes == 1 else processes // 2)
    if shards:
        counts = found["others"]["counts"]
        assert counts["shown"] - counts["twice"] + counts["left_out"] == pairs
        assert counts["twice"] < 0.2 * pairs  # of the shards that were open
    else:
        assert found["others"]["same_step"]
    assert bar.done >= found["epoch"]["shown"]


def test_an_order_that_shows_a_pair_twice_is_seen(tmp_path, here, monkeypatch):
    monkeypatch.setattr(simulated_order.shuffled.__globals__["TableOrder"], "steps", lambda *_: 80)  # of 78
    assert measure(Case(5003, 0, 4, 64), tmp_path, None, Bar())["epoch"]["twice"] > 0


def test_numbers_are_in_equal_shards():
    pairs = Numbers(103, 10)
    read = [list(pairs.read(shard)) for shard in range(10)]
    assert sum(read, []) == list(range(103)) and {len(shard) for shard in read} == {10, 11}
    assert [pairs.size(shard) for shard in range(10)] == list(map(len, read))
    assert len(Numbers(7)) == 7 and Numbers(7).indexed
    with pytest.raises(TypeError):
        len(pairs)


def test_tars_are_opened_and_numbers_counted(tmp_path):
    pairs = NumbersOfTars(100, write_tars(tmp_path / "tars", 12))
    assert pairs.shards == 12 and set(pairs.state()) == {"files", "times"}
    assert list(pairs.read(3)) == list(range(25, 33)) and pairs.was_read == 8


@pytest.mark.processes
@pytest.mark.slow
def test_the_command(capsys):
    command = ["simulate", "--pairs", "4e3,5e3", "--shards", "40", "--processes", "2", "--batch", "64", "--json"]
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["orders"]) == {f"{pairs} 2 {kind}" for pairs in (4000, 5000) for kind in ("shards", "table")}
    start = found["orders"]["5000 2 shards"]["start"]
    assert start["as_shown"] and 50 < start["import_mb"] <= start["peak_mb"] < 1000
    assert 0 < start["import_seconds"] < start["seconds"] and start["cpu_seconds"] > 0
    text = report(found)
    assert "5,000 pairs, 2 processes, table" in text and "4 of 4" in text and "the same pairs" in text


@pytest.mark.parametrize(
    "given, said",
    [
        (["--processes", "100", "--shards", "99"], "--processes 100 --shards 99: every process would read every shard"),
        (["--batch", "32", "--processes", "64"], "a process needs a pair a step; give a batch of at least 128"),
        (["--batch", "8192", "--processes", "500"], "give a multiple of 1000"),
        (["--pairs", "1000", "--shards", "1001"], "a shard needs a pair; give at most 1000 shards"),
        (["--pairs", "1000", "--shards", "10", "--processes", "1", "--batch", "1002"], "a batch holds different pairs"),
        (["--pairs", "5000", "--shards", "520", "--batch", "4096", "--processes", "512"], ""),
        (["--pairs", "9000", "--shards", "600", "--batch", "8192"], "hold fewer pairs than its 16 of a batch"),
        (["--pairs", "1e15"], "--pairs 1e15: a whole number from 1 to 2e+09"),
        (["--pairs", "-3"], "--pairs -3: a whole number"),
        (["--pairs", "many"], "--pairs many: a whole number"),
        (["--pairs", "nan"], "--pairs nan: a whole number"),
        (["--processes", "1.5"], "--processes 1.5: a whole number"),
        (["--shards", "10,20"], "only --pairs and --processes take several"),
        (["--machines", "abacus"], "choose among v5e, a100, h100"),
        (["--orders", "heap"], "choose among shards, table"),
        (["--disk-gb", "0"], "--disk-gb 0: a number above 0"),
        (["--chip-mtbf-hours", "inf"], "--chip-mtbf-hours inf: a number above 0"),
        (["--utilisation", "2"], "a share of the peak"),
        (["--workers", "0"], "at least one process has to read"),
    ],
)
def test_what_no_run_can_be_is_a_sentence_at_once(given, said, capsys, monkeypatch):
    monkeypatch.setattr(simulated_order, "measure", lambda *_: pytest.fail("it began"))
    if not said:
        assert simulate.check(arguments.parse(["simulate", *given], "")) == [(5000, 512)]
        return
    assert main(["simulate", *given]) == 2
    errors = capsys.readouterr().err
    assert said in errors and len(errors.strip().splitlines()) == 1


def drawn_time(work, interval, save, restart, mtbf, rng):
    """A run with failures, event after event."""
    time = done = 0.0
    until = rng.exponential(mtbf)
    while done < work:
        piece = min(interval, work - done)
        if until >= piece + save:
            time, until, done = time + piece + save, until - piece - save, done + piece
            continue
        time += until
        while (until := rng.exponential(mtbf)) < restart:  # it may die while it starts
            time += until
        time, until = time + restart, until - restart
    return time


@pytest.mark.parametrize(
    "interval, save, restart, mtbf", [(1.0, 0.1, 0.3, 5.0), (4.0, 0.1, 0.3, 5.0), (1.0, 0.5, 2, 3)]
)
def test_expected_time_is_that_of_drawn_failures(interval, save, restart, mtbf):
    rng = np.random.default_rng(0)
    drawn = [drawn_time(40.0, interval, save, restart, mtbf, rng) for _ in range(3000)]
    error = np.std(drawn) / len(drawn) ** 0.5
    assert failures.expected_time(40.0, interval, save, restart, mtbf) == pytest.approx(np.mean(drawn), abs=4 * error)


@pytest.mark.parametrize("save, mtbf", [(0.01, 10.0), (0.3, 10.0), (2.0, 10.0)])
def test_the_best_interval_is_where_the_expected_time_is_least(save, mtbf):
    intervals = np.geomspace(save / 10, 10 * mtbf, 20_000)
    times = [failures.expected_time(1.0, interval, save, 0.1, mtbf) for interval in intervals]
    best = failures.best_interval(save, mtbf)
    assert failures.expected_time(1.0, best, save, 0.1, mtbf) == pytest.approx(min(times), rel=1e-3)
    assert failures.best_interval(1e-6, 10.0) == pytest.approx((2 * 1e-6 * 10) ** 0.5, rel=1e-2)  # Young's
    assert failures.expected_time(1.0, 1e6, save, 0.1, mtbf) == np.inf


def test_what_one_rare_failure_costs():
    """Drawn: it comes anywhere between two saves."""
    moments = np.random.default_rng(0).uniform(0, 30 + 2, 200_000)
    assert failures.lost_a_failure(30, 2, 5) == pytest.approx(moments.mean() + 5, rel=0.01)


def options(**given):
    parsed = vars(arguments.parse(["simulate"], "")) | given
    return SimpleNamespace(**parsed)


def test_days_and_money_of_the_papers_run():
    found = simulate.on_paper(options(), paper.PAIRS, paper.CHIPS, paper.BATCH, 10.0)
    v5e = found["machines"]["v5e"]
    assert v5e["days"] == pytest.approx(paper.DAYS)  # whose chips and days say what is reached of the peak
    assert v5e["dollars"] == pytest.approx(2 * 24 * 512 * machines.MACHINES["v5e"].price)
    assert v5e["days"] < v5e["days_with_failures"] < 1.02 * v5e["days"]
    half = simulate.on_paper(options(price=2.0), paper.PAIRS, 256, paper.BATCH, 10.0)["machines"]
    assert half["h100"]["days"] == pytest.approx(2 * found["machines"]["h100"]["days"])
    assert half["h100"]["dollars"] == pytest.approx(half["h100"]["days"] * 24 * 256 * 2.0)
    assert found["run"]["images"] == 90_000 * 8192 + 9_000 * 4096
    assert found["bytes"]["read_of_shards"] == 8 * found["bytes"]["read_of_a_table"]
    assert found["failures"]["hours_between"] == pytest.approx(50_700 / 512)
    lost = [each["lost_share"] for each in found["failures"]["by_interval"].values()]
    assert min(lost) == found["failures"]["by_interval"]["best"]["lost_share"]


def test_a_checkpoint_of_the_paper_is_what_is_written(tmp_path):
    """The matrices of a small run's own checkpoint."""
    from safetensors.torch import load_file

    from train.network.towers import build
    from train.objectives import Objective
    from train.recipe import recipes
    from train.recipe.overrides import override
    from train.run import checkpoint, cost
    from train.run.step import optimizer_of

    fields = ["tower.width=96", "tower.heads=2", "tower.vocabulary=3000", "self_distillation.hidden=96"]
    recipe = override(recipes.get("smoke"), fields)
    objective = Objective(recipe, build(recipe, 3000))
    optimizer = optimizer_of(recipe, objective)
    for parameter in objective.parameters():
        if parameter.requires_grad:
            parameter.grad = parameter.detach().clone()
    optimizer.step()
    place = checkpoint.save(tmp_path, 1, objective, optimizer)
    written = sum(t.numel() * t.element_size() for t in load_file(place / "state.safetensors").values())
    assert paper.checkpoint_bytes(recipe, *cost.towers(objective.model), 3000) == pytest.approx(written, rel=0.1)
