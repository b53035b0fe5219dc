"""The tab Inside: its numbers are the library's, layers are computed once and forgotten, and the page in a browser.

python -m pytest tests/test_inside_tab.py
"""

import base64
import html
import io
import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import torch
from caller import Visitor
from pictures import noise
from PIL import Image
from run_folders import wait

from demos.ask import work as ask_work
from demos.backend.asking import REQUESTER, Requester
from demos.backend.studio import Studio
from demos.backend.turns import Gone, Ledger, Turns
from demos.inside import views as inside_views
from demos.inside import work as inside_work
from demos.inside.api import Endpoints
from demos.inside.tab import InsideHandlers
from demos.inside.work import MAX_WORDS
from demos.segment.work import SegmentationService
from demos.segment.work import ask as segment_question
from tipsv2.analysis import projection

ROOT = Path(__file__).resolve().parent.parent

NAMES = "image view layer model features resolution red green blue foreground k words colors neighbors gap".split()
USUAL = dict(view="pca", layer=0, model=None, features="final", resolution=56, red=1, green=2, blue=3)
USUAL |= dict(foreground=False, k=3, words=["dog"], colors="pca", neighbors=5, gap="bridge")


@pytest.fixture
def tab(tiny_folder):
    return InsideHandlers(Studio(str(tiny_folder), device="cpu"))


@pytest.fixture
def picture(tmp_path):
    """A noisy picture of 90 x 60 pixels, which is 4 x 6 patches: no two alike."""
    return noise(tmp_path / "noise.png")


@pytest.fixture
def maps(monkeypatch):
    """Calls of `joint_map`, which is replaced by the first two numbers of each row: UMAP takes seconds to compile."""
    calls = []

    def drawn(patches, words, neighbors=15, min_dist=0.1, gap="bridge", seed=0, tick=None):
        calls.append((tuple(patches.shape), len(words), neighbors, gap))
        return np.asarray(patches)[..., :2], np.asarray(words)[:, :2]

    monkeypatch.setattr(projection, "joint_map", drawn)
    return calls


def draw(tab, image, who="a", ask=False, **changes):
    given = dict(USUAL, image=image) | changes
    return tab.draw(*(given[name] for name in NAMES), request=Visitor(who), ask=ask)


def asked(tab, image, **changes):
    given = {name: value for name, value in USUAL.items() if name not in ("words", "colors", "neighbors", "gap")}
    return Endpoints(tab).features(**given | dict(image=image) | changes, request=Visitor("a"))


def told(page):
    """What the page tells of each patch: name -> values."""
    columns = json.loads(html.unescape(re.search(r'data-told="(.*?)"', page).group(1)))
    return {each["name"]: each["values"] for each in columns}


def shown(page):
    """The picture of the view, one pixel a patch."""
    code = re.search(r'<img src="data:image/png;base64,(.*?)"', page).group(1)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(code))))


def test_components_are_those_of_the_library(tab, picture):
    patches = tab.studio.encoder().encode_image(picture, 56).patches
    basis = projection.pca([patches], 9)
    scores = projection.project(patches, basis)
    page, note = draw(tab, picture, red=4, blue=1)
    found = told(page)
    assert list(found) == ["component 4", "component 2", "component 1"] and "4 × 6 patches" in note
    np.testing.assert_allclose(found["component 4"], scores[..., 3].ravel(), atol=0.006)
    colors = projection.components_as_rgb([scores], (3, 1, 0))[0]
    np.testing.assert_allclose(shown(page), colors * 255, atol=0.51)
    for channel, index in (("Red", 4), ("Green", 2), ("Blue", 1)):
        share = re.search(rf"{channel} · component {index}</span><b>([\d.]+)&thinsp;%", page).group(1)
        assert float(share) == pytest.approx(100 * basis.explained[index - 1], abs=0.051)
    assert page.count('title="Component ') == 9


def test_one_component_thrice_is_grey_and_foreground_leaves_patches_out(tab, picture):
    page, _ = draw(tab, picture, red=2, green=2, blue=2)
    assert list(told(page)) == ["component 2"] and (np.ptp(shown(page), axis=-1) == 0).all()
    patches = tab.studio.encoder().encode_image(picture, 56).patches
    (mask,) = projection.foreground([projection.project(patches, projection.pca([patches]))])
    assert 0 < mask.sum() < mask.size
    np.testing.assert_array_equal(shown(draw(tab, picture, foreground=True)[0]).any(axis=-1) | ~mask, True)
    assert not shown(draw(tab, picture, foreground=True)[0])[~mask].any()


