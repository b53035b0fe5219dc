"""The table of the papers' claims: rows that differ as they say, records that go on, differences within a seed."""

import json
import shutil
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path

import pytest

import tipsv2
from tipsv2 import scenes
from tipsv2.evaluation.segmentation import zero_shot as segmentation
from tipsv2.evaluation.tasks import classification, retrieval
from train.__main__ import main
from train.recipe import bounds
from train.recipe.settings import to_dict
from train.reproduce import claims, tables
from train.reproduce import runner as reproduce


def flat(values, prefix=""):
    """Nested fields with dots."""
    items = values.items() if isinstance(values, dict) else enumerate(values)
    out = {}
    for key, value in items:
        out |= flat(value, f"{prefix}{key}.") if isinstance(value, dict | tuple) else {f"{prefix}{key}": value}
    return out


@pytest.mark.parametrize("row", claims.ROWS, ids=lambda row: row.name)
def test_no_row_trains_on_scenes_of_the_table(row, tmp_path):
    measured = [scenes.split(name.partition(":")[2]) for kind in claims.SPLITS.values() for name in kind.values()]
    for seed in range(1, 10):
        recipe = claims.recipe_of(row, seed, tmp_path)
        bounds.check(recipe)
        first = recipe.seed * 10**9
        assert all(first + recipe.images <= split.first or first >= split.first + len(split) for split in measured)


@pytest.mark.parametrize("row", claims.ROWS, ids=lambda row: row.name)
def test_a_row_changes_only_its_fields_and_keeps_the_budget(row, tmp_path):
    recipe = claims.recipe_of(row, 3, tmp_path)
    common, own = flat(to_dict(claims.base())), flat(to_dict(recipe))
    named = {field.partition("=")[0] for field in row.fields} | {"name", "seed"}
    named |= {"distillation.teacher", "sfclip.vision_teacher", "sfclip.text_teacher"}
    first, last = claims.START, (claims.STEPS - claims.START) // (3 if row.kind == "search" else 1)
    if row.start:  # it goes on where the start ended, with other scenes
        assert recipe.tuning.base == str(tmp_path / "start-3" / "model") and recipe.seed != 3
        named |= {"tuning.base", "tower.*", "stages.0.*", "stages.1.*"}
    elif row.name == "start":
        named |= {"stages.1.*"}
    assert all(any(fnmatch(key, pattern) for pattern in named) for key in common if common[key] != own.get(key))
    steps = [last] if row.start else [first] if row.name == "start" else [first, last]
    assert [stage.steps for stage in recipe.stages] == steps
    assert {stage.batch_size for stage in recipe.stages} == {claims.BATCH}
    names = [other.name for other in claims.ROWS]
    assert all(names.index(name) < names.index(row.name) for name in row.needs)
    assert bool(recipe.distillation.weight) == bool(row.teacher and not row.words)


def test_claims_name_rows_of_the_table():
    names = {row.name for row in claims.ROWS if row.kind == "claim"}
    assert {name for claim in claims.CLAIMS for name in (claim.before, claim.after)} == names
    assert len({(claim.before, claim.after) for claim in claims.CLAIMS}) == len(claims.CLAIMS)


def test_the_search_looks_at_no_split_of_the_table():
    splits = [scenes.split(name.partition(":")[2]) for kind in claims.SPLITS.values() for name in kind.values()]
    starts = sorted((split.first, split.first + len(split)) for split in splits)
    assert len(starts) == 3 and all(a[1] <= b[0] for a, b in zip(starts, starts[1:], strict=False))
    assert not set(claims.SPLITS["claim"].values()) & set(claims.SPLITS["search"].values())


def record(out, name, seed, final, style=0.1):
    """A finished run with made-up scores."""
    scores = dict.fromkeys(("values", "top1", "i2t", "t2i", "en", *claims.LANGUAGES), 0.5)
    path = reproduce.record_of(out, name, seed)
    path.parent.mkdir(exist_ok=True)
    both = {"val": {**scores, "final": final, "chance": 0.05}, "style": {**scores, "final": style, "chance": 0.05}}
    settings = next((claims.settings_of(row, seed) for row in claims.ROWS if row.name == name), None)
    path.write_text(json.dumps({"row": name, "seed": seed, "scores": both, "recipe": settings}))


