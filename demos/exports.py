"""The export row under a result: PNG at full size, NPZ, JSON, COCO masks, and the code that makes the same numbers.

    export_row(handlers.take, [image, queries, page.model], masks=True)

Nothing is made before a button is pressed. A file lies in a folder of its own in the visitor's room, whose name nobody
can guess, and goes when they leave.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr

from demos import belongings, common, export_files, exports_views
from demos.common import MODEL_WORK

if TYPE_CHECKING:
    import numpy as np
    from gradio.components import Component

NOTHING = "There is nothing to take along yet: give an image, ask it something, and press again."
# f: what a hidden gr.File holds, or null after a toast.
DOWNLOAD = """(f) => {
  if (!f) return;
  const link = Object.assign(document.createElement("a"), { href: f.url, download: f.orig_name });
  document.body.append(link); link.click(); link.remove();
}"""


@dataclass(frozen=True)
class Taken:
    """What a tab hands out about the result on the page; pictures, maps and masks in the pixels of `image`."""

    name: str  # what it is, as part of file names: "heatmap"
    pictures: dict[str, np.ndarray]  # name -> uint8 [H, W, 3]; several become a zip
    arrays: dict[str, np.ndarray]  # maps, features, label maps: of numbers or strings
    scores: dict  # numbers, strings, lists and dicts of them, numpy's included; not-a-number becomes null
    masks: dict[str, np.ndarray] = field(default_factory=dict)  # category -> bool [H, W]
    python: str = ""  # against tipsv2's public functions, for demos.snippets.IMAGE
    command: str = ""
    model: str = ""  # the encoder's name
    image: str = ""  # the path in the tab's State, see `common.keep`: its stem becomes part of file names


def export_row(take: Callable[..., Taken | None], inputs: Sequence[Component], masks: bool = False) -> None:
    """Buttons under a result. take(*inputs, request=request) is called when one is pressed; None, or a ValueError with
    a sentence, where there is nothing yet. masks: offer COCO.
    """
    with gr.Column(elem_classes="tips-take"):
        row = gr.HTML(exports_views.row(masks), js_on_load=common.script("exports.js"), apply_default_css=False)
        panel = gr.HTML("", js_on_load=common.script("exports.js"), apply_default_css=False)
    made = gr.File(visible=False)

    def make(event: gr.EventData, request: gr.Request, *given) -> tuple:
        """-> (file, or None where there is none to fetch; panel)."""
        try:
            kind = common.clicked(event, "kind", str)
            taken = take(*given, request=request)
            if taken is None:
                raise ValueError(NOTHING)
            if kind == "code":
                return None, exports_views.code(taken.python, taken.command)
            return str(export(taken, kind, common.visitor(request))), gr.skip()
        except Exception as error:
            if (told := common.sentence(error)) is None:
                raise
            common.warn(told)
            return None, gr.skip()

    private = dict(api_visibility="private")
    shown = dict(show_progress="minimal", show_progress_on=row)
    done = gr.on([row.select, panel.select], make, [*inputs], [made, panel], **shown, **private, **MODEL_WORK)
    done.then(None, made, None, js=DOWNLOAD, **private)
    # Code of what was on the page before would be wrong: it closes.
    changes = [each.change for each in inputs]
    gr.on([panel.clear, *changes], None, None, panel, js="() => ''", show_progress="hidden", queue=False, **private)


def export(taken: Taken, kind: str, who: str) -> Path:
    """Write one file of a kind of `export_files.write` into a new folder of the visitor's room. Raises ValueError."""
    folder = belongings.room(who) / secrets.token_hex(16)
    folder.mkdir(parents=True)
    return export_files.write(taken, kind, folder)