def test_clusters_and_norms_are_those_of_the_library(tab, picture):
    patches = tab.studio.encoder().encode_image(picture, 56).values
    groups, lengths = projection.kmeans(patches, 3), projection.patch_norms(patches)
    page, _ = draw(tab, picture, view="clusters", features="values")
    np.testing.assert_array_equal(told(page)["cluster"], groups.labels.ravel())
    shares = [float(share) for share in re.findall(r"<b>([\d.]+)&thinsp;%</b>", page)]
    np.testing.assert_allclose(shares, 100 * groups.shares, atol=0.051)
    np.testing.assert_array_equal(shown(page), inside_work.palette(3)[groups.labels])
    page, _ = draw(tab, picture, view="norms", features="values")
    np.testing.assert_allclose(told(page)["norm"], lengths.norms.ravel(), atol=0.051)
    assert "of 24 patches" in page


def test_outliers_are_outlined_and_counted():
    patches = np.random.default_rng(0).normal(size=(4, 6, 8))
    patches[1, 2] *= 50
    patches[3, 5] *= 40
    found, picture = inside_work.norms(patches)
    page = inside_views.norms(Image.new("RGB", (90, 60)), found, picture, Image.new("P", (256, 1)))
    assert re.findall(r' d="(.*?)"', page) == ["M2 1h1v1h-1zM5 3h1v1h-1z"] * 4  # on image and view, each with a casing
    assert "<b>2</b> of 24 patches are outliers" in page and 'title="limit"' in page


def test_every_layer_is_computed_once_and_is_what_the_encoder_says(tab, picture, monkeypatch):
    encoder, calls = tab.studio.encoder(), []
    expected = encoder.encode_layers(picture, resolution=56)
    real = encoder.encode_layers

    def counted(image, layers=None, resolution=None):
        calls.append(list(layers))
        return real(image, layers, resolution)

    monkeypatch.setattr(encoder, "encode_layers", counted)
    pictures = set()
    for layer in (3, 1, 2, 1):
        for features in ("final", "values"):
            page, _ = draw(tab, picture, view="norms", layer=layer, features=features)
            grid = expected[layer].values if features == "values" else expected[layer].patches
            np.testing.assert_allclose(told(page)["norm"], grid.norm(dim=-1).ravel(), rtol=2e-3, atol=0.06)
            pictures.add(page)
    assert calls == [[1, 2]] and len(pictures) == 6
    last = draw(tab, picture, view="norms", layer=3)
    assert draw(tab, picture, view="norms", layer=0) == last
    assert draw(tab, picture, view="norms", layer=12) == last  # the slider still stands where a deeper encoder had it
    draw(tab, picture, layer=1, who="b")
    assert len(calls) == 2  # nobody is shown what somebody else's image became


def test_layers_are_one_for_all_tabs_and_go_with_the_image(tab, picture, monkeypatch):
    draw(tab, picture, layer=1)
    studio = tab.studio
    seen = studio.encode("a", studio.encoder(), picture, 56)
    assert set(seen.layers) == {1, 2}
    monkeypatch.setattr(studio.encoder(), "encode_layers", lambda *given: pytest.fail("computed again"))
    ask_work.HeatmapService(studio).answer(
        ask_work.Question(picture, queries=("dog",), features="2", resolution=56), "a"
    )
    ask = dict(templates="none", features="values", layer=1, windows=False, background="none", threshold=0, words="")
    SegmentationService(studio).divide(picture, segment_question("dog, cat", **ask, resolution=56), None, "a")
    assert seen.num_bytes > 2 * seen.features.patches.nbytes * 2 and len(seen.answers) == 1
    assert studio._seen._visitors["a"].currsize == seen.num_bytes  # what was added later counts
    studio.forget("a")
    assert not studio._seen.keys()


def test_layers_that_do_not_fit_are_computed_one_by_one(tab, picture):
    tab.studio._seen.of_one = 1
    for layer in (1, 2):
        draw(tab, picture, layer=layer)
    seen = tab.studio.encode("a", tab.studio.encoder(), picture, 56)
    for layer in (1, 2):
        assert tab.studio.layer(seen, tab.studio.encoder(), layer).patches.dtype == torch.float32
        assert set(seen.layers) == {layer}


