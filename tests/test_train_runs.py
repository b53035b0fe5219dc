"""Behind the Train tab: forms as commands, runs as processes of their own, and what a run's folder says of it.

python -m pytest tests/test_train_runs.py
"""

import json
import os
import shutil
import threading
import time

import psutil
import pytest
from run_folders import SLEEPER, logged, pack, pairs, run_folder, shapes_zip, short, wait
from shapes import write
from visiting import NEAR

from demos.backend.owners import MACHINE, Asker
from demos.backend.settings import Settings
from demos.backend.studio import Studio
from demos.train import form as train_form
from demos.train import process as train_process
from demos.train import state as train_state
from demos.train.form import SCRATCH, RunRequest
from demos.train.process import Jobs
from demos.train.tab import TrainHandlers
from train.recipe import recipes
from train.recipe.overrides import override

pytestmark = pytest.mark.processes
ASKER = """\
import sys
from pathlib import Path
from huggingface_hub import get_token
from huggingface_hub.utils import build_hf_headers
out = Path(sys.argv[sys.argv.index("--out") + 1])
told = f"{get_token()} {build_hf_headers().get('authorization')}"
(out / f"token-{'--resume' in sys.argv}").write_text(told)
"""


@pytest.fixture
def zipped(tmp_path):
    return shapes_zip(tmp_path)


@pytest.fixture
def tab(tiny_folder, tmp_path):
    runs = tmp_path / "runs"
    runs.mkdir()
    return TrainHandlers(Studio(str(tiny_folder), device="cpu", runs=runs), Settings(runs=runs))


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """Runs of a stand-in for `python -m train` that sleeps until it is asked to stop: what is tested is around it."""
    (tmp_path / "project" / "train").mkdir(parents=True)
    (tmp_path / "project" / "train" / "__main__.py").write_text(SLEEPER)
    monkeypatch.setattr(train_process, "ROOT", tmp_path / "project")
    made = Jobs(tmp_path / "runs")
    yield made
    for child in made._children.values():
        child.kill()


def command(jobs, name):
    return ["finetune", "--base", "tiny", "--out", str(jobs.folder / name)]


# The form


@pytest.mark.parametrize("kind", train_form.KINDS)
def test_every_recipe_of_the_menu_can_be_asked_for(kind, tab, tmp_path):
    base = None if kind in train_form.WITH_BASE else SCRATCH
    usual = train_form.usual(kind)
    own = "grounding" if usual.grounding.weight else "contrastive"
    same = RunRequest("a", base, kind, steps=usual.steps, batch=usual.stages[0].batch_size, terms=own)
    given = train_form.command(same, tab.trainer.studio, tmp_path / "a", tmp_path)
    fields = [
        each
        for each in given[given.index("--out") + 2 :]
        if not each.startswith(("sample_every", "save_every", "tuning.part"))
    ]
    assert fields == []  # nothing but the recipe
    plan = RunRequest("a", base, kind, steps=90, batch=8, rate=2e-4, size=112, terms=own, seed=3)
    given = train_form.command(plan, tab.trainer.studio, tmp_path / "a", tmp_path)
    recipe = override(recipes.get(given[2]), given[given.index("--out") + 2 :])
    assert given[0] == recipe.command and recipe.steps == 90 and recipe.seed == 3
    assert max(stage.size for stage in recipe.stages) == 112 and {stage.learning_rate for stage in recipe.stages} == {
        2e-4
    }
    assert recipe.stages[0].batch_size == 8 and all(stage.local_size % 14 == 0 for stage in recipe.stages)
    for stage, old in zip(recipe.stages, usual.stages, strict=True):
        assert stage.steps == pytest.approx(90 * old.steps / usual.steps, abs=1)
    assert recipe.warmup < recipe.steps


def test_the_command_line_reads_what_the_form_makes(tab, capsys, tmp_path):
    from train.__main__ import main

    plan = RunRequest("a", None, "last", steps=7, batch=4, layers=1, terms="grounding", towers="vision")
    given = train_form.command(plan, tab.trainer.studio, tmp_path / "a", tmp_path)
    assert main([*given, "--dry-run"]) == 0
    recipe = json.loads(capsys.readouterr().out)
    assert recipe["tuning"]["part"] == "last" and recipe["tuning"]["layers"] == 1 and recipe["grounding"]["weight"] == 1
    assert recipe["tuning"]["towers"] == "vision" and recipe["stages"][0]["steps"] == 7


