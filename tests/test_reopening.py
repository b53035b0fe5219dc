"""A view comes back: by its link, after a reload and on the next visit; a link that nobody's page wrote opens nothing.

python -m pytest tests/test_reopening.py
"""

import shutil
from urllib.parse import quote, urlencode

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from demos.backend.studio import Studio
from demos.ui import controls, links
from demos.ui.examples import every_example
from demos.ui.links import OWN, Setting, View
from demos.ui.reopening import Reopening
from demos.ui.workspace import Workspace
from tipsv2.checkpoints.catalogue import is_cached

TABS = ["ask", "segment", "inside", "compare"]
SETTINGS = {
    "ask": {
        "mode": Setting(gr.Radio([("Cosine", "cosine"), ("Competing", "competing")])),
        "temperature": Setting(gr.Slider(0.005, 0.2)),
        "features": Setting(gr.Dropdown([("Values", "values")]), ranged=True),
        "resolution": Setting(gr.Slider(28, 224), ranged=True),
        "smooth": Setting(gr.Checkbox()),
        "sentence": Setting(gr.Textbox(max_length=200)),
    },
    "compare": {"a": Setting(gr.Dropdown([]), encoder=True), "resolution": Setting(gr.Dropdown([("112 px", 112)]))},
    "train": {},
}


def known(name):
    if name != "nano":
        raise ValueError("there is no such encoder")
    return name


def read(text):
    return links.read(text, SETTINGS, known)


def test_what_is_written_is_read_again():
    words = ("a dog & a cat", "naïve café", "50 % grass, wet", "猫", "a=b;c#d?e")
    view = View("compare", links.name_of(every_example()[0]), "nano", words)
    given = {
        "ask": dict(mode="competing", temperature=0.05, features="7", resolution=448, smooth=False, sentence="a + b"),
        "compare": dict(a="nano", resolution=112),
    }
    said = {
        tab: {name: SETTINGS[tab][name].written(value) for name, value in own.items()} for tab, own in given.items()
    }
    text = links.write(View(view.tab, view.picture, view.encoder, view.words, said))
    assert text.isascii() and read(text) == View(view.tab, view.picture, view.encoder, view.words, given)
    assert links.write(View()) == "" and read("query=") == View(words=()) and read("picture=own").picture == OWN


@pytest.mark.parametrize(
    "hostile",
    [
        "x" * 10_000_000,
        "query=" + "x" * 10_000_000,
        "&".join(["query=a"] * 5000),
        "encoder=somebody/else",
        "compare.a=../../etc/passwd",
        "query=" + quote("<script>alert(1)</script>"),
        "ask.sentence=" + quote('"><img src=x onerror=alert(1)>'),
        "picture=" + quote("/tmp/gradio/visitors/0123/cat.png"),
        "picture=../examples/cat.jpg",
        "ask.temperature=nan",
        "ask.temperature=inf",
        "ask.temperature=7",
        "ask.resolution=-1",
        "ask.mode=[1,2]",
        "ask.smooth=1",
        "ask.features=999999999999",
        "ask.mode.x=cosine",
        "tab=admin",
        "tab=ask&tab=train",
        "__class__.__init__=1",
        "query=%ff%fe",
        "query=%00",
        "query=" + quote("a\u202eb"),
        "query=" + quote("\U0001f600"),
        "nothing",
        "=&=&=",
        b"query=a",
        {"query": "a"},
        ["tab"],
        7,
        float("nan"),
    ],
    ids=lambda given: str(given)[:40],
)
def test_what_this_page_would_not_write_opens_nothing(hostile):
    with pytest.raises(ValueError) as told:
        read(hostile)
    sentence = str(told.value)
    assert 5 < len(sentence) < 120 and sentence.isprintable() and "<" not in sentence


def test_a_view_too_long_for_a_link_leaves_its_words_out():
    text = links.write(View("compare", words=tuple(f"{number} " + "word " * 39 for number in range(50))))
    assert text == "tab=compare"


def test_words_that_no_link_may_hold_stay_out_of_it():
    assert links.sayable(["a dog", "\U0001f600", "<b>", "", "x" * 500, "grass"]) == ["a dog", "grass"]


def test_a_link_names_encoders_that_are_here_and_are_its_openers(tiny_folder, tmp_path):
    studio = Studio(str(tiny_folder), "cpu")
    with gr.Blocks():
        reopening = Reopening(studio, Workspace(), TABS)
    own = studio.add_private(shutil.copytree(tiny_folder, tmp_path / "mine"), "somebody")
    assert reopening._may_open("tiny", "me") == "tiny" and reopening._may_open(own, "somebody") == own
    for name in (own, "tiny@5", str(tiny_folder), "", "../tiny"):
        with pytest.raises(ValueError, match="there is no encoder"):
            reopening._may_open(name, "me")
    hub = next(info.name for info in studio.offer.infos() if info.source == "hub" and not is_cached(info))
    with pytest.raises(ValueError, match="to be downloaded first"):  # a link alone downloads nothing
        reopening._may_open(hub, "me")