def test_a_map_is_offered_first_and_drawn_when_asked(tab, picture, maps):
    page, _ = draw(tab, picture, view="map", words=["dog", "grass"])
    assert "24 patches and 2 words" in page and 'class="ask"' in page and not maps
    page, _ = draw(tab, picture, view="map", words=["dog", "grass"], ask=True)
    assert maps[1:] == [((4, 6, 48), 2, 5, "bridge")]  # the first call compiles
    plan = json.loads(html.unescape(re.search(r'data-plan="(.*?)"', page).group(1)))
    points = np.array(plan["points"]).reshape(24, 2)
    patches = tab.studio.encoder().encode_image(picture, 56).patches
    assert (points.argmax(axis=0) == [patches[..., 0].argmax(), patches[..., 1].argmin()]).all()  # y points down
    text = tab.studio.encoder().encode_text(["dog", "grass"])
    cosines = (patches / patches.norm(dim=-1, keepdim=True)).flatten(0, 1) @ text.T
    assert re.findall(r'data-patch="(\d+)"', page) == [str(best) for best in cosines.argmax(dim=0).tolist()]
    np.testing.assert_allclose(told(page)["cosine"], cosines.amax(dim=1), atol=6e-4)
    before = len(maps)
    other, _ = draw(tab, picture, view="map", words=["dog", "grass"], colors="pixels")
    assert len(maps) == before and other != page  # other colours need no other map
    draw(tab, picture, view="map", words=["dog"], gap="keep")
    assert maps[-1] == ((4, 6, 48), 1, 5, "keep")  # quick by now: drawn at once


def test_a_map_that_takes_long_waits_to_be_asked_for(tab, picture, maps, monkeypatch):
    draw(tab, picture, view="map", ask=True)
    monkeypatch.setattr(inside_work, "QUICK", 0)
    assert "some seconds" in draw(tab, picture, view="map", neighbors=9)[0]
    assert 'class="ask"' not in draw(tab, picture, view="map")[0]  # remembered


def test_words_are_escaped_and_may_be_none(tab, picture, maps):
    page, _ = draw(tab, picture, view="map", words=["<b>bold</b>", 'a "dog"'], ask=True)
    assert "<b>bold" not in page and "&lt;b&gt;bold" in page and 'a "dog"' not in page
    page, _ = draw(tab, picture, view="map", words=[], ask=True)
    assert 'class="word"' not in page and told(page) == {}


def test_a_word_that_cannot_be_asked_spoils_no_other(tab, picture, maps):
    words = [f"thing {i}" for i in range(MAX_WORDS)]
    alone, _ = draw(tab, picture, view="map", words=words, ask=True)
    page, _ = draw(tab, picture, view="map", words=["🐶", "x" * 300, *words, "one more"], ask=True)
    assert page[page.index("</p>") + 4 :] == alone
    for sentence in ("has no letters", "300 characters", f"keep to {MAX_WORDS}"):
        assert sentence in page[: page.index("</p>")]


@pytest.mark.parametrize(
    "changes, sentence",
    [
        (dict(layer=-1), "no layer -1"),
        (dict(view="clusters", k=999), "at most 20"),
        (dict(red=12), "three components"),
        (dict(features="nothing"), "Unknown features"),
    ],
)
def test_what_cannot_be_shown_is_one_sentence(tab, picture, changes, sentence):
    with pytest.warns(UserWarning, match=sentence) as caught:
        assert draw(tab, picture, **changes) == gr.skip()
    assert len(caught) == 1


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (1200, 8)])
@pytest.mark.parametrize("view", ["pca", "clusters", "norms", "map"])
def test_odd_images_have_insides_too(tab, tmp_path, size, view, maps):
    Image.new("RGB", size, "teal").save(tmp_path / "odd.png")
    page, _ = draw(tab, str(tmp_path / "odd.png"), view=view, ask=True)
    assert 'class="tips-inside' in page


def test_no_image_says_what_to_do(tab):
    assert "Start with an image" in draw(tab, None)[0]


def test_arrival_brings_an_example_and_the_layers(tab):
    field, image, strip, _ = tab.arrive(None, None)
    assert field == image and "<button" in strip
    assert tab.depth(None) == gr.update(maximum=3, value=3)


