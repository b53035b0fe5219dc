"""The form of the Train tab: what to start from, what to learn from, a few fields; and what happens in it."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from demos.backend import belongings
from demos.train import form as train_form
from demos.train import views as train_views
from demos.train import zips as train_zip
from demos.train.form import KINDS, SCRATCH, SIZES
from demos.train.work import Trainer, run_request
from demos.ui import controls, views
from demos.ui.controls import toasted
from demos.ui.page import Page
from tipsv2.checkpoints import bundled
from tipsv2.checkpoints.bundled import NANO

HUB_HINT = "owner/name of a data set of images with captions"
ZIP_HINT = "NAME.txt beside NAME.jpg, or one table with the columns file_name and caption."
CHECK_WORK = dict(concurrency_id="check", concurrency_limit=2)


@dataclass(frozen=True)
class Form:
    """The components. fields: in the order of `run_request`; zipped: the uploaded file."""

    fields: tuple
    zipped: gr.File
    check: gr.Button
    start: gr.Button
    name: gr.Textbox

    @property
    def inputs(self) -> list:
        return [self.zipped, *self.fields]


class FormHandlers:
    """Handlers of the form."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer

    def choose_start(self, start: str):
        """-> (base, recipe): from scratch there is no base, and the recipes are others."""
        known = train_form.kinds(SCRATCH if start == SCRATCH else None)
        choices = [(KINDS[key].title, key) for key in known]
        return gr.update(visible=start != SCRATCH), gr.update(choices=choices, value=known[0])

    def choose_kind(self, kind: str):
        """-> (text under the recipe, steps, batch, terms, towers, blocks, rank): its own values, and its own fields."""
        recipe = train_form.usual(kind)
        own = "grounding" if recipe.grounding.weight else "contrastive"
        return (
            views.note(KINDS[kind].text),
            recipe.steps,
            recipe.stages[0].batch_size,
            gr.update(visible=KINDS[kind].terms, value=own),
            gr.update(visible=recipe.command == "finetune"),
            gr.update(visible=kind == "last"),
            gr.update(visible=kind == "lora"),
        )

    def choose_data(self, data: str):
        """-> (zip, Hub id, folder, check): only what this kind of data asks for."""
        return (
            *(gr.update(visible=data == kind) for kind in ("zip", "hub", "folder")),
            gr.update(visible=data != "scenes"),
        )

    @toasted
    def upload(self, path: str | None, batch: float, request: gr.Request = None):
        """-> (zip, text under it, batch): judged at once; a batch has at most as many pairs as there are."""
        if not path:
            return None, views.note(ZIP_HINT), gr.skip()
        belongings.claim(controls.visitor(request), path)
        try:
            zipped = train_zip.look(path)
        except ValueError as error:
            controls.warn(str(error))
            return None, views.note(ZIP_HINT), gr.skip()
        text = f"{zipped.images:,} images, {_size(zipped.num_bytes)}; "
        text += f"captions in {zipped.table}." if zipped.table else f"{zipped.captioned:,} with captions beside them."
        most = train_form.learned(zipped.pairs)
        if most < zipped.pairs:
            text += f" {zipped.pairs - most} of them are kept apart, to see what is learned and not remembered."
        if batch and batch > most:
            return gr.skip(), views.note(f"{text} The batch is now {most}: there are no more pairs."), most
        return gr.skip(), views.note(text), gr.skip()

    @toasted
    def check(self, request: gr.Request, zipped: str | None, *fields) -> str:
        """-> report. `request` stands first: behind `*fields` Gradio gives none."""
        return train_views.checked(self.trainer.check(run_request(*fields), zipped, self.trainer.asker(request)))

    def preview(self, zipped: str | None, *fields) -> str:
        """The command of the form, or what is wrong with it: it is typed in step by step, so no toast."""
        try:
            return train_views.command(self.trainer.command(run_request(*fields)))
        except ValueError as error:
            return views.note(str(error), "warn")


