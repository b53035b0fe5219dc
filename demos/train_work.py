"""Behind the Train tab: what page and API ask for, from a filled form to a run, a check or a comparison. No gradio."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path

from demos import train_check, train_form, train_zip
from demos.settings import Settings
from demos.studio import Studio
from demos.train_form import SCRATCH, RunRequest
from demos.train_process import ROOT, Jobs
from demos.train_state import Look
from demos.train_views import NOT_HERE
from tipsv2.catalogue import BUNDLED

LOOPBACK = ("127.0.0.1", "::1", "localhost", "testclient")


class Trainer:
    """The runs of this app. allowed: may anything be started; folders: may a folder of this machine be named."""

    def __init__(self, studio: Studio, settings: Settings):
        self.studio = studio
        self.allowed = settings.training and settings.runs is not None
        self.folders = self.allowed and not settings.public
        self.jobs = Jobs(settings.runs or Path("runs"), studio.device)

    def refuse(self) -> None:
        """Raises ValueError where there is no training."""
        if not self.allowed:
            raise ValueError(NOT_HERE)

    def look(self, name: str | None) -> Look:
        """How a run is. Raises ValueError."""
        self.refuse()
        return self.jobs.look(str(name or ""))

    def free_name(self) -> str:
        """ "run-1", or the first number that is free."""
        taken = set(self.jobs.names())
        return next(name for name in (f"run-{k}" for k in range(1, len(taken) + 2)) if name not in taken)

    def command(self, plan: RunRequest) -> list[str]:
        """What would be run, for a machine elsewhere: nothing is looked for here. Raises ValueError."""
        name = plan.name or "mine"
        return train_form.command(plan, self.studio, ROOT / "runs" / name, Path("photos"))

    def start(self, plan: RunRequest, zipped: str | None, host: str | None) -> str:
        """Begin a run; returns its name. host: the address that asks, None for this process. Raises ValueError."""
        self.refuse()
        plan = replace(plan, name=plan.name.strip() or self.free_name())
        summary = self._zip(plan, zipped)
        plan = self._placed(plan, host)
        if summary:
            if plan.batch and plan.batch > summary.pairs:
                raise ValueError(
                    f"The batch of {plan.batch:g} is larger than the {summary.pairs} pairs of {Path(zipped).name}: "
                    f"choose {summary.pairs} at most."
                )
            plan = replace(plan, table=summary.table)
        place = self.jobs.look(plan.name).name  # a name that can be one
        command = train_form.command(plan, self.studio, self.jobs.folder / place, self.jobs.data(place))
        self.jobs.start(place, command, zipped if summary else None, stranger=not self._at_home(host))
        return place

    def check(self, plan: RunRequest, zipped: str | None, host: str | None) -> train_check.Checked:
        """Go through the data of a form. Raises ValueError."""
        self.refuse()
        summary = self._zip(plan, zipped)
        plan = self._placed(plan, host)
        fields = train_form.columns(plan)
        if plan.data == "scenes":
            raise ValueError("There is nothing to check: scenes are drawn as the run goes, each with its captions.")
        limit = train_check.LIMITS[plan.data]
        if not summary:
            source = train_form.source(plan, Path())
            return train_check.check(source, fields, source.removeprefix("hf:"), limit, self._at_home(host))
        with tempfile.TemporaryDirectory(prefix="tips-zip-") as scratch:
            called = Path(zipped).name
            source = train_zip.unpack(zipped, Path(scratch).resolve() / "data", called)
            return train_check.check(str(source), fields, called, limit)

    def sides(self, look: Look) -> list[str]:
        """The encoders to compare, by their names here: what a run came from and what it made. Raises ValueError."""
        if look.state != "done":
            raise ValueError(f"'{look.name}' is not done: there is no encoder of it yet.")
        made = self.studio.add(self.jobs.folder / look.name)
        base = look.base or BUNDLED
        folder = Path(ROOT, base)
        return [self.studio.add(folder) if folder.is_dir() else self.studio.info(base).name, made]

    def _zip(self, plan: RunRequest, zipped: str | None) -> train_zip.Summary | None:
        if plan.data != "zip":
            return None
        if not zipped:
            raise ValueError("Upload a zip of images with their captions first.")
        return train_zip.look(zipped)

    def _at_home(self, host: str | None) -> bool:
        """Does who asks sit at this machine? Only then are its folders and its Hub token theirs."""
        return self.folders and host in (None, *LOOPBACK)

    def _placed(self, plan: RunRequest, host: str | None) -> RunRequest:
        """The plan with its folder's whole path: what is started for it works in another folder. Raises ValueError."""
        if plan.data != "folder":
            return plan
        if not self._at_home(host):
            raise ValueError("A folder can be named only on the machine itself: upload a zip, or give a Hub data set.")
        place = train_form.source(plan, Path())
        if not os.path.exists(place):  # Path's own raises on a name that is too long
            raise ValueError(f"There is no folder or table '{place[:120]}' on this machine.")
        return replace(plan, folder=os.path.abspath(place))


def run_request(start: str, base: str | None, *values) -> RunRequest:
    """The form's fields in the order of `RunRequest`, without its table -> RunRequest. start: "encoder" or "scratch"."""
    kind, data, hub, folder, steps, batch, name, rate, size, terms, towers, layers, rank, seed, image, caption = values
    return RunRequest(
        name=name or "",
        base=SCRATCH if start == SCRATCH else base,
        kind=kind,
        data=data,
        hub=hub or "",
        folder=folder or "",
        steps=steps,
        batch=batch,
        rate=rate,
        size=size,
        terms=terms,
        towers=towers,
        layers=layers,
        rank=rank,
        seed=seed,
        image_column=image or "",
        caption_column=caption or "",
    )