def test_the_table_gives_means_deviations_and_differences_of_common_seeds(tmp_path):
    ibot, better = [0.10, 0.20, 0.30], [0.15, 0.24, 0.36]
    for seed in range(3):
        record(tmp_path, "ibot", seed, ibot[seed])
        record(tmp_path, "ibot++", seed, better[seed])
    record(tmp_path, "ibot++", 3, 0.9)  # a seed that its counterpart lacks
    record(tmp_path, "a row of another version", 0, 0.9)
    text = tables.write(tmp_path)
    assert (tmp_path / "table.md").read_text() == text and (tmp_path / "table.png").stat().st_size > 10_000
    lines = {line.split(" | ")[0].strip("| "): line.split(" | ") for line in text.splitlines() if line.startswith("|")}
    assert lines["ibot"][1:3] == ["3", "0.200 ± 0.100"]
    assert lines["ibot++"][1] == "4"
    gains = [b - a for a, b in zip(ibot, better, strict=True)]
    claim = lines["iBOT -> iBOT++"]
    assert claim[2:4] == ["3", f"**{statistics.fmean(gains):+.3f} ± {statistics.stdev(gains):.3f}**"]
    assert claim[5] == "+0.000 ± 0.000"
    assert "another version" not in text and "search" not in text
    record(tmp_path, "try-distill", 0, 0.1)
    path = reproduce.record_of(tmp_path, "try-distill", 0)
    tried = json.loads(path.read_text())
    path.write_text(json.dumps(tried | {"scores": {"search": tried["scores"]["val"]}}))
    assert "| try-distill | 1 | 0.100 |" in tables.write(tmp_path).partition("The search for unite")[2]


@pytest.mark.parametrize("values, bold", [((0.1, 0.1, 0.4), False), ((0.1, 0.12, 0.11), True), ((0.1, 0.11), False)])
def test_bold_needs_two_deviations_and_three_seeds(values, bold):
    assert tables.spread(list(values), "+").startswith("**") == bold


@pytest.fixture
def small(monkeypatch):
    """A table of three tiny rows, each of which needs the one before it, scored without the splits."""
    tiny = (
        "stages.*.steps=2", "stages.*.size=28", "stages.*.batch_size=8", "stages.*.local_size=14", "warmup=1",
        "tower.width=64", "tower.heads=1", "tower.vision_layers=1", "tower.text_layers=1", "tower.vocabulary=400",
        "tower.table=28", "save_every=2", "precision=fp32",
    )  # fmt: skip
    rows = [row for row in claims.ROWS if row.name in ("start", "ibot", "values-1")]
    rows = tuple(claims.Row(**{**row.__dict__, "fields": (*row.fields, *tiny)}) for row in rows)
    monkeypatch.setattr(reproduce, "ROWS", rows)
    monkeypatch.setattr(reproduce, "SPLITS", {"claim": {}})
    monkeypatch.setattr("train.run.start.TOKENIZER_PAIRS", 50)
    return rows


@pytest.mark.slow
def test_a_student_is_trained_after_its_teacher_and_a_finished_run_is_left_alone(small, tmp_path):
    for row in small:
        reproduce.train_and_score(tmp_path, row, 1)
    found = json.loads(reproduce.record_of(tmp_path, "values-1", 1).read_text())
    assert found["recipe"]["distillation"]["teacher"] == "ibot-1/model", "no path of this machine in the record"
    assert [line["step"] for line in found["log"] if "loss" in line] == [1, 2, 3, 4]
    found = json.loads(reproduce.record_of(tmp_path, "ibot", 1).read_text())
    assert found["recipe"]["tuning"]["base"] == "start-1/model"
    assert [line["step"] for line in found["log"] if "loss" in line] == [1, 2]
    assert not (tmp_path / "work/ibot-1/checkpoints").exists() and (tmp_path / "work/ibot-1/model").is_dir()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    reproduce.run(tmp_path, ["values-1"], (1,))
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_no_run_starts_before_what_it_needs_and_no_more_than_jobs_at_once(small, tmp_path, monkeypatch):
    """`run` with threads for processes, whose training only writes what training leaves and takes a moment."""
    lock, running, most, order = threading.Lock(), set(), [0], []

    def trained(out, row, seed):
        with lock:
            running.add((row.name, seed))
            most.append(len(running))
            for name in row.needs:
                assert (name, seed) in order, f"{row.name} began before {name} was done"
        time.sleep(0.05)
        place = out / "work" / f"{row.name}-{seed}"
        (place / "model").mkdir(parents=True)
        (place / "recipe.json").write_text(json.dumps(to_dict(claims.recipe_of(row, seed, out / "work"))))
        with lock:
            running.remove((row.name, seed))
            order.append((row.name, seed))
        (place / "model" / "config.json").write_text("{}")  # last: from here on others may start

    monkeypatch.setattr(reproduce, "train_and_score", trained)
    monkeypatch.setattr(reproduce, "ProcessPoolExecutor", lambda jobs, context: ThreadPoolExecutor(jobs))
    reproduce.run(tmp_path, ["values-1", "ibot"], (1, 2), jobs=2)
    assert sorted(order) == sorted((row.name, seed) for row in small for seed in (1, 2))
    assert max(most) == 2


