"""What every tab needs: the image field, examples, resolution, error sentences. Handlers are plain functions.

Uploads are never decoded by Gradio, whose decoder raises on bad files: `accept_upload` gets the raw path
(preprocess=False), `tipsv2.images.open_image` reads it or says in one sentence why it cannot, and what the handlers
work on is the path of that checked copy, kept in a State of the visitor.
"""

from __future__ import annotations

import functools
import hashlib
import html
import io
import itertools
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import gradio as gr
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from demos.backend import belongings
from demos.backend.studio import Studio, shown_size
from demos.export.files import ORIGINAL, original_size, slug
from demos.ui import views
from demos.ui.examples import Example, examples
from tipsv2.files import whole_file
from tipsv2.images import open_image

WEB = Path(__file__).parent / "web"
LOADING = ("One moment", "The encoder is loading.")
NO_IMAGE = ("Start with an image", "Drop one into the field, or take one of the examples below it.")
# Three questions in hand, so that a long one does not keep others waiting; their forward passes take turns
# (demos/backend/turns.py).
MODEL_WORK = dict(concurrency_id="model", concurrency_limit=3)
MAX_SIDE = 1372  # pixels of the short side that may be asked for
MAX_TEXT = 200  # characters of one query or class name; the encoders read 64 tokens
_keeping = threading.Lock()


def sentence(error: BaseException) -> str | None:
    """What to tell the visitor about an error, or None if it is not theirs to mend."""
    if isinstance(error, ValueError):
        return str(error)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error).lower()):
        return "The image does not fit into memory at this resolution: lower the resolution and try again."
    return None


def toasted(handler: Callable) -> Callable:
    """A handler of the page whose errors become one toast, the outputs staying as they are."""

    @functools.wraps(handler)
    def wrapped(*args, **kwargs):
        try:
            return handler(*args, **kwargs)
        except Exception as error:
            if (message := sentence(error)) is None:
                raise
            warn(message)
            return gr.skip()

    return wrapped


def answered(handler: Callable) -> Callable:
    """A handler of the API whose errors reach the client as one sentence."""

    @functools.wraps(handler)
    def wrapped(*args, **kwargs):
        try:
            return handler(*args, **kwargs)
        except Exception as error:
            if (message := sentence(error)) is None:
                raise
            raise gr.Error(message, print_exception=False) from error

    return wrapped


def warn(text: str) -> None:
    """One toast. Escaped, since toasts render HTML and the text may repeat what somebody typed."""
    gr.Warning(html.escape(text), duration=12)


def clicked(event: gr.EventData, name: str, kind: type | tuple[type, ...]):
    """What a client tells of a click under this name. Raises ValueError where it is nothing of this kind."""
    value = getattr(event, name, None)
    if not isinstance(value, kind) or isinstance(value, bool) and kind is not bool:
        raise ValueError("What was clicked did not arrive whole: click again.")
    return value


def visitor(request: gr.Request | None) -> str:
    """Who asks: one open page (or API client), nobody else."""
    return getattr(request, "session_hash", None) or "local"


def texts(given: Sequence[str] | None, what: str, limit: int) -> list[str]:
    """Cleaned words of the kind `what`: stripped, no blanks, no doubles; a string is one of them. Raises ValueError
    naming the bad one.
    """
    given = [given] if isinstance(given, str) else given
    entries = list(dict.fromkeys(text for text in (str(text).strip() for text in given or ()) if text))
    for text in entries:
        if why := refusal(text, what):
            raise ValueError(why)
    if len(entries) > limit:
        raise ValueError(f"There are {len(entries)} entries of kind {what}: keep to {limit} at once.")
    return entries


def refusal(text: str, what: str) -> str | None:
    """Why a text of the kind `what` cannot be asked, in a sentence, or None."""
    if len(text) > MAX_TEXT:
        return f"One {what} has {len(text):,} characters: keep each under {MAX_TEXT}, a few words work best."
    if not any(letter.isalnum() for letter in text):
        return f"The {what} '{text}' has no letters: the encoders were trained on words, write it as a word."
    return None


def image_field() -> tuple[gr.Image, gr.State]:
    """The field an image is dropped into, and the State with the path of the checked copy (None while it is empty)."""
    field = gr.Image(
        type="filepath",
        image_mode=None,
        label="Image",
        show_label=False,
        sources=["upload", "clipboard"],
        buttons=[],
        height=330,
        placeholder="# Drop an image here\nor click to choose one, up to 20 MB",
        elem_classes="tips-image",
    )
    return field, gr.State(None)


def keep(source: str | Path, who: str | None = None) -> str:
    """Open an image file and put a copy every browser shows into the visitor's room, or where everybody's are: RGB,
    upright, of MOST pixels at most, its name cleaned (exports carry it on). Returns its path. Raises ImageError.
    """
    image, noted = open_image(source), PngInfo()
    if (small := shown_size(*image.size)) != image.size:
        noted.add_text(ORIGINAL, "{} {}".format(*image.size))
        image = image.resize(small, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1, pnginfo=noted)
    content = buffer.getvalue()
    folder = (belongings.room(who) if who else belongings.shared()) / hashlib.sha256(content).hexdigest()
    path = folder / f"{slug(Path(source).stem) or 'image'}.png"
    with _keeping:
        if path.exists():  # an example that somebody may be reading; Gradio's sweep shall not take it for an old one
            os.utime(path)
        else:
            with whole_file(path) as part:
                part.write_bytes(content)
    return str(path)


