"""Behind the Train tab: what page and API ask for, from a filled form to a run, a check or a comparison. No gradio."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from demos.backend import owners
from demos.backend.owners import Identity, owner_of
from demos.backend.settings import Settings
from demos.backend.studio import Studio
from demos.train import check as train_check
from demos.train import form as train_form
from demos.train import state as train_state
from demos.train import zips as train_zip
from demos.train.form import SCRATCH, RunRequest
from demos.train.process import ROOT, Jobs
from demos.train.state import Look
from demos.train.views import NOT_HERE
from tipsv2.checkpoints.bundled import NANO

if TYPE_CHECKING:
    import gradio as gr


class Trainer:
    """The runs of this app. allowed: may anything be started; public: as in `Settings`."""

    def __init__(self, studio: Studio, settings: Settings):
        self.studio = studio
        self.allowed = settings.training and settings.runs is not None
        self.public = settings.public
        self.jobs = Jobs(settings.runs or Path("runs"), studio.device)

    def asker(self, request: gr.Request | None, key: object = None) -> Identity:
        """Who asks; key: what their browser or program keeps as its own. Raises ValueError."""
        return owners.identity_of(request, key, self.public)

    def refuse(self) -> None:
        """Raises ValueError where there is no training."""
        if not self.allowed:
            raise ValueError(NOT_HERE)

    def look(self, name: str | None, asker: Identity) -> Look:
        """How a run is, as far as the asker may see it. Raises ValueError."""
        self.refuse()
        return self.jobs.look(str(name or ""), asker)

    def stop(self, name: str | None, asker: Identity) -> None:
        """As `Jobs.stop`."""
        self.refuse()
        self.jobs.stop(str(name or ""), asker)

    def resume(self, name: str | None, asker: Identity) -> None:
        """As `Jobs.resume`."""
        self.refuse()
        self.jobs.resume(str(name or ""), asker)

    def delete(self, name: str | None, asker: Identity) -> None:
        """As `Jobs.delete`."""
        self.refuse()
        self.jobs.delete(str(name or ""), asker)

    def command(self, plan: RunRequest) -> list[str]:
        """What would be run, for a machine elsewhere: nothing is looked for here. Raises ValueError."""
        name = plan.name or "mine"
        return train_form.command(plan, self.studio, ROOT / "runs" / name, Path("photos"))

    def start(self, plan: RunRequest, zipped: str | None, asker: Identity) -> str:
        """Begin a run of the asker's; returns its name. Raises ValueError."""
        self.refuse()
        if not (asker.machine or asker.marks):
            raise ValueError("Give a key of 16 letters or more that only you know: the run would be nobody's.")
        plan = replace(plan, name=plan.name.strip() or self.jobs.free_name())
        summary = self._zip(plan, zipped)
        plan = self._placed(plan, asker)
        if summary:
            if plan.batch and plan.batch > (most := train_form.learned(summary.pairs)):
                raise ValueError(
                    f"The batch of {plan.batch:g} is larger than the {most} pairs of {Path(zipped).name} that the run "
                    f"learns from: choose {most} at most."
                )
            plan = replace(plan, table=summary.table)
        folder, unpacked = train_state.place(self.jobs.folder, plan.name), self.jobs.data(plan.name)
        command = train_form.command(plan, self.studio, folder, unpacked)
        self.jobs.start(plan.name, command, asker, zipped if summary else None)
        return plan.name

    def check(self, plan: RunRequest, zipped: str | None, asker: Identity) -> train_check.Checked:
        """Go through the data of a form. Raises ValueError."""
        self.refuse()
        summary = self._zip(plan, zipped)
        plan = self._placed(plan, asker)
        fields = train_form.columns(plan)
        if plan.data == "scenes":
            raise ValueError("There is nothing to check: scenes are drawn as the run goes, each with its captions.")
        limit = train_check.LIMITS[plan.data]
        if not summary:
            source = train_form.source(plan, Path())
            return train_check.check(source, fields, source.removeprefix("hf:"), limit, asker.machine)
        with tempfile.TemporaryDirectory(prefix="tips-zip-") as scratch:
            called = Path(zipped).name
            source = train_zip.unpack(zipped, Path(scratch).resolve() / "data", called)
            return train_check.check(str(source), fields, called, limit, token=False)

    def sides(self, name: str | None, asker: Identity, visitor: str) -> list[str]:
        """The encoders to compare, by their names here: what a run came from and what it made. visitor: the page they
        are for; nobody else is offered what somebody else's run made. Raises ValueError.
        """
        run = self.look(name, asker)
        if run.state != "done":
            raise ValueError(
                run.note if run.state == "unknown" else f"'{run.name}' is not done: it has no encoder yet."
            )
        made = self._offered(self.jobs.folder / run.name, asker, visitor)
        base = run.base or NANO
        folder = Path(ROOT, base)
        return [self._offered(folder, asker, visitor) if folder.is_dir() else self.studio.info(base).name, made]

    def _offered(self, folder: Path, asker: Identity, visitor: str) -> str:
        """The name under which a folder's encoder is on offer now: to all, or to this visitor."""
        inside = folder.resolve()
        if not inside.is_relative_to(self.jobs.folder):
            return self.studio.add(folder)
        owner = owner_of(self.jobs.folder / inside.relative_to(self.jobs.folder).parts[0])
        if owner.machine:
            return self.studio.add(folder)
        if not owner.may(asker):
            raise ValueError("The encoder this run came from is gone: open what it made from the Encoder menu.")
        return self.studio.add_private(folder, visitor)

    def _zip(self, plan: RunRequest, zipped: str | None) -> train_zip.Summary | None:
        if plan.data != "zip":
            return None
        if not zipped:
            raise ValueError("Upload a zip of images with their captions first.")
        return train_zip.look(zipped)

    def _placed(self, plan: RunRequest, asker: Identity) -> RunRequest:
        """The plan with its folder's whole path: what is started for it works in another folder. Raises ValueError."""
        if plan.data != "folder":
            return plan
        if not asker.machine:
            raise ValueError("A folder can be named only on the machine itself: upload a zip, or give a Hub data set.")
        place = train_form.source(plan, Path())
        if not os.path.exists(place):  # Path's own raises on a name that is too long
            raise ValueError(f"There is no folder or table '{place[:120]}' on this machine.")
        return replace(plan, folder=os.path.abspath(place))


def run_request(start: str, base: str | None, *values) -> RunRequest:
    """The form's fields, in the order of RunRequest's and without its table. start: "encoder" or "scratch"."""
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
