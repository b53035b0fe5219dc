"""The explorer in a real headless Chromium: what somebody does in the first minute, and a client of its API.

python -m pytest tests/test_app.py
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def url(serving, tiny_folder):
    yield from serving(["ask", "segment", "inside", "compare"], tiny_folder)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)).save(path)
    return path


def names(page):
    return page.locator(".tips-maps:visible figcaption b")


def replace_image(page, path):
    page.get_by_label("Remove Image").locator("visible=true").click()
    expect(page.get_by_text("Start with an image").locator("visible=true")).to_be_visible()
    page.locator(".tips-image:visible input[type=file]").set_input_files(path)


def add_query(page, text):
    field = page.get_by_label("Look for")
    field.fill(text)
    field.press("Enter")


def test_the_page_opens_with_an_example_and_says_who_answers(visit):
    page = visit()
    expect(names(page).first).to_be_visible()
    line = page.locator(".tips-status")
    expect(line).to_contain_text("trained at 56 px")
    expect(line).to_contain_text("cpu")
    expect(page.locator(".tips-examples:visible button").first).to_be_visible()


def test_upload_two_queries_and_read_their_maps(visit, picture):
    page = visit()
    expect(names(page).first).to_be_visible()
    page.get_by_title("Clear", exact=True).click()
    expect(page.get_by_text("What are you looking for?")).to_be_visible()
    replace_image(page, picture)
    add_query(page, "a dog")
    add_query(page, "grass")
    expect(names(page)).to_have_text(["a dog", "grass"])
    for what in ("peak", "mean"):
        for score in page.locator(f".value-{what}").all_inner_texts():
            assert -1 <= float(score) <= 1
    page.get_by_title("Remove a dog").click()
    expect(names(page)).to_have_text(["grass"])


def test_click_a_patch_and_remove_its_map(visit):
    page = visit()
    expect(names(page).first).to_be_visible()
    before = names(page).count()
    page.locator(".tips-image:visible .image-frame img").click(position={"x": 120, "y": 120})
    expect(names(page)).to_have_count(before + 2)
    expect(names(page).first).to_have_text("Clicked patch")
    expect(names(page).nth(1)).to_have_text("Nearest words")
    expect(page.locator(".card .patch")).to_be_visible()
    page.locator(".card .remove").click()
    expect(names(page)).to_have_count(before)


def test_every_map_tells_its_value_under_the_pointer(visit, picture):
    page = visit()
    expect(names(page).first).to_be_visible()
    replace_image(page, picture)
    expect(page.locator(".tips-maps:visible[data-size='90x60']")).to_be_visible()
    cards = page.locator(".card[data-grid]").all()
    rows, columns = map(int, cards[0].get_attribute("data-grid").split("x"))
    assert rows != columns and len(cards) > 1
    stage = cards[1].locator(".stage")
    box = stage.bounding_box()
    for row, column in ((0, columns - 1), (1, 2), (rows - 1, 0)):
        x, y = (column + 0.5) / columns * box["width"], (row + 0.5) / rows * box["height"]
        stage.hover(position={"x": x, "y": y})
        for card in cards:
            values = np.reshape(json.loads(card.get_attribute("data-values")), (rows, columns))
            expect(card.locator(".here dd")).to_have_text(f"{values[row, column]:.3f}")


def test_competing_shows_its_temperature_and_a_bad_query_is_a_sentence(visit):
    page = visit()
    expect(names(page).first).to_be_visible()
    page.get_by_text("Competing", exact=True).click()
    expect(page.get_by_text("Temperature", exact=True)).to_be_visible()
    expect(page.locator(".range span:last-child").first).to_have_text("1.000")
    count = names(page).count()
    add_query(page, "🐶")
    bad = page.locator(".tips-queries .token.refused")
    expect(page.locator(".tips-refused")).to_contain_text("has no letters")
    expect(bad).to_have_text("🐶")
    expect(bad).to_have_attribute("title", re.compile("has no letters"))
    add_query(page, "grass")  # is asked all the same
    expect(names(page)).to_have_count(count + 1)
    bad.locator(".token-remove").click()
    expect(page.locator(".tips-refused")).to_have_count(0)
    expect(bad).to_have_count(0)


def test_segmentation_shows_its_legend(visit, picture):
    page = visit()
    page.get_by_role("tab", name="Segment").click()
    expect(page.locator(".tips-segments tbody tr").first).to_be_visible()
    replace_image(page, picture)
    page.get_by_label("Classes").fill("dog, grass, a red car")
    page.get_by_label("Classes").press("Enter")
    legend = page.locator(".tips-segments .legend")
    expect(legend).to_contain_text("of 3 classes found")
    for name in ("dog", "grass", "a red car"):  # found or not, each is listed
        expect(legend).to_contain_text(name)
    expect(legend.locator("td").first).to_contain_text("%")
    entry = legend.locator("button").first
    entry.click()
    expect(entry).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".tips-segments[data-alone]")).to_be_visible()


def test_a_bad_file_is_a_sentence_and_the_page_lives_on(visit, tmp_path):
    page = visit()
    path = tmp_path / "text.png"
    path.write_text("not a picture")
    replace_image(page, path)
    expect(page.locator(".toast-body")).to_contain_text("'text.png' is not a picture")
    expect(page.get_by_text("Start with an image").locator("visible=true")).to_be_visible()
    page.locator(".tips-examples:visible button").first.click()
    expect(names(page).first).to_be_visible()


def test_a_phone_needs_no_sideways_scroll(visit):
    page = visit(width=400)
    wide = "document.documentElement.scrollWidth"
    assert page.evaluate(wide) <= 400
    page.get_by_role("tab", name="Segment").click()
    expect(page.locator(".tips-segments tbody tr").first).to_be_visible()
    assert page.evaluate(wide) <= 400


def test_a_page_left_alone_asks_nothing(visit):
    """Whichever tab is looked at: a field that is filled while hidden must not report changes without end."""
    page = visit()
    expect(names(page).first).to_be_visible()
    asked = []
    page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/queue/join") else None)
    for tab in ("Compare", "Inside", "Segment", "Ask"):
        page.get_by_role("tab", name=tab, exact=True).click()
        for _ in range(12):  # what the page still had to do
            asked.clear()
            page.wait_for_timeout(1000)
            if not asked:
                break
        assert not asked, tab


def test_the_documented_endpoints_are_those_of_the_page(tiny_folder):
    from app import TABS
    from demos.ui.page import build

    told = (ROOT / "docs/explorer.md").read_text("utf-8").partition("## Endpoints")[2].partition("\n## ")[0]
    there = build(TABS, str(tiny_folder), "cpu").get_api_info()["named_endpoints"]
    assert set(re.findall(r"`(/[a-z_]+)`", told)) == set(there)


def test_the_document_of_the_endpoints_is_made_from_the_code(tiny_folder):
    """Every parameter of every endpoint is described where it is defined, and the document says the same."""
    from demos import reference
    from demos.ui.page import build

    text = reference.DOCUMENT.read_text("utf-8")
    made = reference.reference(build(reference.TABS, str(tiny_folder), "cpu"))
    assert text == reference.document(text, made), "run python -m demos.reference --write"
    assert set(re.findall(r"\| `(\w+)` \| has to be given", made)) == {"image", "classes", "name"}
    with pytest.raises(ValueError, match="what far may be"):
        reference.described("What.\n\nnear: in metres. The rest as in /depth.", ["near", "far"])


def test_no_endpoint_takes_the_resolution_of_the_encoder_the_page_opened_with(tiny_folder):
    from app import TABS
    from demos.ui.page import build

    there = build(TABS, str(tiny_folder), "cpu").get_api_info()["named_endpoints"]
    given = {
        name: each["parameter_default"]
        for name, endpoint in there.items()
        for each in endpoint["parameters"]
        if each["parameter_name"] == "resolution" and name != "/start_run"
    }
    assert len(given) == 12 and set(given.values()) == {0}


def test_the_example_client_without_an_app_is_one_sentence():
    found = subprocess.run(
        [sys.executable, ROOT / "docs/client.py", "http://127.0.0.1:9"], capture_output=True, text=True
    )
    assert found.returncode == 1 and found.stderr.startswith("no explorer answers at http://127.0.0.1:9")
    assert found.stderr.count("\n") == 1


def test_the_example_client_asks_a_running_app(url, tmp_path):
    client = [sys.executable, ROOT / "docs/client.py", url]
    own = os.environ | {"GRADIO_TEMP_DIR": str(tmp_path)}  # where it puts what it gets
    found = subprocess.run(client, env=own, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    banana, gear, answer = found.stdout.split("\n", 2)
    for line, query in ((banana, "a banana"), (gear, "a gear")):
        peak, mean, path = re.fullmatch(rf"{query}: peak (\S+), mean (\S+), (.+)", line).groups()
        assert -1 <= float(mean) <= float(peak) <= 1 and Path(path).is_relative_to(tmp_path)
        with Image.open(path) as overlay, Image.open(ROOT / "assets/examples/scene_1.png") as image:
            assert overlay.size == image.size
    for name in ("banana", "gear", "road", "brick"):
        assert f'"{name}"' in answer


def test_a_client_of_the_api(url, picture, tmp_path):
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    client = Client(url, verbose=False)
    assert client.predict("tips-nano", api_name="/load")["name"] == "tips-nano"
    overlays, scores = client.predict(image=handle_file(picture), queries=["a dog", "sky"], api_name="/heatmap")
    assert [each["query"] for each in scores] == [each["caption"] for each in overlays] == ["a dog", "sky"]
    with Image.open(overlays[0]["image"]) as overlay:
        assert (overlay.format, overlay.size) == ("PNG", (90, 60))
    for given, shape in ((dict(model="tips-nano"), (16, 24)), (dict(model="tips-nano", resolution=448), (32, 48))):
        _, scores = client.predict(image=handle_file(picture), queries=["a dog"], **given, api_name="/heatmap")
        assert np.shape(scores[0]["patches"]) == shape
    _, labels, told = client.predict(image=handle_file(picture), classes="dog, sky", api_name="/segmentation")
    share = float((np.asarray(Image.open(labels)) == 1).mean())
    assert told["shares"]["dog"] == pytest.approx(share, abs=1e-5)
    bad = tmp_path / "text.png"
    bad.write_text("not a picture")
    with pytest.raises(AppError, match="not a picture"):
        client.predict(image=handle_file(bad), queries=["a dog"], api_name="/heatmap")


@pytest.mark.slow
def test_serving_a_page_with_every_tab_loads_nothing_heavy(tiny_folder):
    code = (
        "import json, sys, app; from demos.ui.page import build; from demos.launch import launch\n"
        f"page = build(app.TABS, model={str(tiny_folder)!r}, device='cpu')\n"
        "launch(page, server_name='127.0.0.1', prevent_thread_lock=True, quiet=True); page.close(verbose=False)\n"
        "heavy = {'torch', 'transformers', 'matplotlib', 'umap', 'numba', 'skimage', 'sklearn', 'scipy'}\n"
        "print(json.dumps(sorted(heavy & set(sys.modules))))"
    )
    served = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert json.loads(served.stdout.splitlines()[-1]) == []