@pytest.mark.slow
def test_scores_are_those_of_the_evaluations(tiny_folder, monkeypatch):
    monkeypatch.setattr("tipsv2.scenes.scene.SPLIT_COUNT", 12)
    found = reproduce.score(tiny_folder, {"val": "scenes:val:30"})["val"]
    encoder = tipsv2.load(tiny_folder, "cpu", "float32")
    parts = segmentation.evaluate(encoder, "scenes:val:30", claims.SIZE, progress=False)
    assert [found[k] for k in ("final", "values")] == [parts[k]["miou_present"] for k in ("final", "values")]
    pairs = retrieval.evaluate(encoder, "scenes:val:30", claims.SIZE, languages=("en", "ja"), progress=False)
    assert [found[way] for way in ("i2t", "t2i")] == [pairs["captions"]["short"][f"{way}_r1"] for way in ("i2t", "t2i")]
    assert [found[code] for code in ("en", "ja")] == [pairs["languages"][code]["t2i_r1"] for code in ("en", "ja")]
    named = classification.evaluate(encoder, "scenes:val:30", claims.SIZE, progress=False)
    assert found["top1"] == named["cls"]["top1"] and found["chance"] == parts["chance"]["miou_present"]


def test_the_committed_table_is_that_of_the_committed_records(tmp_path):
    folder = Path(__file__).resolve().parents[1] / "assets" / "reproduce"
    shutil.copytree(folder / "runs", tmp_path / "runs")
    assert tables.write(tmp_path) == (folder / "table.md").read_text()


@pytest.mark.slow
def test_an_encoder_of_other_settings_does_not_pass_for_the_rows(small, tmp_path, monkeypatch):
    start = small[0]
    reproduce.train_and_score(tmp_path, start, 1)
    assert reproduce.to_do(tmp_path, ["ibot"], (1,)) == [(1, small[1])], "its start is there"
    other = claims.Row(**{**start.__dict__, "fields": (*start.fields, "stages.*.learning_rate=1e-3")})
    monkeypatch.setattr(reproduce, "ROWS", (other, *small[1:]))
    assert reproduce.to_do(tmp_path, ["ibot"], (1,)) == [(1, other), (1, small[1])]
    reproduce.train_and_score(tmp_path, other, 1)
    made = json.loads((tmp_path / "work/start-1/recipe.json").read_text())
    assert {stage["learning_rate"] for stage in made["stages"]} == {1e-3}
    log = json.loads(reproduce.record_of(tmp_path, "start", 1).read_text())["log"]
    assert max(line["lr"] for line in log if "lr" in line) <= 1e-3


def test_rows_are_asked_for_by_name_or_pattern(tmp_path):
    names = [row.name for _, row in reproduce.to_do(tmp_path, None, (1,))]
    assert "ibot" in names and not any(name.startswith("try-") for name in names)
    names = {row.name for _, row in reproduce.to_do(tmp_path, ["try-*"], (1,))}
    assert {"try-pretrain", "try-distill", "start", "grounding"} <= names and "contrastive" not in names


def test_what_is_to_do_names_what_is_missing_first(small, tmp_path):
    assert reproduce.to_do(tmp_path, ["values-1"], (0, 1)) == [(seed, row) for seed in (0, 1) for row in small]
    assert reproduce.to_do(tmp_path, ["values-1"], (1, 1)) == [(1, row) for row in small]
    record(tmp_path, "values-1", 0, 0.5)
    assert len(reproduce.to_do(tmp_path, ["values-1"], (0, 1))) == 6, "it was made with other settings"
    path = reproduce.record_of(tmp_path, "values-1", 0)
    found = json.loads(path.read_text()) | {"recipe": claims.settings_of(small[-1], 0)}
    path.write_text(json.dumps(found))
    assert reproduce.to_do(tmp_path, ["values-1"], (0, 1)) == [(1, row) for row in small]


def test_mistakes_are_one_sentence(tmp_path, capsys):
    for arguments, said in (
        (["--rows", "ibott"], "did you mean 'ibot'?"),
        (["--seeds", "one"], "--seeds one: whole numbers"),
        (["--seeds", "0,1"], "--seeds 0,1: whole numbers from 1"),
        (["--table"], "holds no finished run"),
    ):
        assert main(["reproduce", "--out", str(tmp_path / "table"), *arguments]) == 2
        told = capsys.readouterr().err
        assert said in told and "Traceback" not in told and told.count("\n") == 1