def form(page: Page, trainer: Trainer) -> Form:
    """Build the form inside the current column, with its own events."""
    handlers, html = FormHandlers(trainer), dict(apply_default_css=False, js_on_load=None, elem_classes="tips-under")
    start = gr.Radio([("An encoder", "encoder"), ("From scratch", SCRATCH)], value="encoder", label="Start from")
    # A first run learns scenes on a CPU: of the bundled encoders the small one is for that.
    first = NANO if page.studio.opening == (bundled.default(),) else page.studio.first
    base = page.picker("Base", value=first)
    known = train_form.WITH_BASE
    kind = gr.Radio([(KINDS[key].title, key) for key in known], value=known[0], label="What learns")
    recipe = train_form.usual(known[0])
    kind_note = gr.HTML(views.note(KINDS[known[0]].text), **html)
    sources = [("Scenes", "scenes"), ("Zip", "zip"), ("Hub", "hub"), ("Folder", "folder")]
    if not trainer.allowed:
        sources = [source for source in sources if source[1] != "zip"]
    data = gr.Radio(sources, value="scenes", label="Learn from", info="Scenes are the bundled drawings with captions.")
    zipped = gr.File(
        label="Zip of images with captions",
        file_types=[".zip"],
        type="filepath",
        height=110,
        visible=False,
        elem_classes="tips-zip",
    )
    zip_note = gr.HTML(views.note(ZIP_HINT), visible=False, **html)
    hub = gr.Textbox(label="Data set of the Hub", info=HUB_HINT, max_length=200, visible=False)
    folder = gr.Textbox(
        label="Folder or table",
        info="Path on this machine." if trainer.allowed else train_views.PUBLIC_DATA,
        max_length=1000,
        visible=False,
    )
    terms = gr.Radio(
        [("Images and captions", "contrastive"), ("Patches too", "grounding")],
        value="contrastive",
        label="Loss",
        info="Patches too: every caption is also asked of the patches of every image, so that maps learn as well.",
    )
    with gr.Row(elem_classes="tips-pair"):
        steps = gr.Number(recipe.steps, label="Steps", precision=0, min_width=80)
        batch = gr.Number(recipe.stages[0].batch_size, label="Batch", precision=0, min_width=80)
    name = gr.Textbox(label="Name", placeholder="the next free number" if trainer.allowed else "mine", max_length=60)
    with gr.Accordion("More", open=False):
        sizes = [("As the base or recipe", 0), *((f"{side} px", side) for side in SIZES[1:])]
        size = gr.Dropdown(sizes, value=0, label="Resolution", filterable=False)
        rate = gr.Number(0, label="Learning rate", info="0: the recipe's own, which follows the base's width.")
        towers = gr.Radio([("Both", "both"), ("Vision", "vision"), ("Text", "text")], value="both", label="Towers")
        layers = gr.Number(2, label="Blocks that learn", precision=0, visible=False)
        rank = gr.Number(16, label="Rank of the updates", precision=0, visible=False)
        seed = gr.Number(0, label="Seed", precision=0)
        image = gr.Textbox(label="Column of the images", placeholder="found by its name", max_length=100)
        caption = gr.Textbox(label="Column of the captions", placeholder="found by its name", max_length=100)
    with gr.Row(elem_classes="tips-buttons", visible=trainer.allowed):
        check = gr.Button("Check data", size="md", visible=False)
        go = gr.Button("Start", size="md", variant="primary")

    quiet = dict(api_visibility="private", show_progress="hidden")
    own = [kind_note, steps, batch, terms, towers, layers, rank]
    start.input(handlers.choose_start, start, [base, kind], **quiet).then(handlers.choose_kind, kind, own, **quiet)
    kind.input(handlers.choose_kind, kind, own, **quiet)
    data.input(handlers.choose_data, data, [zipped, hub, folder, check], **quiet)
    data.input(lambda kind: gr.update(visible=kind == "zip"), data, zip_note, **quiet)
    gr.on([zipped.upload, zipped.clear], handlers.upload, [zipped, batch], [zipped, zip_note, batch], **quiet)
    fields = (start, base, kind, data, hub, folder, steps, batch, name, rate, size, terms, towers, layers, rank, seed)
    return Form((*fields, image, caption), zipped, check, go, name)


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{max(1, count // 1000)} kB"