@pytest.mark.parametrize(
    "fields, told",
    [
        (dict(steps=0), "steps must lie between 1 and 50,000"),
        (dict(steps=1e9), "steps must lie"),
        (dict(steps=float("nan")), "steps must lie"),
        (dict(steps=2.5), "whole number"),
        (dict(steps=None), "steps must lie"),
        (dict(batch=1), "batch must lie between 2"),
        (dict(rate=-1), "learning rate"),
        (dict(size=13), "resolution must be one of"),
        (dict(kind="nope"), "no recipe 'nope'"),
        (dict(kind="tips"), "starts from scratch"),
        (dict(base=SCRATCH), "needs an encoder"),
        (dict(base="/etc"), "not on offer"),
        (dict(terms="all"), "terms='all'"),
        (dict(kind="lora", rank=0), "rank must lie"),
        (dict(data="hub", hub="no slash"), "owner/name"),
        (dict(data="hub", hub="../../etc/x"), "owner/name"),
        (dict(data="hub", hub=""), "owner/name"),
        (dict(data="zip"), "Upload a zip"),
        (dict(data="folder", folder="/nowhere/at/all"), "There is no folder"),
        (dict(data="folder", folder="-x"), "Say which folder"),
        (dict(data="folder", folder="./-x"), "Say which folder"),
        (dict(data="folder", folder="~nobody-of-this-name/photos"), "There is no folder"),
        (dict(data="folder", folder="x" * 300), "There is no folder"),
        (dict(data="all"), "no kind of data"),
        (dict(base="tiny", seed=1000, data="scenes"), "scenes of the seed 1000 are scenes:val, kept for measuring"),
        (dict(caption_column="x" * 101), "name of a column"),
        (dict(name="../up"), "cannot be called"),
        (dict(name="con"), "cannot be called"),
        (dict(name="a b"), "cannot be called"),
    ],
)
def test_absurd_fields_are_one_sentence_and_leave_nothing(tab, fields, told):
    with pytest.raises(ValueError, match=told):
        tab.trainer.start(RunRequest(**dict(name="a", base=None) | fields), None, MACHINE)
    assert not [p for p in tab.jobs.folder.iterdir() if p.name != ".lock"]


def test_a_batch_has_no_more_pairs_than_the_zip(tab, zipped):
    with pytest.raises(ValueError, match="than the 12 pairs of shapes.zip that the run learns from: choose 12 at most"):
        tab.trainer.start(RunRequest("a", None, data="zip", batch=32), zipped, MACHINE)


def test_folders_are_for_who_sits_at_the_machine(tab, tmp_path):
    plan = RunRequest("a", None, data="folder", folder=str(tmp_path))
    with pytest.raises(ValueError, match="only on the machine itself"):
        tab.trainer.start(plan, None, Asker(marks=("a",)))


@pytest.mark.slow
def test_a_folder_is_where_the_app_was_started(tab, tmp_path, monkeypatch):
    write(tmp_path / "photos", 12, size=56)
    plan, begun = RunRequest("a", None, data="folder", folder="photos"), []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tab.trainer.jobs, "start", lambda name, command, *_: begun.extend(command))
    tab.trainer.start(plan, None, MACHINE)
    assert begun[begun.index("--data") + 1] == str(tmp_path / "photos")
    assert tab.trainer.check(plan, None, MACHINE).rows == 12
    given = tab.trainer.command(plan)  # for a machine elsewhere
    assert given[given.index("--data") + 1] == "photos"


def test_without_training_the_command_is_all_there_is(tab, tmp_path):
    off = TrainHandlers(tab.trainer.studio, Settings(runs=tmp_path, training=False)).trainer
    for refused in (lambda: off.start(RunRequest("a", None), None, MACHINE), lambda: off.look("a", MACHINE)):
        with pytest.raises(ValueError, match="switched off"):
            refused()
    given = off.command(RunRequest("", "opentips-nano", "lora", "folder", folder="photos"))
    said = "finetune --recipe finetune --base opentips-nano --data photos --out runs/mine tuning.part=lora"
    assert " ".join(given).startswith(said)


# Runs as processes


def test_of_two_starts_at_once_one_is_refused(jobs):
    told = []

    def start(name):
        try:
            jobs.start(name, command(jobs, name), MACHINE)
        except ValueError as error:
            told.append(str(error))

    visitors = [threading.Thread(target=start, args=(name,)) for name in ("a", "b")]
    for each in visitors:
        each.start()
    for each in visitors:
        each.join()
    (running,) = jobs.names(MACHINE)
    assert len(told) == 1 and f"'{running}' is still going" in told[0] and jobs.busy() == running
    with pytest.raises(ValueError, match="stop it first"):
        jobs.delete(running, MACHINE)
    with pytest.raises(ValueError, match="one runs at a time"):
        Jobs(jobs.folder).start("c", command(jobs, "c"), MACHINE)  # another app on the same folder