def test_the_api_gives_a_picture_and_numbers(tab, picture, maps):
    image, numbers = asked(tab, picture, green=1)
    assert image.shape == (60, 90, 3) and numbers["layer"] == 3 and numbers["grid"] == [4, 6]
    assert len(numbers["explained"]) == 9 and np.shape(numbers["scores"]) == (4, 6, 3)
    image, numbers = asked(tab, picture, view="clusters", layer=1, k=4)
    assert sum(numbers["shares"]) == pytest.approx(1) and np.max(numbers["labels"]) == 3
    assert {tuple(color) for color in image.reshape(-1, 3)} == set(map(tuple, inside_work.palette(4).tolist()))
    assert np.shape(asked(tab, picture, view="norms")[1]["norms"]) == (4, 6)
    given = dict(layer=2, model=None, features="final", resolution=56, neighbors=5, gap="bridge")
    image, numbers = Endpoints(tab).feature_map(picture, ["dog", "sky"], **given, request=Visitor("a"))
    assert image.shape == (60, 90, 3) and numbers["layer"] == 2
    assert list(numbers["words"]) == ["dog", "sky"] and np.shape(numbers["patches"]) == (4, 6, 2)
    for changes, sentence in ((dict(view="x"), "Unknown view"), (dict(layer=7), "no layer 7")):
        with pytest.raises(gr.Error, match=sentence):
            asked(tab, picture, **changes)
    with pytest.raises(gr.Error, match="Give an image"):
        asked(tab, None)


@pytest.mark.slow
def test_umap_lays_out_patches_and_words_once_compiled(tab, picture):
    heard, patches = [], np.random.default_rng(0).normal(size=(4, 5, 6))
    tab.projector.draw(patches, np.ones((1, 6)), 5, "bridge", lambda share, desc: heard.append((share, desc)))
    assert tab.projector.ready and "Compiling" in heard[0][1] and "20 patches" in heard[-1][1]
    shares = [share for share, _ in heard]
    assert shares == sorted(shares) and len(set(shares)) > 3 and 0 <= shares[0] and shares[-1] < 1
    page, _ = draw(tab, picture, view="map", words=["dog"], ask=True)
    assert page.count('class="word"') == 1


COMPILED = """
from demos.backend import compiled
if begin:
    compiled.begin()
compiled.prepare(lambda share, desc: None)
from umap.umap_ import smooth_knn_dist
print(sum(smooth_knn_dist.stats.cache_hits.values()), sum(smooth_knn_dist.stats.cache_misses.values()))
"""


@pytest.mark.slow
@pytest.mark.processes
def test_what_umap_compiles_is_kept_for_the_next_process():
    """Without a kept copy every process compiles for 8 s of a core, and the first map of a page takes as long."""

    def counts(begin):
        asked = [sys.executable, "-c", f"begin = {begin}" + COMPILED]
        answer = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True)
        return [int(number) for number in answer.stdout.split()]

    assert counts(begin=True) == [1, 0]  # a process beside has done it
    assert counts(begin=False) == [1, 0]


@pytest.mark.slow
def test_a_large_map_lets_a_small_one_through_and_ends_when_nobody_waits(monkeypatch):
    projector, running, steps, order = inside_work.Projector(Turns(Ledger())), threading.Lock(), [], []

    def drawn(patches, words, neighbors=15, gap="bridge", tick=lambda: None):
        for _ in range(len(patches)):
            assert running.acquire(blocking=False)  # UMAP's compiled code must not run twice at once
            time.sleep(0.02)
            running.release()
            steps.append(len(patches))
            tick()
        return np.zeros((*np.shape(patches)[:2], 2)), np.zeros((0, 2))

    def draw(size, waits=lambda: True):
        REQUESTER.set(Requester(str(size), "", waits))
        try:
            projector.draw(np.zeros((size, 1, 4)), np.zeros((0, 4)), 5, "bridge")
            order.append(size)
        except Gone:
            order.append("gone")

    def drawing(*given):
        begun = threading.Thread(target=draw, args=given)
        begun.start()
        return begun

    monkeypatch.setattr(projection, "joint_map", drawn)
    large = drawing(200)
    wait(lambda: 200 in steps)
    assert not projector.quick(1)
    small = drawing(3)
    large.join(60), small.join(60)
    assert order == [3, 200] and projector.quick(1)
    left = threading.Event()
    large = drawing(400, lambda: not left.is_set())
    wait(lambda: 400 in steps)
    left.set()
    large.join(60)
    assert order[-1] == "gone" and steps.count(400) < 400 and projector.quick(1)


# ---- in a browser


@pytest.fixture(scope="module")
def url(serving, tiny_folder):
    yield from serving(["inside"], tiny_folder)


