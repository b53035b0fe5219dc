"""Runs under bad weather and on little memory: killed processes, full disks, parts of a batch, trackers."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from train.data.batches import Batches, BatchStream
from train.network.tokenizer import train_tokenizer
from train.network.towers import build
from train.objectives import Objective
from train.parallel.signals import StopFlag
from train.recipe import recipes
from train.recipe.overrides import override
from train.run import checkpoint
from train.run.loop import fit
from train.run.start import prepare

pytestmark = pytest.mark.processes
WORDS = ["a dog on the grass, under the sky", "two cats in the snow", "a red car at the left"] * 20
DRIVER = """
import resource, sys, torch
from pathlib import Path
from train.recipe import recipes
from train.parallel.signals import Stopped
from train.run.loop import fit
from train.objectives import Objective
from train.network.towers import build
from train.recipe.overrides import override
from train.network.tokenizer import train_tokenizer
run, resume, limit, fields = Path(sys.argv[1]), sys.argv[2] == "resume", int(sys.argv[3]), sys.argv[4:]
torch.set_num_threads(1)
recipe = override(recipes.get("smoke"), fields)
torch.manual_seed(0)
objective = Objective(recipe, build(recipe, 400))
tokenizer = train_tokenizer(["a dog on the grass, under the sky", "two cats in the snow"] * 20, 400)
if limit:
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit fails, as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    fit(recipe, objective, tokenizer, run, resume, show=False)
except (OSError, Stopped) as error:
    sys.exit(f"said: {error}")