def test_stop_resume_and_delete(jobs):
    jobs.start("a", command(jobs, "a"), MACHINE)
    wait((jobs.folder / "a" / "ready").exists)
    jobs.stop("a", MACHINE)
    wait(lambda: jobs.look("a", MACHINE).state == "stopped")
    assert "stopped after step 1" in jobs.look("a", MACHINE).log
    with pytest.raises(ValueError, match="not running"):
        jobs.stop("a", MACHINE)
    with pytest.raises(ValueError, match="already: choose another name"):
        jobs.start("a", command(jobs, "a"), MACHINE)
    (jobs.folder / "a" / "ready").unlink()
    jobs.resume("a", MACHINE)
    wait((jobs.folder / "a" / "ready").exists)
    process = train_state.process(jobs.folder / "a")
    assert jobs.look("a", MACHINE).going and process.cmdline()[-4:] == [
        "finetune",
        "--out",
        str(jobs.folder / "a"),
        "--resume",
    ]
    jobs.stop("a", MACHINE)
    wait(lambda: not jobs.look("a", MACHINE).going)
    jobs.delete("a", MACHINE)
    assert jobs.names(MACHINE) == [] and not [p for p in jobs.folder.iterdir() if p.name != ".lock"]
    for act in (jobs.stop, jobs.resume, jobs.delete):
        with pytest.raises(ValueError, match="There is no run 'a'"):
            act("a", MACHINE)


def test_a_run_without_its_folder_is_gone_and_ended(jobs):
    jobs.start("a", command(jobs, "a"), MACHINE)
    wait((jobs.folder / "a" / "ready").exists)
    process = train_state.process(jobs.folder / "a")
    shutil.rmtree(jobs.folder / "a")
    assert jobs.look("a", MACHINE).state == "unknown" and "was deleted" in jobs.look("a", MACHINE).note
    wait(lambda: not process.is_running())


def test_a_look_at_a_name_does_not_end_the_run_that_takes_it(jobs, monkeypatch):
    def slow(folder, name, real=train_state.look):
        found = real(folder, name)
        if found.state == "unknown" and not jobs._children:
            jobs.start("a", command(jobs, "a"), MACHINE)  # another visitor, between looking and acting on it
        return found

    monkeypatch.setattr(train_state, "look", slow)
    assert jobs.look("a", MACHINE).state == "unknown"
    wait((jobs.folder / "a" / "ready").exists)
    assert jobs.look("a", MACHINE).going


def test_a_run_that_cannot_be_opened_leads_nowhere(tab, tmp_path):
    run_folder(tab.jobs.folder, "stopped", short(), logged(2))
    for name, told in (("stopped", "is not done"), ("deleted", "There is no run")):
        for open_it in (tab.compared, tab.asked):
            with pytest.warns(UserWarning, match=told):
                assert open_it(NEAR, name, 0, None)[0] is None  # names of before would be opened instead


def test_a_zip_that_fails_leaves_no_run(jobs, tmp_path):
    bad = pack(tmp_path / "bad.zip", pairs(1))
    with pytest.raises(ValueError, match="one image"):
        jobs.start("a", command(jobs, "a"), MACHINE, bad)
    assert jobs.names(MACHINE) == [] and [each.name for each in jobs.folder.iterdir()] == [".lock"]


def test_nobody_waits_while_a_zip_is_unpacked(jobs, tmp_path, monkeypatch):
    """Others start, stop and delete; the zip's run comes when they are done, and its data with it in one step."""
    begun, go, refusals = threading.Semaphore(0), threading.Event(), []
    unpack = train_process.train_zip.unpack

    def slow(*given):
        begun.release()
        assert go.wait(60)
        return unpack(*given)

    def start(name):
        try:
            jobs.start(name, command(jobs, name), MACHINE, zipped)
        except ValueError as error:
            refusals.append(str(error))

    zipped = pack(tmp_path / "good.zip", pairs())
    monkeypatch.setattr(train_process.train_zip, "unpack", slow)
    large = [threading.Thread(target=start, args=(name,)) for name in ("large-1", "large-2", "large-3")]
    for each in large:
        each.start()
    assert begun.acquire(timeout=30) and begun.acquire(timeout=30)
    wait(lambda: refusals)  # the third one: two are unpacked at a time
    assert refusals == ["Others are unpacking zips right now: try again in a minute."]
    with monkeypatch.context() as patch:  # all three have let go of the folder, so that nobody need wait for it
        patch.setattr(train_process, "PATIENCE", 0)
        jobs.start("small", command(jobs, "small"), MACHINE)
    assert jobs.names(MACHINE) == ["small"]
    wait((jobs.folder / "small" / "ready").exists)
    jobs.stop("small", MACHINE)
    wait(lambda: not jobs.look("small", MACHINE).going)
    jobs.delete("small", MACHINE)
    go.set()
    for each in large:
        each.join()
    (name,) = jobs.names(MACHINE)
    assert name.startswith("large") and len(list(jobs.data(name).iterdir())) == 6
    assert len(refusals) == 2 and not list(jobs.folder.glob(".new-*"))