# ---- in a browser


@pytest.fixture(scope="module")
def url(serving, tiny_folder):
    yield from serving(TABS, tiny_folder)


@pytest.fixture
def expect():
    return pytest.importorskip("playwright.sync_api").expect


def names(page):
    return page.locator(".tips-maps:visible figcaption b")


def test_a_link_opens_the_same_view_for_somebody_else(visit, expect):
    page = visit()
    expect(names(page).first).to_be_visible()
    first = names(page).first.text_content()
    page.get_by_role("button", name="Example: ").locator("visible=true").nth(1).click()
    expect(names(page).first).not_to_have_text(first)
    page.get_by_label("Look for").locator("visible=true").fill("a red car")
    page.keyboard.press("Enter")
    expect(names(page).last).to_have_text("a red car")
    page.get_by_text("Competing", exact=True).locator("visible=true").click()
    page.get_by_role("tab", name="Segment", exact=True).click()
    page.get_by_text("Words", exact=True).locator("visible=true").click()
    page.wait_for_function("location.hash.includes('segment.background=words')")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy link").click()
    expect(page.get_by_text("The link to this view is copied.")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    shown = page.locator(".tips-image:visible .image-frame img").evaluate("i => [i.naturalWidth, i.naturalHeight]")

    other = visit(link="#" + copied.partition("#")[2])
    expect(other.get_by_role("tab", name="Segment", exact=True)).to_have_attribute("aria-selected", "true")
    expect(other.get_by_label("Words", exact=True).locator("visible=true")).to_be_checked()
    expect(other.get_by_label("Background words").locator("visible=true")).to_be_visible()
    expect(other.locator(".tips-output:visible .stage")).to_be_visible()
    image = other.locator(".tips-image:visible .image-frame img")
    expect(image).to_be_visible()
    assert image.evaluate("i => [i.naturalWidth, i.naturalHeight]") == shown
    other.get_by_role("tab", name="Ask", exact=True).click()
    expect(names(other)).to_contain_text(["a red car"])
    expect(other.get_by_label("Competing", exact=True).locator("visible=true")).to_be_checked()


def test_a_reload_keeps_the_view_but_nobodys_picture(visit, expect, tmp_path):
    picture = tmp_path / "secret-name.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)).save(picture)
    page = visit()
    expect(names(page).first).to_be_visible()
    page.get_by_label("Remove Image").locator("visible=true").click()
    page.locator(".tips-image:visible input[type=file]").set_input_files(picture)
    page.get_by_label("Look for").locator("visible=true").fill("a red car")
    page.keyboard.press("Enter")
    expect(names(page).last).to_have_text("a red car")
    page.wait_for_function("location.hash.includes('picture=own') && location.hash.includes('a+red+car')")
    page.goto(page.url.partition("#")[0])  # the bare address, as on the next visit
    expect(page.locator(".tips-status[data-state=ready]")).to_be_visible()
    expect(page.get_by_text("The picture of this view was somebody's own")).to_be_visible()
    expect(names(page).last).to_have_text("a red car")
    kept = page.evaluate("JSON.stringify(localStorage)")
    assert len(kept) < 2000 and "secret-name" not in page.url + kept and "gradio" not in page.url


def test_a_hostile_link_opens_the_page_as_it_always_opens(visit, expect):
    page = visit(link="#tab=segment&query=" + quote("<img src=x onerror='document.title=1'>") + "&ask.temperature=nan")
    told = page.locator(".toast-body")
    expect(told).to_contain_text("This link cannot be opened, since")
    assert told.count() == 1
    expect(page.get_by_role("tab", name="Ask", exact=True)).to_have_attribute("aria-selected", "true")
    expect(names(page)).to_have_text(controls.first_queries(Shown()))
    page.wait_for_function("location.hash === ''")
    assert page.title() == "TIPSv2 explorer"
    # A link that is pasted into the page that is open is opened, too.
    page.evaluate("text => { location.hash = text; }", urlencode({"tab": "segment", "segment.background": "none"}))
    expect(page.get_by_role("tab", name="Segment", exact=True)).to_have_attribute("aria-selected", "true")
    expect(page.get_by_label("None", exact=True).locator("visible=true").first).to_be_checked()


class Shown:
    """Of a studio, what the page's first example depends on."""

    def info(self):
        return self

    knows = ()