def accept_upload(upload: dict | None, request: gr.Request = None) -> tuple[str | None, str | None]:
    """The upload handler -> (field, State): the checked copy twice, or a toast and an empty field. A toast, too, where
    the copy is smaller, since everything on the page is in its pixels.
    """
    path, who = None, visitor(request)
    try:
        if upload:
            belongings.claim(who, upload["path"])
            path = keep(upload["path"], who)
            if (size := original_size(path)) is not None:
                with Image.open(path) as image:
                    shrunk = "The image has {} × {} pixels: here it is looked at, and taken along, with {} × {}."
                    gr.Info(shrunk.format(*size, *image.size), duration=12)
    except Exception as error:
        if (message := sentence(error)) is None:
            raise
        warn(message)
    return path, path


_LISTENERS = itertools.count()


def chips(label: str, info: str, words: Sequence[str] = ()) -> gr.Dropdown:
    """A field of free words, each a chip; it opens with `words`.

    Never give it a value while its tab may be hidden: gradio 6.31 then reports a change without end (its Multiselect
    compares the array it was given with a copy of it).
    """
    options = dict(choices=[], value=[*words], multiselect=True, allow_custom_value=True)
    field = gr.Dropdown(**options, label=label, info=info, elem_classes="tips-queries")
    field.api_info = lambda: {"type": "array", "items": {"type": "string"}}  # else clients read "one of no choices"
    return field


def other_chips(field: gr.Dropdown):
    """The event that a field of `chips` has others than before; what it leads to follows with `then`.

    Its own `change` comes again with every answer that reaches the page once the server has given the chips (gradio
    6.31, see `chips`), so that a listener which asks the server would never come to rest.
    """
    listener = f"chips-{field._id}-{next(_LISTENERS)}"
    script = f"""(chips) => {{
  const heard = (window.tipsChips ??= {{}}), now = JSON.stringify(chips);
  if (heard["{listener}"] === now) return new Promise(() => {{}});  // nothing follows
  heard["{listener}"] = now;
  return [];
}}"""
    how = dict(queue=False, show_progress="hidden", api_visibility="private", trigger_mode="multiple")
    return field.change(None, field, None, js=script, **how)


def api_image() -> gr.File:
    """The image of an API endpoint: a file that nobody decodes before the handler does."""
    return gr.File(visible=False, label="image")


def api_resolution() -> gr.Number:
    """The resolution of an API endpoint: the page's slider starts and ends with the encoder the page opened with."""
    return gr.Number(0, minimum=0, maximum=MAX_SIDE, precision=0, visible=False, label="resolution")


def script(*names: str) -> str:
    """Scripts of demos/ui/web, one after the other, for gr.HTML's js_on_load."""
    return "".join((WEB / name).read_text("utf-8") for name in names)


def example_strip(studio: Studio) -> gr.HTML:
    """The strip of examples, filled for the model the page opens with."""
    return gr.HTML(
        strip_html(studio, None), js_on_load=script("examples.js"), apply_default_css=False, elem_classes="tips-strip"
    )


@functools.lru_cache(maxsize=4)
def _thumbnails(shown: tuple[Example, ...]) -> str:
    return views.thumbnails(
        [(open_image(example.path), ", ".join(example.queries) or example.path.stem) for example in shown]
    )


def strip_html(studio: Studio, model: str | None) -> str:
    """The examples that suit this model, as a strip."""
    return _thumbnails(tuple(examples(studio.info(model).knows)))


def first_example(studio: Studio) -> Example | None:
    """The example that the page opens with."""
    return next(iter(examples(studio.info().knows)), None)


def first_queries(studio: Studio) -> list[str]:
    """Its queries."""
    example = first_example(studio)
    return list(example.queries) if example else []


def pick_example(studio: Studio, model: str | None, index: int) -> Example:
    """The example behind a click on the strip. Raises ValueError if there is no such one."""
    shown = examples(studio.info(model).knows)
    if not 0 <= index < len(shown):
        raise ValueError("This example is gone: reload the page.")
    return shown[index]


def arrival(studio: Studio, model: str | None, image: str | None, take: Callable[[], tuple], count: int) -> tuple:
    """What a tab does when a model is ready: its examples and its resolutions; on a page with no image yet, what
    take() makes of its first example, `count` values. -> (*those, examples, resolution slider).
    """
    strip = strip_html(studio, model)
    resolution = gr.update(**resolution_range(studio.info(model).resolution))
    given = (gr.skip(),) * count if image is not None or not strip else take()
    return *given, strip, resolution


def resolution_slider(training: int) -> gr.Slider:
    return gr.Slider(**resolution_range(training), label="Resolution", elem_classes="tips-slider")


def resolution_range(training: int) -> dict:
    """Range and value of the slider: half to four times the training resolution, in whole patches, up to MAX_SIDE."""
    training = training or 448
    return dict(
        minimum=training // 2 // 14 * 14, maximum=max(training, min(4 * training, MAX_SIDE)), step=14, value=training
    )


def resolution_note(features_shape: tuple[int, int], used: int, asked: int, training: int) -> str:
    """What the encoder saw, and whether that is more than it was trained for."""
    rows, columns = features_shape
    text = f"{used} px short side, {rows} × {columns} patches."
    if used < asked:
        return views.note(f"{text} The image is so long that {asked} px would not fit.", "warn")
    if training and used > training:
        return views.note(f"{text} Beyond the {training} px this encoder was trained at: finer, less sure.", "warn")
    return views.note(text)
