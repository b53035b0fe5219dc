"""The Train tab for programs: named endpoints for gradio_client, each with what it takes and returns."""

from __future__ import annotations

import gradio as gr

from demos.train.form import RunRequest
from demos.train.process import line
from demos.train.state import Look
from demos.train.work import Trainer
from demos.ui.controls import answered


class Endpoints:
    """Handlers of the API."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer

    @answered
    def start_run(
        self,
        name: str,
        base: str,
        recipe: str,
        data: str,
        zipped: str | None = None,
        hub: str = "",
        steps: float = 200,
        batch: float = 32,
        rate: float = 0,
        resolution: float = 0,
        loss: str = "contrastive",
        key: str = "",
        request: gr.Request = None,
    ) -> dict:
        """Start a training run; one goes on at a time. Returns what /run_status does.

        name: of the run, "" for the next free one. base: an encoder on offer, or "scratch". recipe: "full", "last",
        "lora" (fine-tune all weights, the last blocks, low-rank updates) or "distill" on a base; "tips" or "sparc" from
        scratch. data: "scenes", "zip" or "hub". zipped: the zip of images with captions. hub: owner/name of a data set.
        steps, batch: how many. rate: learning rate, 0 for the recipe's own. resolution: pixels, 0 for the usual one.
        loss: "contrastive" or "grounding" (both). key: a secret text of 16 letters or more, with which other programs
        of yours find the run again; "" where this client is enough.
        """
        if zipped and data != "zip":
            raise ValueError(f"A zip was given, and data='{str(data)[:60]}' does not read it: say data='zip'.")
        plan = RunRequest(
            name or "", base, recipe, data, hub or "", steps=steps, batch=batch, rate=rate, size=resolution, terms=loss
        )
        asker = self.trainer.asker(request, key)
        return status_of(self.trainer.look(self.trainer.start(plan, zipped, asker), asker))

    @answered
    def run_status(self, name: str, key: str = "", request: gr.Request = None) -> dict:
        """How is a run? Returns its state ("starting", "running", "stopping", "done", "stopped", "failed", or "unknown"
        for a run that is not there or not yours), step, steps, a sentence where something is the matter, images a
        second, seconds left, the last values it logged, and its command.

        name: of the run. key: as it was given to /start_run.
        """
        return status_of(self.trainer.look(name, self.trainer.asker(request, key)))

    @answered
    def stop_run(self, name: str, key: str = "", request: gr.Request = None) -> dict:
        """Ask a run to save its state and stop; a second time ends it at once. Returns what /run_status does.

        name: of the run. key: as it was given to /start_run.
        """
        asker = self.trainer.asker(request, key)
        self.trainer.stop(name, asker)
        return status_of(self.trainer.look(name, asker))

    @answered
    def list_runs(self, key: str = "", request: gr.Request = None) -> list[str]:
        """Which runs are yours, the newest first: their names.

        key: as it was given to /start_run.
        """
        self.trainer.refuse()
        return self.trainer.jobs.names(self.trainer.asker(request, key))

    @answered
    def resume_run(self, name: str, key: str = "", request: gr.Request = None) -> dict:
        """Go on with a run that stopped or failed, from its last checkpoint. Returns what /run_status does.

        name: of the run. key: as it was given to /start_run.
        """
        asker = self.trainer.asker(request, key)
        self.trainer.resume(name, asker)
        return status_of(self.trainer.look(name, asker))

    @answered
    def delete_run(self, name: str, key: str = "", request: gr.Request = None) -> list[str]:
        """Delete a run with its data and its encoder, for good. Returns what /list_runs does.

        name: of the run. key: as it was given to /start_run.
        """
        asker = self.trainer.asker(request, key)
        self.trainer.delete(name, asker)
        return self.trainer.jobs.names(asker)


def status_of(look: Look) -> dict:
    """A run as JSON."""
    last = {name: values[-1] for name, (_, values) in look.series().items()}
    return {
        "name": look.name,
        "state": look.state,
        "step": look.step,
        "steps": look.steps,
        "note": look.note,
        "images_per_second": round(look.rate, 3),
        "seconds_left": None if look.seconds_left is None else round(look.seconds_left, 1),
        "last": last,
        "command": line(look.command) if look.command else "",
    }


def endpoints(trainer: Trainer) -> None:
    """Register the endpoints."""
    api = Endpoints(trainer)
    hidden = dict(visible=False)
    name, key = gr.Textbox(label="name", **hidden), gr.Textbox("", label="key", **hidden)
    inputs = [
        gr.Textbox("", label="name", **hidden),
        gr.Textbox("opentips-nano", label="base", **hidden),
        gr.Textbox("full", label="recipe", **hidden),
        gr.Textbox("scenes", label="data", **hidden),
        gr.File(label="zipped", file_types=[".zip"], **hidden),
        gr.Textbox("", label="hub", **hidden),
        gr.Number(200, label="steps", **hidden),
        gr.Number(32, label="batch", **hidden),
        gr.Number(0, label="rate", **hidden),
        gr.Number(0, label="resolution", **hidden),
        gr.Textbox("contrastive", label="loss", **hidden),
        key,
    ]
    handlers = [(api.start_run, inputs), (api.list_runs, [key])]
    handlers += [(handler, [name, key]) for handler in (api.run_status, api.stop_run, api.resume_run, api.delete_run)]
    for handler, given in handlers:
        gr.Button(visible=False).click(handler, given, gr.JSON(visible=False, label="run"), api_name=handler.__name__)