"""
FIELDS = ["precision=fp32", "tower.vocabulary=400", "sample_every=0", "trackers="]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(WORDS, 400)


@pytest.fixture
def recipe():
    return override(recipes.get("smoke"), FIELDS)


def objective_of(recipe):
    torch.manual_seed(recipe.seed)
    return Objective(recipe, build(recipe, recipe.tower.vocabulary))


def step(recipe, tokenizer):
    """Loss, gradients and bytes kept for the backward pass, of a step with every term."""
    objective, kept = objective_of(recipe), 0

    def count(tensor):
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    batch = Batches(recipe, tokenizer)[4]
    with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
        loss, _ = objective(batch, recipe.stages[1])
    held = kept
    loss.backward()
    return loss.item(), {n: p.grad for n, p in objective.named_parameters() if p.grad is not None}, held


@pytest.mark.parametrize("fields, saved", [(["accumulate=4"], 0.35), (["checkpointing=true"], 0.6)])
def test_less_memory_gives_the_same_gradients(recipe, tokenizer, fields, saved):
    """The contrastive loss, Sinkhorn and grounding see the whole batch although its parts went through one by one."""
    recipe = override(recipe, ["grounding.weight=1"])
    loss, gradients, held = step(recipe, tokenizer)
    again, others, less = step(override(recipe, fields), tokenizer)
    assert again == pytest.approx(loss, rel=1e-5)
    assert others.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert torch.allclose(others[name], gradient, atol=2e-5 * gradient.abs().max() + 1e-8), name
    assert less < saved * held


def test_parts_must_divide_the_batch(recipe, tokenizer):
    for fields, world, said in (
        (["accumulate=3"], 1, "accumulate=3 does not divide stages.0.batch_size=8: set"),
        (["accumulate=4"], 4, "stages.0.batch_size=8, of which each of 4 processes has 2: set"),
        (["accumulate=4", "stages.1.batch_size=6"], 1, "does not divide stages.1.batch_size=6"),  # before stage 0 runs
    ):
        with pytest.raises(ValueError, match=said):
            Batches(override(recipe, fields), tokenizer, 0, world)


@pytest.fixture
def drive():
    """Starts a run as a process of its own; none outlives the test."""
    started = []

    def start(run, resume="new", limit=0, fields=(), **options):
        arguments = [sys.executable, "-c", DRIVER, str(run), resume, str(limit), *FIELDS, "workers=1", *fields]
        process = subprocess.Popen(arguments, cwd=os.getcwd(), text=True, stderr=subprocess.PIPE, **options)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stderr.close()


def wait_until(run, condition):
    """Until the condition holds or the run has ended; a busy machine needs minutes for what takes others seconds."""
    deadline = time.monotonic() + 600
    while not condition() and run.poll() is None:
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_saves(tmp_path, drive, number):
    """What a terminal's Ctrl-C and a cluster's scheduler send also reaches the workers."""
    long = ["save_every=1000", "stages.0.steps=100000", "stages.0.batch_size=128"]  # a step that a worker's end reaches
    run = drive(tmp_path / "run", fields=long, start_new_session=True)
    log = tmp_path / "run" / "metrics.jsonl"
    wait_until(run, lambda: log.exists() and log.read_text().count("\n") > 2)
    os.killpg(run.pid, number)
    said = run.communicate(timeout=600)[1]
    assert said.startswith("said: stopped after step"), said
    assert int(checkpoint.latest(tmp_path / "run").name.split("-")[1]) > 2


def test_only_ctrl_c_interrupts_a_run_that_is_about_to_save():
    """A scheduler may send SIGTERM twice."""
    with StopFlag() as stop:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)  # where the interpreter hears it


@pytest.mark.skipif(sys.platform != "linux", reason="finds the worker in /proc")
def test_a_killed_worker_is_a_sentence(tmp_path, drive):
    run = drive(tmp_path / "run", fields=["save_every=2", "stages.0.steps=100000"])
    wait_until(run, lambda: checkpoint.latest(tmp_path / "run") is not None)
    found = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in map(int, found)}
    workers = [pid for pid, command in commands.items() if b"-c\0\nimport resource" in command]  # no resource tracker
    os.kill(workers[0], signal.SIGKILL)
    said = run.communicate(timeout=600)[1]
    assert said.startswith("said: a process that reads or draws the data was lost (data worker"), said
    assert f"{workers[0]} was killed by SIGKILL)" in said
    assert "--resume" in said and "Traceback" not in said


class Slow(torch.utils.data.Dataset):
    """Tensors that are always on their way."""

    def __len__(self):
        return 10**6

    def __getitem__(self, step):
        time.sleep(0.002)
        return {"image": torch.zeros(4, 3, 224, 224), "ids": torch.zeros(5)}


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("delay", [0, 0.003, 0.01, 0.02, 0.03, 0.05])
def test_a_killed_worker_is_a_sentence_wherever_it_was(delay):
    """torch says RuntimeError, ConnectionResetError, EOFError ... by where in its handing over a batch it was."""
    with BatchStream(Slow(), 0, 1) as stream:
        next(stream)
        (worker,) = stream._workers
        killer = threading.Timer(delay, os.kill, (worker.pid, signal.SIGKILL))
        killer.start()
        with pytest.raises(ChildProcessError, match=rf"data worker {worker.pid} was killed by SIGKILL.*--resume\.$"):
            for _ in stream:
                time.sleep(0.001)
        killer.join()


@pytest.mark.slow
def test_kill_9_then_resume_gives_the_same_weights(tmp_path, drive):
    whole = drive(tmp_path / "whole", fields=["save_every=2"])
    killed = drive(tmp_path / "killed", fields=["save_every=2"])
    wait_until(killed, lambda: checkpoint.latest(tmp_path / "killed") is not None)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL, "it ended before it could be killed"
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as log:
        log.write('{"step": 99, "lo')  # what a killed writer may leave
    again = drive(tmp_path / "killed", "resume", fields=["save_every=2"])
    assert again.wait(600) == 0, again.stderr.read()
    assert whole.wait(600) == 0, whole.stderr.read()
    for process in (again, whole):
        process.stderr.close()
    states = [load_file(checkpoint.latest(tmp_path / k) / "state.safetensors") for k in ("whole", "killed")]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    logs = [(tmp_path / k / "metrics.jsonl").read_text().splitlines() for k in ("whole", "killed")]
    pick = [[(x["step"], x.get("loss")) for x in map(json.loads, log)] for log in logs]
    assert pick[0] == pick[1]


def test_a_full_disk_is_a_sentence_and_loses_nothing(tmp_path, drive):
    first = drive(tmp_path / "run", fields=["save_every=2"])
    assert first.wait(600) == 0, first.stderr.read()
    first.stderr.close()
    place = checkpoint.latest(tmp_path / "run")
    size = (place / "state.safetensors").stat().st_size
    full = drive(tmp_path / "other", limit=size // 2, fields=["save_every=2"])
    _, said = full.communicate(timeout=600)
    assert full.returncode == 1 and "could not be written" in said and "Make room" in said
    assert not list((tmp_path / "other" / "checkpoints").iterdir())  # nothing half written


def test_tensorboard_holds_what_metrics_jsonl_holds(recipe, tokenizer, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = override(recipe, ["trackers=tensorboard"])
    fit(recipe, objective_of(recipe), tokenizer, tmp_path / "run", show=False)
    (events,) = (tmp_path / "run" / "tracked").rglob("events.out.tfevents.*")
    read = EventAccumulator(str(events.parent)).Reload()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "loss" in line]
    assert [e.step for e in read.Scalars("loss")] == [line["step"] for line in lines]
    dino = "loss/self_distillation/dino"
    assert [e.value for e in read.Scalars(dino)] == pytest.approx([x[dino] for x in lines if dino in x], rel=1e-5)


@pytest.mark.parametrize("name, hint", [("tensorbord", "did you mean 'tensorboard'"), ("clearml", "not installed")])
def test_trackers_that_cannot_be_had_are_sentences(recipe, tokenizer, tmp_path, name, hint):
    with pytest.raises(ValueError, match=hint):
        fit(override(recipe, [f"trackers={name}"]), objective_of(recipe), tokenizer, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_infinite_gradients_stop_before_they_reach_the_weights(recipe, tokenizer, tmp_path):
    objective = objective_of(recipe)
    objective.model.text_model.final_layer_norm.weight.register_hook(lambda g: g * float("inf"))
    before = {k: v.clone() for k, v in objective.state_dict().items()}
    with pytest.raises(FloatingPointError, match="step 1: gradient_norm is not finite"):
        fit(recipe, objective, tokenizer, tmp_path / "run", show=False)
    assert all(torch.equal(v, before[k]) for k, v in objective.state_dict().items())
    assert checkpoint.latest(tmp_path / "run").name == "step-0000000"


def test_a_run_older_than_some_fields_goes_on_and_one_with_fields_that_are_gone_is_refused(recipe, tokenizer, tmp_path):
    fit(recipe, objective_of(recipe), tokenizer, tmp_path / "run", show=False)
    record = tmp_path / "run" / "recipe.json"
    values = json.loads(record.read_text())
    older = {key: value for key, value in values.items() if key not in ("sharding", "sparc")}
    older["stages"] = [{k: v for k, v in stage.items() if k != "restyle"} for stage in values["stages"]]
    record.write_text(json.dumps(older))
    fit(recipe, objective_of(recipe), tokenizer, tmp_path / "run", resume=True, show=False)
    for damaged in ("", "null", "{}", "[1]"):
        record.write_text(damaged)
        with pytest.raises(ValueError, match=r"recipe\.json is damaged.*choose another --out\.$"):
            fit(recipe, objective_of(recipe), tokenizer, tmp_path / "run", resume=True, show=False)
    record.write_text(json.dumps(values | {"tower": values["tower"] | {"gone": 1}, "seed": 7}))
    with pytest.raises(ValueError, match="is of another version and holds tower.gone, unknown"):
        fit(recipe, objective_of(recipe), tokenizer, tmp_path / "run", resume=True, show=False)


def test_what_a_kill_leaves_is_made_again_or_named(recipe, tokenizer, tmp_path):
    run = tmp_path / "run"
    fit(recipe, objective_of(recipe), tokenizer, run, show=False)
    newest = checkpoint.latest(run)
    for name, content in (("state.safetensors", b"\x08"), ("trainer.json", b"")):
        whole = (newest / name).read_bytes()
        (newest / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{newest.name} is damaged .*: delete that folder, and --resume goes on"):
            fit(recipe, objective_of(recipe), tokenizer, run, resume=True, show=False)
        (newest / name).write_bytes(whole)
    shutil.rmtree(run / "tokenizer")
    (run / "tokenizer").mkdir()  # as between its making and its files
    assert prepare(recipe, run, resume=True, empty=True).tokenizer("a dog").input_ids
    fit(recipe, objective_of(recipe), tokenizer, run, resume=True, show=False)
    assert {path.name for path in (run / "tokenizer").iterdir()} >= {"tokenizer.json", "tokenizer_config.json"}
