"""Behind the Train tab: runs as processes of their own that outlive the app; started, stopped, resumed and deleted.

    jobs = Jobs(Path("runs"))
    jobs.start("dogs", ["finetune", "--base", "opentips-nano", ...], asker, zipped="dogs.zip")

Every call says who asks (train_owners.py): to all others a run is as if it were not there. One run at a time: whoever
starts one holds a lock file for a moment, also against other apps on the same folder.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from demos.backend.owners import Identity, owner_of, write_owner
from demos.train import state as train_state
from demos.train import zips as train_zip
from demos.train.state import APP
from tipsv2.files import whole_file

ROOT = Path(__file__).resolve().parents[2]  # where `python -m train` is found
PATIENCE = 15  # seconds a start waits for another visitor's click
UNPACKED_AT_ONCE = 2  # zips of different visitors, 4 GB each at most
NEW = ".new-"  # folders of runs that are being made ready; those of an app that was killed are deleted ...
NEW_AGE = 6 * 3600  # ... after so many seconds, as uploads are
LOG_EVERY = "30"  # seconds between lines of the run's progress bar in its log


class Jobs:
    """The runs of one folder. device: "cpu" keeps them off the accelerator, as the app's encoders are."""

    def __init__(self, folder: Path, device: str = "auto"):
        self.folder = folder.resolve()
        self.device = device
        self._children: dict[str, subprocess.Popen] = {}
        self._unpacking = threading.BoundedSemaphore(UNPACKED_AT_ONCE)
        for left in [*self.folder.glob(".deleted-*"), *filter(_old, self.folder.glob(f"{NEW}*"))]:
            shutil.rmtree(left, ignore_errors=True)

    def names(self, asker: Identity) -> list[str]:
        """The runs this asker may see, the newest first."""
        return [name for name in train_state.names(self.folder) if owner_of(self.folder / name).may(asker)]

    def free_name(self) -> str:
        """ "run-1", or the first number that nobody's run has."""
        taken = set(train_state.names(self.folder))
        return next(name for name in (f"run-{k}" for k in range(1, len(taken) + 2)) if name not in taken)

    def look(self, name: str, asker: Identity) -> train_state.Look:
        """How a run is; somebody else's is "unknown", as one that is not there. A run whose folder was deleted
        meanwhile is ended. Raises ValueError for what is no name.
        """
        run = self._look(name)
        return run if owner_of(self.folder / name).may(asker) else train_state.unknown(name)

    def _look(self, name: str) -> train_state.Look:
        child = self._children.get(name)  # before looking: the name may be taken again right after
        run = train_state.look(self.folder, name)
        if run.state == "unknown" and child:
            child.kill()  # it would go on without a place to write to
        return run

    def stamp(self, name: str, asker: Identity) -> tuple:
        """Changes whenever `look` would. Raises ValueError for what is no name."""
        if not owner_of(train_state.place(self.folder, name)).may(asker):
            return (name, "unknown")
        return train_state.stamp(self.folder, name)

    def busy(self) -> str | None:
        """The run that is going on, whoever's it is, if one is."""
        return next((name for name in train_state.names(self.folder) if self._look(name).going), None)

    def data(self, name: str) -> Path:
        """Where a zip is unpacked: in the run's folder, and deleted with it."""
        return train_state.place(self.folder, name) / APP / "data"

    def start(
        self, name: str, command: Sequence[str], asker: Identity, zipped: str | None = None, called: str = ""
    ) -> None:
        """Begin a run of this name with the arguments of `python -m train`; returns at once. It belongs to the asker;
        unless they sit at the machine, neither the run nor a resumed one has the Hub token of this machine.

        zipped: the zip to unpack where `command` says its data are; called: what its visitor calls it.
        Raises ValueError, one sentence, if the name is taken, another run is going on, or the zip is no good.
        """
        folder = train_state.place(self.folder, name)
        with self._alone():
            self._refuse_taken(name, asker)  # before a zip is unpacked
        with tempfile.TemporaryDirectory(prefix=NEW, dir=self.folder, ignore_cleanup_errors=True) as scratch:
            made = Path(scratch) / "run"
            (made / APP).mkdir(parents=True)
            write_owner(made, asker)
            if zipped:
                self._unpack(zipped, made / APP / "data", called)
            _write(made / APP / "command.json", list(command))
            with self._alone():
                self._refuse_taken(name, asker)
                os.replace(made, folder)  # one step: nobody meets a run without its owner
                try:
                    self._spawn(name, command)
                except OSError:
                    shutil.rmtree(folder, ignore_errors=True)
                    raise

    def _unpack(self, zipped: str, folder: Path, called: str) -> None:
        """Outside the lock: a large zip takes minutes, in which others start, stop and delete."""
        if not self._unpacking.acquire(blocking=False):
            raise ValueError("Others are unpacking zips right now: try again in a minute.")
        try:
            train_zip.unpack(zipped, folder, called)
        finally:
            self._unpacking.release()

    def resume(self, name: str, asker: Identity) -> None:
        """Go on where a run stopped or failed. Raises ValueError."""
        with self._alone():
            run = self.look(name, asker)
            if run.state in ("unknown", "done"):
                raise ValueError(run.note or f"The run '{name}' is done: there is nothing left to resume.")
            self._refuse_second(asker)
            if not run.command:
                raise ValueError(f"'{name}' was started from a terminal: resume it there, with --resume.")
            (self.folder / name / APP / "asked").unlink(missing_ok=True)
            self._spawn(name, [run.command[0], "--out", shown(self.folder / name), "--resume"])

    def stop(self, name: str, asker: Identity) -> None:
        """Ask a run to save its state and stop; a second time ends it at once. Raises ValueError."""
        folder = train_state.place(self.folder, name)
        process, run = train_state.process(folder), self.look(name, asker)
        if run.state == "unknown":
            raise ValueError(run.note)
        if process is None:
            raise ValueError(run.note if run.going else f"'{name}' is not running.")
        (folder / APP / "asked").touch()
        with suppress(psutil.NoSuchProcess):
            process.terminate()  # SIGTERM, which the run answers by saving; Windows ends it where it is

    def delete(self, name: str, asker: Identity) -> None:
        """Remove a run with its data and its encoder, for good. Raises ValueError."""
        with self._alone():
            run = self.look(name, asker)
            if run.state == "unknown":
                raise ValueError(run.note)
            if run.going:
                raise ValueError(f"'{name}' is still running: stop it first.")
            doomed = self.folder / f".deleted-{name}-{time.time_ns()}"
            try:
                os.replace(self.folder / name, doomed)  # one step, so that nobody meets half a run
            except OSError as error:
                raise ValueError(f"'{name}' cannot be deleted: {error.strerror or error}.") from None
            shutil.rmtree(doomed, ignore_errors=True)
            self._children.pop(name, None)

    def _refuse_taken(self, name: str, asker: Identity) -> None:
        self._refuse_second(asker)
        if (self.folder / name).exists():
            own = owner_of(self.folder / name).may(asker)
            raise ValueError(f"There is a run '{name}' already: choose another name{', or resume it' if own else ''}.")

    def _refuse_second(self, asker: Identity) -> None:
        if not (other := self.busy()):
            return
        if owner_of(self.folder / other).may(asker):
            raise ValueError(f"The run '{other}' is still going, and one runs at a time: wait for it, or stop it.")
        raise ValueError("Somebody else's run is still going, and one runs at a time: try again later.")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While one visitor starts, resumes or deletes, no other one does."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / ".lock", timeout=PATIENCE):
                yield
        except Timeout:
            raise ValueError("Somebody else is starting a run right now: try again in a moment.") from None
        except PermissionError as error:
            raise ValueError(f"The folder of the runs cannot be written to ({error.strerror}): see --runs.") from None

    def _spawn(self, name: str, command: Sequence[str]) -> None:
        folder = self.folder / name / APP
        environment = own_environment(token=owner_of(self.folder / name).machine) | {
            "PYTHONUNBUFFERED": "1",
            "TQDM_MININTERVAL": LOG_EVERY,
            "HF_DATASETS_CACHE": str(folder / "cache"),  # what is made of the data goes with the run
        }
        if self.device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""
        apart: dict = dict(start_new_session=True)
        if sys.platform == "win32":
            apart = dict(creationflags=subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW)
        with (folder / "log.txt").open("wb") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "train", *command],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                **apart,
            )
        _write(folder / "process.json", {"pid": child.pid, "created": psutil.Process(child.pid).create_time()})
        self._children[name] = child
        threading.Thread(target=child.wait, daemon=True, name=f"run-{name}").start()  # no zombie is left


def _old(folder: Path) -> bool:
    with suppress(OSError):
        return time.time() - folder.stat().st_mtime > NEW_AGE
    return False


def own_environment(token: bool) -> dict[str, str]:
    """This process's environment for a child; without `token` nothing in it leads to the Hub token of this machine."""
    if token:
        return dict(os.environ)
    hidden = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
    rest = {name: value for name, value in os.environ.items() if name not in hidden}
    return rest | {"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1", "HF_TOKEN_PATH": os.devnull}


def shown(path: Path) -> str:
    """A path as a command run from the project's folder gives it."""
    path = path.resolve()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def line(command: Sequence[str]) -> str:
    """The arguments of `python -m train` as a line to copy."""
    words = ["python", "-m", "train", *command]
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def _write(path: Path, value) -> None:
    with whole_file(path) as part:
        part.write_text(json.dumps(value), "utf-8")
