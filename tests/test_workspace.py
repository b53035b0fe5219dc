"""One picture for the whole page: given once, it is in every tab, with the words that were asked of it.

python -m pytest tests/test_workspace.py
"""

import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from demos.backend import belongings
from demos.ui import controls
from demos.ui.examples import every_example
from demos.ui.verdicts import unfamiliar
from demos.ui.workspace import MOST_WORDS, carried, example_of
from tipsv2.checkpoints import bundled
from tipsv2.checkpoints.bundled import PHOTOGRAPHS
from tipsv2.checkpoints.catalogue import find

TABS = ["ask", "segment", "inside", "compare", "depth"]


@pytest.fixture(scope="module")
def url(serving, tiny_folder):
    yield from serving(TABS, tiny_folder)


def test_a_kept_example_is_known_again_and_an_own_picture_is_none(tmp_path):
    for example in every_example():
        assert example_of(controls.keep(example.path)) == example
    own = tmp_path / every_example()[0].path.name  # called as an example is
    Image.new("RGB", (30, 20)).save(own)
    assert example_of(controls.keep(own, "somebody")) is None and example_of(None) is None
    assert belongings.room("somebody") in belongings.uploads().rglob("*")


def test_an_encoder_that_never_saw_a_photograph_says_so(tmp_path, monkeypatch):
    nano, unnamed = find("opentips-nano"), replace(find("opentips-nano"), knows=(), name="<mine>")
    line = unfamiliar([nano, nano])
    assert line.count("opentips-nano has seen drawings only, and this looks like none of them") == 1
    assert "what it shows here is no answer" in line and "<button" in line and not unfamiliar([])
    assert "&lt;mine&gt; has seen other pictures only" in unfamiliar([unnamed])
    assert "<button" not in unfamiliar([nano], offer=False)
    monkeypatch.setattr(bundled, "MODELS_FOLDER", tmp_path)  # a copy of the project without the large encoder
    assert "seen drawings only" in unfamiliar([nano]) and "<button" not in unfamiliar([nano])


def test_only_words_are_carried_from_tab_to_tab():
    assert carried(["a dog", 3, {"a": 1}, None, "x" * 10_000, "grass"]) == ["a dog", "grass"]
    assert carried({"a": 1}) == carried("a dog") == carried(None) == []
    assert len(carried(["a dog"] * 10_000)) == MOST_WORDS


def comes_to_rest(page) -> bool:
    """Whether the page asks the server nothing for three seconds, some time in the next minutes."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for _ in range(60):
        before = len(asked)
        page.wait_for_timeout(3000)
        if len(asked) == before:
            return True
    return False


def test_one_click_asks_the_encoder_that_knows_photographs(visit, tmp_path):
    expect = pytest.importorskip("playwright.sync_api").expect
    photograph = next(example.path for example in every_example() if example.kind == PHOTOGRAPHS)
    with Image.open(photograph) as picture:
        picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "own.png")
    page = visit()
    menu, names = page.get_by_label("Encoder"), page.locator(".tips-maps:visible figcaption b")
    expect(names.first).to_be_visible()
    page.locator(".tips-image:visible input[type=file]").set_input_files(tmp_path / "own.png")
    menu.click()
    page.get_by_role("option", name="OpenTIPS nano").click()
    unseen = page.locator(".tips-unseen:visible")
    expect(unseen).to_contain_text("opentips-nano has seen drawings only, and this looks like none of them")
    answers = page.locator(".tips-verdict:visible")
    expect(answers.first).to_have_text("unknown")
    assert {*answers.all_text_contents()} == {"unknown"}
    page.get_by_role("tab", name="Segment", exact=True).click()
    expect(page.get_by_text("is here is unknown").locator("visible=true")).to_be_visible()
    unseen.get_by_role("button").click()
    expect(menu).to_have_value(re.compile("S/14"))
    expect(unseen).to_have_count(0)
    page.get_by_role("tab", name="Ask", exact=True).click()
    expect(names.first).to_be_visible()
    expect(unseen).to_have_count(0)
    assert comes_to_rest(page)


def test_one_upload_and_its_words_are_in_every_tab(visit, tmp_path):
    """Upload, two queries, segment, inside, compare, depth: one upload, where it took one in each tab."""
    expect = pytest.importorskip("playwright.sync_api").expect
    picture = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)).save(picture)
    page = visit()
    names = page.locator(".tips-maps:visible figcaption b")
    expect(names.first).to_be_visible()
    page.get_by_title("Clear", exact=True).click()
    page.get_by_label("Remove Image").locator("visible=true").click()
    expect(page.get_by_text("Start with an image").locator("visible=true")).to_be_visible()
    page.locator(".tips-image:visible input[type=file]").set_input_files(picture)
    for words in ("a dog", "grass"):
        page.get_by_label("Look for").locator("visible=true").fill(words)
        page.keyboard.press("Enter")
    expect(names).to_have_text(["a dog", "grass"])

    def shown():  # sizes of what the page shows now
        return page.locator(".tips-image:visible .image-frame img").evaluate("i => [i.naturalWidth, i.naturalHeight]")

    for tab in ("Segment", "Inside", "Compare", "Depth"):
        page.get_by_role("tab", name=tab, exact=True).click()
        expect(page.locator(".tips-image:visible .image-frame img")).to_be_visible()
        page.wait_for_function("""() => [...document.querySelectorAll('.tips-image .image-frame img')]
            .some(i => i.offsetParent && i.naturalWidth === 90)""")
        assert shown() == [90, 60], tab
        assert comes_to_rest(page), tab
        if tab == "Segment":
            expect(page.locator(".tips-output:visible .stage")).to_be_visible()
            expect(page.get_by_label("Classes")).to_have_value("a dog, grass")
            expect(page.get_by_text("mIoU").locator("visible=true")).to_have_count(0)  # the truth was the example's
        if tab == "Compare":
            expect(page.locator(".tips-queries:visible .token")).to_have_text(["a dog", "grass"])

    page.get_by_label("Remove Image").locator("visible=true").click()  # and taken away in one, it is in none
    page.get_by_role("tab", name="Ask", exact=True).click()
    expect(page.get_by_text("Start with an image").locator("visible=true")).to_be_visible()
