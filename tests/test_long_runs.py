"""Long runs: saved by the clock and by a closed terminal, held by one process, trained on after their end, on the data
that they began with.

python -m pytest tests/test_long_runs.py
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import time

import photos
import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file

from train.__main__ import main
from train.data.batches import BatchStream
from train.data.samples import CaptionedImages
from train.network.tokenizer import train_tokenizer
from train.network.towers import build
from train.objectives import Objective
from train.parallel.signals import StopFlag
from train.recipe import recipes
from train.recipe.overrides import override
from train.run import checkpoint, hold, monitor
from train.run.hold import held
from train.run.loop import SaveClock, fit

QUICK = ["precision=fp32", "trackers=", "workers=0", "warmup=1", "sample_every=0"]
WORDS = ["a dog on the grass, under the sky", "two cats in the snow"] * 20


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(hold, "PATIENCE", 0.2)
    monkeypatch.setattr(monitor, "SCENES", 1)


def train(folder, *fields, resume=False):
    given = [*QUICK, "tower.vocabulary=400", "stages.0.steps=2", "stages.1.steps=1", *fields]
    recipe = override(recipes.get("smoke"), [*given, "stages.*.batch_size=4"])
    torch.manual_seed(0)
    fit(recipe, Objective(recipe, build(recipe, 400)), train_tokenizer(WORDS, 400), folder, resume, show=False)


def steps(run):
    return [int(place.name[5:]) for place in sorted((run / "checkpoints").iterdir())]


def test_the_clock_saves_beside_the_steps_and_changes_nothing(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("train.run.loop.time.monotonic", lambda: now[0])
    clock = SaveClock(2)
    for seconds, over in ((0, False), (120, False), (121, True)):
        now[0] = seconds
        assert clock.over() is over
    clock.restart()
    assert not clock.over()
    now[0] = 1e9
    assert clock.over() and not SaveClock(0).over()
    monkeypatch.undo()
    monkeypatch.setattr(monitor, "SCENES", 1)
    train(tmp_path / "by steps", "save_every=1000")
    train(tmp_path / "by time", "save_every=1000", "save_minutes=1e-9")
    assert steps(tmp_path / "by steps") == [3] and steps(tmp_path / "by time") == [1, 2, 3]
    states = [load_file(checkpoint.latest(tmp_path / k) / "state.safetensors") for k in ("by steps", "by time")]
    assert states[0].keys() == states[1].keys() and all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    with pytest.raises(ValueError, match="save_minutes=-1 cannot be: 0 or more"):
        from train.recipe.bounds import check

        check(override(recipes.get("smoke"), ["save_minutes=-1"]))


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows closes no terminals")
def test_a_closed_terminal_asks_to_save_but_not_under_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may themselves run under nohup
    try:
        with StopFlag() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.asked == signal.SIGHUP
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with StopFlag() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.asked
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, step):
        time.sleep(0.01)
        return {"image": torch.tensor(step)}


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows closes no terminals")
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_a_closed_terminal_leaves_the_data_workers_to_the_run():
    with BatchStream(Numbers(), 0, 1) as stream:
        first = next(stream)
        os.kill(stream._workers[0].pid, signal.SIGHUP)
        assert [int(batch["image"]) for batch in (first, *stream)] == list(range(40))


def test_a_run_has_one_writer(tmp_path):
    run = tmp_path / "run"
    with held(run), pytest.raises(ValueError) as error:
        train(run)
    sentence = str(error.value)
    assert sentence.startswith(f"another process is writing the run in {run}: wait until it ends, or stop it")
    assert "--resume" in sentence and not (run / "recipe.json").exists()
    train(run)  # free again, and the lock that was left does not make it somebody's folder
    with held(run), pytest.raises(ValueError, match="another process is writing the run"):
        train(run, resume=True)
    train(run, resume=True)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="not empty and holds no run"):
        train(tmp_path / "thesis")
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["thesis.txt"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a process as Linux and macOS do")
def test_a_killed_process_holds_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(hold, "PATIENCE", 6.0)
    code = (  # with a child that lives on, as a data worker does for some seconds
        "import os, sys, time; from pathlib import Path; from train.run.hold import held\n"
        "with held(Path(sys.argv[1])):\n"
        "    if not os.fork():\n"
        "        time.sleep(4); os._exit(0)\n"
        "    print('held', flush=True); sys.stdin.read()"
    )

    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run")], **pipes) as process:
        assert process.stdout.readline() == "held\n"
        lock = FileLock(tmp_path / "run" / hold.LOCK)
        with pytest.raises(TimeoutError):
            lock.acquire(timeout=0)
        process.kill()
        process.wait()
        with held(tmp_path / "run"):
            pass


def test_a_finished_run_names_the_command_that_trains_it_on(tiny_folder, tmp_path, capsys):
    data, run = photos.folder(tmp_path / "my photos", 6), tmp_path / "run"
    given = ["--base", str(tiny_folder), "--data", str(data), "--out", str(run)]
    fields = [*QUICK, "stages.0.steps=2", "stages.0.batch_size=4", "tuning.part=lora", "tuning.rank=3"]
    assert main(["finetune", *given, *fields]) == 0
    capsys.readouterr()
    assert main(["finetune", "--out", str(run), "--resume", "stages.0.steps=3", "stages.0.batch_size=2"]) == 2
    said = capsys.readouterr().err.strip()
    assert "stages.0.steps: 2 in" in said and "It is finished, and its learning rate came down over" in said
    words = shlex.split(said.rpartition(": python -m train ")[2])
    assert words[:5] == ["finetune", "--base", str(run / "model"), "--data", str(data)]
    assert main(words) == 0
    capsys.readouterr()
    (before, after) = (json.loads((folder / "recipe.json").read_text()) for folder in (run, tmp_path / "run-more"))
    (stage,) = after["stages"]
    assert (stage["steps"], stage["batch_size"]) == (3, 2) and after["tuning"]["base"] == str(run / "model")
    (same,) = before["stages"]
    assert stage | {"steps": 2, "batch_size": 4} == same
    for family in ("data", "tower", "sparc", "grounding"):
        assert after[family] == before[family]
    assert after["tuning"]["part"] == "lora" and after["tuning"]["rank"] == 3 and after["warmup"] == 1


def test_other_runs_are_trained_on_by_fine_tuning(tmp_path, capsys):
    record = tmp_path / "run" / "recipe.json"
    record.parent.mkdir()
    from train.recipe.settings import to_dict

    recipe = override(recipes.get("nano"), ["data.source=shards/*.tar", "data.web=alt", "seed=4"])
    record.write_text(json.dumps(to_dict(recipe)))
    again = ["pretrain", "--out", str(record.parent), "--resume", "stages.1.batch_size=64"]
    assert main(again) == 2
    assert "finished" not in capsys.readouterr().err  # nothing to go on from yet
    (record.parent / "model").mkdir()
    (record.parent / "model" / "config.json").write_text("{}")
    assert main(again) == 2
    said = capsys.readouterr().err.strip()
    assert said.endswith(
        f"python -m train finetune --base {record.parent}/model --data 'shards/*.tar' --out {record.parent}-more "
        "data.web=alt 'stages.*.batch_size=64'"
    )
    kept = override(recipes.get("photos"), ["data.source=kept:a:8,b:2", "sfclip.text_teacher=minilm", "tuning.base=x"])
    record.write_text(json.dumps(to_dict(kept)))
    assert main(["sfclip", "--out", str(record.parent), "--resume", "stages.0.steps=7"]) == 2
    said = capsys.readouterr().err.strip()
    assert said.endswith(
        f"python -m train sfclip --recipe photos --base {record.parent}/model --kept a:8,b:2 --text-teacher minilm "
        f"--out {record.parent}-more stages.0.steps=7"
    )


def table(folder):
    rows = [f"{i:03}.png,picture number {i}" for i in range(16)]
    (folder / "t.csv").write_text("\n".join(["image,caption", *rows]))
    for text in folder.glob("*.txt"):
        text.unlink()
    return folder / "t.csv"


@pytest.mark.parametrize("kind", ["folder", "table", "tars"])
def test_replaced_captions_and_pictures_are_noticed(tmp_path, kind):
    data = photos.folder(tmp_path / "data", 16) if kind != "tars" else photos.shards(tmp_path / "data", 9, 7)
    data = table(data) if kind == "table" else data
    recipe = override(recipes.get("smoke"), [f"data.source={data}", "stages.*.batch_size=4"])
    record = tmp_path / "data.jsonl"

    def noted():
        source = CaptionedImages(recipe, 0, 1)
        before = len(source.pairs.notes)
        source.remember(record, main=True)
        return source.pairs.notes[before:]

    def put(path, content):
        """Other content, the same time: what a copy that keeps times does."""
        when = path.stat()
        path.write_bytes(content)
        os.utime(path, ns=(when.st_atime_ns, when.st_mtime_ns))

    assert noted() == [] == noted()
    if kind == "tars":
        file = data / "00001.tar"
        old = file.read_bytes()
        put(file, old.replace(b"picture number 9", b"a picture of 9s!"))  # as long as it was
        (note,) = noted()
        assert "the files are not all those that the run began with" in note
        put(file, old)
    else:
        file = data if kind == "table" else data / "003.txt"
        old = file.read_bytes()
        put(file, old.replace(b"number 3", b"number 8"))
        if kind == "table":  # of which `datasets` keeps what it read, as long as the file has its time
            os.utime(file, ns=(10**18, 10**18))
        (note,) = noted()
        assert note.startswith(f"{data}: the captions are not all those that the run began with")
        put(file, old)
        os.utime(file, ns=(1, 1))
        picture = (data.parent if kind == "table" else data) / "003.png"
        put(picture, photos.encoded(9))
        (note,) = noted()
        assert "the pictures are not all those" in note
        put(picture, photos.encoded(3))
        os.utime(picture, ns=(1, 1))
        (note,) = noted()
        assert "its files were written anew since the run began" in note
    known = json.loads(record.read_text().split("\n")[0])
    record.write_text(json.dumps({k: v for k, v in known.items() if k in ("pairs", "shards")}) + "\n")
    assert noted() == []  # of a run that is older than this


def test_of_many_rows_an_even_part_is_looked_at(tmp_path, monkeypatch):
    from tipsv2.collections import data_state
    from tipsv2.collections.pairs import open_pairs

    data = photos.folder(tmp_path / "data", 16)
    monkeypatch.setattr(data_state, "ROWS", 4)  # 0, 5, 10, 15
    before = open_pairs(data).state()
    (data / "004.txt").write_text("another")
    assert open_pairs(data).state() == before
    (data / "005.txt").write_text("another")
    assert data_state.replaced(before, open_pairs(data).state()) == ["captions"]