def choose(page, title):
    page.locator(".tips-view").get_by_text(title, exact=True).click()


def test_views_share_the_marked_patch_and_clusters_stand_alone(visit):
    from playwright.sync_api import expect

    page = visit()
    line, spots = page.locator(".told"), page.locator(".tips-inside .spot:visible")
    expect(page.locator(".tips-inside.pca")).to_be_visible()
    page.locator(".tips-inside .photo").click(position={"x": 5, "y": 5})
    expect(line).to_contain_text("Row 1, column 1 · component 1")
    expect(spots).to_have_count(2)
    choose(page, "Norms")
    expect(line).to_contain_text("Row 1, column 1 · norm")  # a click keeps the patch
    choose(page, "Clusters")
    expect(line).to_contain_text("Row 1, column 1 · cluster")
    button = page.locator(".legend button").first
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    hidden = "[...document.querySelectorAll('.tips-inside canvas')].map(c => {const d = c.getContext('2d')" + (
        ".getImageData(0, 0, c.width, c.height).data; return d.filter((v, i) => i % 4 == 3 && v).length})"
    )
    labels = page.evaluate("JSON.parse(document.querySelector('.tips-inside').dataset.told)[0].values")
    assert page.evaluate(hidden) == [sum(label != 0 for label in labels)] * 2
    page.locator(".photo").focus()
    page.keyboard.press("ArrowRight")
    expect(line).to_contain_text("Row 1, column 2")
    page.keyboard.press("Escape")
    expect(button).to_have_attribute("aria-pressed", "false")


def test_the_layer_slider_changes_the_picture(visit):
    from playwright.sync_api import expect

    page = visit()
    picture = page.locator(".tips-inside.pca .stage img")
    expect(picture).to_be_visible()
    before = picture.get_attribute("src")
    slider = page.get_by_label("range slider for Layer")
    expect(slider).to_have_attribute("max", "3")
    slider.fill("1")
    expect(picture).not_to_have_attribute("src", before)


def test_the_map_is_linked_both_ways_and_a_bad_word_is_a_sentence(visit):
    from playwright.sync_api import expect

    page = visit(width=400)
    expect(page.locator(".tips-inside.pca")).to_be_visible()
    choose(page, "Map")
    expect(page.locator(".ask, .tips-inside.map").first).to_be_visible()
    if page.locator(".ask").count():
        page.locator(".ask").click()
    expect(page.locator(".tips-inside.map")).to_be_visible()
    line, spot = page.locator(".told"), page.locator(".tips-inside.map .photo .spot")
    plane = page.locator(".plane")
    plan = json.loads(plane.get_attribute("data-plan"))
    box = plane.evaluate("e => [e.clientWidth, e.clientHeight]")
    x, y = (26 + plan["points"][14 + axis] * (box[axis] - 52) for axis in (0, 1))  # of patch 7 of 16
    plane.dispatch_event("pointermove", {"clientX": 0, "clientY": 0})
    corner = plane.evaluate("e => { const b = e.getBoundingClientRect(); return [b.left, b.top] }")
    plane.dispatch_event("click", {"clientX": corner[0] + x, "clientY": corner[1] + y})
    expect(line).to_contain_text("Row 2, column 4")
    expect(spot).to_be_visible()
    empty = plane.locator("canvas").evaluate("c => c.toDataURL()")
    page.locator(".photo").click(position={"x": 3, "y": 3})
    expect(line).to_contain_text("Row 1, column 1 · nearest word")
    assert plane.locator("canvas").evaluate("c => c.toDataURL()") != empty
    page.locator(".word").first.focus()
    expect(line).to_contain_text("→ Row")
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    field = page.get_by_label("Words on the map")
    field.fill("🐶")
    field.press("Enter")
    expect(page.locator(".tips-refused")).to_contain_text("has no letters")
    expect(page.locator(".tips-queries:visible .token.refused")).to_have_text("🐶")
    expect(page.locator(".tips-inside.map")).to_be_visible()


def test_a_client_of_the_api(url, picture):
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    client = Client(url, verbose=False)
    image, numbers = client.predict(image=handle_file(picture), view="clusters", k=4, layer=1, api_name="/features")
    assert len(numbers["shares"]) == 4 and numbers["layer"] == 1
    with Image.open(image) as drawn:
        assert (drawn.format, drawn.size) == ("PNG", (90, 60))
    with pytest.raises(AppError, match="no layer 8"):
        client.predict(image=handle_file(picture), layer=8, api_name="/features")
