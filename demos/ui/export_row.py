"""The export row under a result: PNG at full size, NPZ, JSON, COCO masks, and the code that makes the same numbers.

    export_row(handlers.take, [image, queries, page.model], masks=True)

Nothing is made before a button is pressed. A file lies in a folder of its own in the visitor's room, whose name nobody
can guess, and goes when they leave.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr

from demos.backend import belongings
from demos.export import files
from demos.export.files import Taken
from demos.ui import controls, export_views
from demos.ui.controls import MODEL_WORK

if TYPE_CHECKING:
    from gradio.components import Component

NOTHING = "There is nothing to save yet: give an image, ask it something, and press again."
# f: what a hidden gr.File holds, or null after a toast.
DOWNLOAD = """(f) => {
  if (!f) return;
  const link = Object.assign(document.createElement("a"), { href: f.url, download: f.orig_name });
  document.body.append(link); link.click(); link.remove();
}"""


def export_row(take: Callable[..., Taken | None], inputs: Sequence[Component], masks: bool = False) -> None:
    """Buttons under a result. take(*inputs, request=request) is called when one is pressed; None, or a ValueError with
    a sentence, where there is nothing yet. masks: offer COCO.
    """
    with gr.Column(elem_classes="tips-take"):
        row = gr.HTML(export_views.row(masks), js_on_load=controls.script("exports.js"), apply_default_css=False)
        panel = gr.HTML("", js_on_load=controls.script("exports.js"), apply_default_css=False)
    made = gr.File(visible=False)

    def make(event: gr.EventData, request: gr.Request, *given) -> tuple:
        """-> (file, or None where there is none to fetch; panel)."""
        try:
            kind = controls.clicked(event, "kind", str)
            taken = take(*given, request=request)
            if taken is None:
                raise ValueError(NOTHING)
            if kind == "code":
                return None, export_views.code(taken.python, taken.command)
            return str(export(taken, kind, controls.visitor(request))), gr.skip()
        except Exception as error:
            if (message := controls.sentence(error)) is None:
                raise
            controls.warn(message)
            return None, gr.skip()

    private = dict(api_visibility="private")
    shown = dict(show_progress="minimal", show_progress_on=row)
    done = gr.on([row.select, panel.select], make, [*inputs], [made, panel], **shown, **private, **MODEL_WORK)
    done.then(None, made, None, js=DOWNLOAD, **private)
    # Code of what was on the page before would be wrong: it closes.
    changes = [component.change for component in inputs]
    gr.on([panel.clear, *changes], None, None, panel, js="() => ''", show_progress="hidden", queue=False, **private)


def export(taken: Taken, kind: str, who: str) -> Path:
    """Write one file of a kind of `export_files.write` into a new folder of the visitor's room. Raises ValueError."""
    folder = belongings.room(who) / secrets.token_hex(16)
    folder.mkdir(parents=True)
    return files.write(taken, kind, folder)