def test_what_a_killed_app_was_making_ready_is_deleted_later(jobs):
    for name, age in ((".new-old", 7 * 3600), (".new-fresh", 60)):
        (jobs.folder / name / "run").mkdir(parents=True)
        os.utime(jobs.folder / name, (time.time() - age,) * 2)
    Jobs(jobs.folder)
    assert [each.name for each in jobs.folder.iterdir()] == [".new-fresh"]


def test_a_number_that_another_process_has_now_is_no_run(tmp_path):
    born = psutil.Process().create_time()
    folder = run_folder(tmp_path, "a", process={"pid": os.getpid(), "created": born})
    assert train_state.going(folder)
    folder = run_folder(tmp_path, "b", process={"pid": os.getpid(), "created": born - 60})
    assert not train_state.going(folder)


# What a folder says


def test_states_are_read_from_the_folder(tmp_path):
    run_folder(tmp_path, "done", short(), logged(4), done=True)
    run_folder(tmp_path, "half", short(), logged(2), done=True, log="stopped after step 2; go on with --resume.")
    run_folder(tmp_path, "sentence", log="\r 0%| | 0/4\nthe folder has no images; mend it. hf_abcdefghijklm\n")
    run_folder(tmp_path, "crash", short(), logged(1), log="Traceback (most recent call last):\n  x\nKeyError: 3\n")
    run_folder(
        tmp_path,
        "killed",
        short(),
        logged(1),
        log="finetune: 1M parameters in the encoder, 4 steps\ntraining on cpu in fp32; data: x\n",
    )
    (run_folder(tmp_path, "asked", short(), logged(1)) / "app" / "asked").touch()
    (run_folder(tmp_path, "terminal", short(), logged(1)) / "app" / "command.json").unlink()
    seen = {name: train_state.look(tmp_path, name) for name in train_state.names(tmp_path)}
    states = {name: look.state for name, look in seen.items()}
    assert states == dict(
        done="done", half="stopped", sentence="failed", crash="failed", killed="failed", asked="stopped",
        terminal="running",
    )  # fmt: skip
    assert seen["sentence"].note == "the folder has no images; mend it. hf_…" and "hf_a" not in seen["sentence"].log
    assert seen["crash"].note == "It crashed: KeyError: 3" and "memory runs out" in seen["killed"].note
    assert "terminal" in seen["terminal"].note and not seen["terminal"].command
    assert train_state.look(tmp_path, "nobody").state == "unknown"
    os.utime(tmp_path / "terminal" / "metrics.jsonl", (1, 1))
    os.utime(tmp_path / "terminal" / "recipe.json", (1, 1))
    assert train_state.look(tmp_path, "terminal").state == "failed"


def test_half_a_line_is_left_for_later_and_time_is_told(tmp_path):
    folder = run_folder(tmp_path, "a", short(10), logged(4))
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')
    look = train_state.look(tmp_path, "a")
    assert look.step == 4 and look.steps == 10 and look.rate == pytest.approx(8)
    assert look.seconds_left == pytest.approx(6 * 4 / 8)
    assert look.series()["loss"] == ([1, 2, 3, 4], [3.0, 1.5, 1.0, 0.75])


def test_names_of_runs_are_never_paths(tmp_path):
    for name in ("..", "a/b", "/etc", "", ".lock", "a" * 41, "nul", "a\n"):
        with pytest.raises(ValueError, match="cannot be called"):
            train_state.look(tmp_path, name)


# The Hub token of this machine


@pytest.mark.slow
def test_runs_of_strangers_do_not_get_the_hub_token(jobs, tmp_path, monkeypatch):
    secret = "hf_abcdefghijklmnop"
    (tmp_path / "token").write_text(secret)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "token"))
    (train_process.ROOT / "train" / "__main__.py").write_text(ASKER)
    for name, given in (
        ("in-a-file", {}),
        ("in-the-environment", dict(HF_TOKEN=secret, HUGGING_FACE_HUB_TOKEN=secret)),
    ):
        for variable, value in given.items():
            monkeypatch.setenv(variable, value)
        for stranger in (False, True):
            run = f"{name}-{stranger}"
            jobs.start(run, command(jobs, run), Asker(machine=not stranger, marks=("a",)))
            jobs._children[run].wait(60)
            assert (jobs.folder / run / "token-False").read_text().startswith("None None" if stranger else secret)
    jobs.resume(run, MACHINE)  # whoever asks for that
    jobs._children[run].wait(60)
    assert (jobs.folder / run / "token-True").read_text() == "None None"
