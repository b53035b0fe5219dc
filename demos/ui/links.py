"""A view of the page as one short text, for its address and for what a browser keeps: tab, example, encoder, words and
settings. Of a visitor's own picture it says no more than that there was one.

    tab=segment&picture=scene_1&encoder=opentips-nano&query=a+dog&query=grass&segment.background=none

What comes in such a text was written by anybody: a text that is not as this page writes it opens nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode

import gradio as gr

from demos.export.files import slug
from demos.ui.controls import MAX_TEXT, texts
from demos.ui.examples import Example, every_example

MOST = 6000  # letters of a link; what is more is cut by mail programs and chats
MOST_PARTS = 150
MOST_WORDS = 50  # that are carried from tab to tab
OWN = "own"  # in place of an example's name: the visitor's own picture, which stays where it is
LARGEST = 1e6  # of a number whose range the encoder sets
Value = str | float | bool


@dataclass(frozen=True)
class View:
    """What a link opens. picture: an example's name, OWN, or "" for the one that the page opens with; words: None where
    nobody has written any; settings: tab -> name -> value, of those that are not as the page opens.
    """

    tab: str = ""
    picture: str = ""
    encoder: str = ""
    words: tuple[str, ...] | None = None
    settings: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)


@dataclass(frozen=True)
class Setting:
    """One control of a tab that links hold. encoder: it is a menu of encoders; ranged: the encoder sets its range."""

    component: gr.components.Component
    encoder: bool = False
    ranged: bool = False

    def read(self, text: str, encoders: Callable[[str], str]) -> Value:
        """A value out of a link. encoders: gives the name of an encoder that may be opened, or raises ValueError.
        Raises ValueError on anything that this control cannot have.
        """
        shown = self.component
        if self.encoder:
            return encoders(text)
        if isinstance(shown, gr.Checkbox):
            return {"on": True, "off": False}[text]
        if isinstance(shown, gr.Radio | gr.Dropdown):
            if self.ranged and text.isascii() and text.isdecimal() and len(text) <= 3:
                return text  # a layer's number: the encoder knows how many there are
            return {str(value): value for _, value in shown.choices}[text]
        if isinstance(shown, gr.Textbox):
            return plain(text, shown.max_length or MOST)
        value = float(text)
        low, high = (0, LARGEST) if self.ranged else (shown.minimum, shown.maximum)
        if not math.isfinite(value) or low is not None and value < low or high is not None and value > high:
            raise ValueError("out of range")
        return value

    def written(self, value: object) -> str:
        """A value as it stands in a link. Raises ValueError on one that no link can hold."""
        if isinstance(value, bool):
            text = "on" if value else "off"
        elif isinstance(value, int | float):
            text = f"{value:g}"
        else:
            text = str(value)
        if not self.encoder:
            try:
                self.read(text, str)
            except KeyError:
                raise ValueError("none of its choices") from None
        return text


def plain(text: str, most: int = MAX_TEXT) -> str:
    """A text in which there are no tags and nothing that cannot be seen. Raises ValueError."""
    if len(text) > most or any(letter in "<>" or not (letter.isprintable() or letter == "\n") for letter in text):
        raise ValueError("no plain text")
    return text


def name_of(example: Example) -> str:
    """What a link calls an example."""
    return slug(example.path.stem)


def example_called(name: str) -> Example | None:
    """The example of this name. Names are compared, no path is ever made of one."""
    return next((example for example in every_example() if name_of(example) == name), None)


def write(view: View) -> str:
    """The view as a text, "" for the page as it opens; without its settings and words where it would be too long."""
    parts = [(name, getattr(view, name)) for name in ("tab", "picture", "encoder") if getattr(view, name)]
    more = [("query", word) for word in (view.words or [""])] if view.words is not None else []
    more += [(f"{tab}.{name}", text) for tab, own in view.settings.items() for name, text in own.items()]
    text = urlencode([*parts, *more])
    return text if len(text) <= MOST else urlencode(parts)


def read(text: object, tabs: Mapping[str, Mapping[str, Setting]], encoders: Callable[[str], str]) -> View:
    """A text of `write` -> the view. tabs: the page's, with their settings. encoders: as in `Setting.read`.

    Raises ValueError, with the end of a sentence that says why, for everything that this page would not write.
    """
    if not isinstance(text, str) or len(text) > MOST:
        raise ValueError("it is longer than any that this page makes" if isinstance(text, str) else "it is no text")
    try:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=MOST_PARTS)
    except ValueError:
        raise ValueError("it is not written as this page writes one") from None
    single: dict[str, str] = {}
    words: list[str] | None = None
    settings: dict[str, dict[str, Value]] = {}
    for name, value in pairs:
        tab, dot, control = name.partition(".")
        if name == "query":
            words = [*(words or []), *([value] if value else [])]
        elif name in ("tab", "picture", "encoder") and name not in single:
            single[name] = value
        elif dot and control in tabs.get(tab, {}):
            try:
                settings.setdefault(tab, {})[control] = tabs[tab][control].read(value, encoders)
            except (KeyError, ValueError) as error:
                if tabs[tab][control].encoder:
                    raise ValueError(str(error)) from None
                raise ValueError(f"its '{shortened(name)}' is none that can be set") from None
        else:
            raise ValueError(f"it sets '{shortened(name)}', which is not on this page")
    if single.get("tab", "") not in ("", *tabs):
        raise ValueError(f"there is no tab '{shortened(single['tab'])}' here")
    if single.get("picture", "") not in ("", OWN) and example_called(single["picture"]) is None:
        raise ValueError("its picture is none of the examples")
    if single.get("encoder"):
        single["encoder"] = encoders(single["encoder"])
    return View(**single, words=None if words is None else tuple(_words(words)), settings=settings)


def sayable(words: Sequence[str]) -> list[str]:
    """Those of the words that `read` takes back."""

    def may(word: str) -> bool:
        try:
            return bool(_words([word]))
        except ValueError:
            return False

    return [word for word in words if may(word)]


def _words(words: Sequence[str]) -> Sequence[str]:
    try:
        return texts([plain(word) for word in words], "query", MOST_WORDS)
    except ValueError:
        raise ValueError("its queries are no words that can be asked") from None


def shortened(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:40]
