"""The Depth tab: what is drawn is what the library predicts, heads come only when asked for, failures are sentences.

python -m pytest tests/test_depth_tab.py
"""

import base64
import html
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import gradio as gr
import huggingface_hub
import numpy as np
import pytest
from PIL import Image
from test_dpt import make_dpt

from demos.backend import belongings, downloads
from demos.backend.heads import KEEP_SCENES, DepthMemory, apart
from demos.backend.shelf import HEADS, Shelf, weight_bytes
from demos.depth import offer as depth_offer
from demos.depth import tab as depth
from demos.depth import views as depth_views
from demos.depth.api import DepthOutputs
from demos.depth.tab import Depths
from demos.ui.export_row import export
from tipsv2.__main__ import main
from tipsv2.analysis.depth import ADE20K, load_dpt
from tipsv2.checkpoints.catalogue import DPT, ModelError, find

ROOT = Path(__file__).resolve().parent.parent
NAMES = "image loaded chosen trouble resolution span near far colormap".split()
USUAL = dict(loaded="tiny-dpt", chosen="tiny-dpt", trouble="", resolution=56, span="auto", near=0, far=10)
USUAL |= dict(colormap="viridis")


class Visitor:
    """Stands for gr.Request: all the handlers use of it."""

    def __init__(self, session_hash):
        self.session_hash = session_hash


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Random weights in the anatomy of the releases, 150 classes, 56 pixels."""
    folder = tmp_path_factory.mktemp("dpt") / "tiny-dpt"
    make_dpt(classes=150).save_pretrained(folder)
    return folder


@pytest.fixture
def picture(tmp_path):
    """90 x 60 pixels of blobs: 4 x 6 patches, and as many pixels as are drawn."""
    path = tmp_path / "image.png"
    noise = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((90, 60), Image.Resampling.BICUBIC).save(path)
    return str(path)


@pytest.fixture
def memory(folder):
    return DepthMemory(Shelf("cpu"), [find(folder)])


@pytest.fixture
def hub(folder, tmp_path, monkeypatch):
    """A Hub that has every model: the transport below huggingface_hub's functions. hub.fails: how a download ends.
    hub.endless: it goes on until it is stopped."""

    class Hub:
        fails, endless, asked = None, False, []

    def snapshot_download(name, **options):
        Hub.asked.append(name)
        bar = options["tqdm_class"](total=1000, unit="B", desc="model.safetensors")
        for _ in range(100_000 if Hub.endless else 10):
            bar.update(100)
            time.sleep(0.03)
        if Hub.fails:
            raise Hub.fails
        place = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        shutil.copytree(folder, place / "snapshots" / "abc")
        (place / "refs").mkdir()
        (place / "refs" / "main").write_text("abc")
        return str(place / "snapshots" / "abc")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: type("Info", (), {"sha": "abc"}))
    monkeypatch.setattr(downloads, "BEAT", 0.01)
    Hub.asked = []
    return Hub


def draw(memory, image, who="a", **changes):
    given = dict(USUAL, image=image) | changes
    return Depths(memory).draw(*(given[name] for name in NAMES), request=Visitor(who))


def press(memory, chosen, loaded=None):
    """The button: -> (all that `fetch` showed, what `load` gave)."""
    handlers = Depths(memory)
    shown = list(handlers.fetch(chosen, loaded, Visitor("a")))
    asked, trouble = shown[-1][:2]
    return shown, handlers.load(asked, loaded, trouble)


def unpacked(page, name, kind):
    return np.frombuffer(base64.b64decode(re.search(rf'data-{name}="(.*?)"', page)[1]), kind)


# ---- what is drawn


def test_the_numbers_under_the_pointer_are_those_of_the_library(memory, folder, picture):
    page, note = draw(memory, picture)
    found = load_dpt(folder, device="cpu").predict(picture, 56)
    assert re.search(r'data-grid="60x90"', page) and "56 px short side, 4 × 6 patches" in note
    np.testing.assert_allclose(unpacked(page, "depth", "<f4"), found.depth.ravel(), rtol=1e-6)
    np.testing.assert_allclose(unpacked(page, "normals", "i1") / 127, found.normals.ravel(), atol=0.5 / 127 + 1e-6)
    np.testing.assert_array_equal(unpacked(page, "labels", "<i2"), found.labels.ravel())
    assert html.unescape(re.search(r'data-names="(.*?)"', page, re.S)[1]).split("\n") == [*ADE20K]
    shares = found.shares()
    rows = re.findall(r'title="([^"]*)"><i style="background:(#\w+)"></i><span>.*?</span><b>(.*?)</b>', page)
    assert [html.unescape(name) for name, *_ in rows] == list(shares) and len({color for _, color, _ in rows}) == len(
        rows
    )
    assert rows[0][2] == f"{100 * next(iter(shares.values())):.1f}&thinsp;%"
    assert f"{found.depth.min():.2f} m" in page and f"{found.depth.max():.2f} m" in page


def test_the_grid_takes_the_pixels_in_the_middle_of_its_cells():
    array = np.arange(12 * 18).reshape(12, 18)
    np.testing.assert_array_equal(depth_views._sampled(array, (4, 6)), array[1::3, 1::3])
    np.testing.assert_array_equal(depth_views._sampled(array, (12, 18)), array)


@pytest.mark.parametrize("side", [1, -1])
def test_a_ball_shows_each_direction_in_the_colour_it_has_in_the_picture(side):
    code = depth_views._ball(side).partition(",")[2]
    ball = np.asarray(Image.open(io.BytesIO(base64.b64decode(code)))).astype(float)
    size = len(ball)
    for x, y in ((0, 0), (0.5, 0), (0, 0.5), (-0.4, -0.6)):
        row, column = int((1 - y) / 2 * size), int((1 + x) / 2 * size)
        z = side * np.sqrt(1 - x * x - y * y)
        np.testing.assert_allclose(ball[row, column, :3], (np.array([x, y, z]) + 1) * 127.5, atol=3)
        assert ball[row, column, 3] == 255
    assert (ball[0, 0, 3], ball[-1, -1, 3]) == (0, 0)


def test_the_range_of_the_colours(memory, picture):
    page, _ = draw(memory, picture)
    depth_map = unpacked(page, "depth", "<f4")
    assert [float(end) for end in re.search(r'data-range="(.*?)"', page)[1].split()] == [
        depth_map.min(),
        depth_map.max(),
    ]
    fixed, _ = draw(memory, picture, span="fixed", near=2, far=8)
    assert 'data-range="2.0 8.0"' in fixed and re.findall(r'<li style="left:([\d.]+)%">(\d+)</li>', fixed) == [
        ("0.00", "2"), ("33.33", "4"), ("66.67", "6"), ("100.00", "8")
    ]  # fmt: skip
    for near, far in ((8, 2), (3, 3), (-1, 2), (None, 5), (0, float("nan")), (0, 1e9)):
        with pytest.warns(UserWarning, match="less than the farthest"):
            assert draw(memory, picture, span="fixed", near=near, far=far) == gr.skip()


def test_predicted_once_whatever_the_colours_and_nobody_elses(memory, picture, tmp_path, monkeypatch):
    calls, dpt = [], memory.heads()
    real = dpt.predict
    monkeypatch.setattr(dpt, "predict", lambda image, resolution: calls.append(resolution) or real(image, resolution))
    draw(memory, picture)
    draw(memory, picture, span="fixed", colormap="magma")
    assert calls == [56]
    draw(memory, picture, resolution=84)
    draw(memory, picture, who="b")
    assert calls == [56, 84, 56]
    for number in range(KEEP_SCENES):
        shutil.copy(picture, tmp_path / f"{number}.png")
        draw(memory, str(tmp_path / f"{number}.png"))
    draw(memory, picture, who="b")
    assert len(calls) == 3 + KEEP_SCENES  # a busy visitor pushes out nobody else
    memory.forget("b")
    assert {visitor for visitor, _ in memory._scenes.keys()} == {"a"}


@pytest.mark.parametrize(
    ("network", "card", "missing"),
    [
        ("Tipsv2DptForDepthEstimation", "depth", "normals and segmentation"),
        ("Tipsv2DptForNormalEstimation", "normals", "depth and segmentation"),
        ("Tipsv2DptForSemanticSegmentation", "classes", "depth and normals"),
    ],
)
def test_one_head_alone(network, card, missing, tmp_path, picture):
    make_dpt(network).save_pretrained(tmp_path / "one")
    memory = DepthMemory(Shelf("cpu"), [find(tmp_path / "one")])
    page, note = draw(memory, picture, loaded="one")
    assert re.findall(r'<figure class="(\w+)">', page) == [card] and f"no head for {missing}" in note
    taken = DepthOutputs(memory).take(picture, "one", 56, "auto", 0, 10, "viridis", 0.5)
    assert ("depth" in taken.arrays, "normals" in taken.arrays, "labels" in taken.arrays) == tuple(
        name == card for name in ("depth", "normals", "classes")
    )
    assert bool(taken.masks) == (card == "classes") and f'save("{card}.png")' in taken.python


def test_another_patch_size(tmp_path, picture):
    make_dpt(patch_size=16, image_size=64).save_pretrained(tmp_path / "sixteen")
    memory = DepthMemory(Shelf("cpu"), [find(tmp_path / "sixteen")])
    (_, (_, name, trouble, _, slider)) = press(memory, "sixteen")
    assert (name, trouble) == ("sixteen", "")
    assert (slider["minimum"], slider["maximum"], slider["step"], slider["value"]) == (32, 256, 32, 64)
    _, note = draw(memory, picture, loaded="sixteen", resolution=96)
    assert "96 px short side, 6 × 8 patches" in note and "Beyond the 64 px" in note


def test_slider_steps_are_whole_pairs_of_patches():
    for training, patch_size in ((448, 14), (56, 14), (518, 14), (64, 16), (2000, 14)):
        found = depth.resolutions(training, patch_size)
        step = found["step"]
        assert step == 2 * patch_size and found["minimum"] % step == 0
        assert found["minimum"] <= training <= found["maximum"] and found["value"] == training


def test_class_names_are_escaped(folder, tmp_path, picture):
    copy = shutil.copytree(folder, tmp_path / "named")
    config = json.loads((copy / "config.json").read_text())
    config["id2label"] = {str(index): f'<b>"{index}"' for index in range(150)}
    (copy / "config.json").write_text(json.dumps(config))
    page, _ = draw(DepthMemory(Shelf("cpu"), [find(copy)]), picture, loaded="named")
    assert '<b>"' not in page and "&lt;b&gt;&quot;" in page
    assert "<script" not in depth_offer.offer(DPT["tipsv2-b14-dpt"], "hub", "<script>")


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (1200, 8), (1000, 700)])
def test_odd_and_large_images(memory, tmp_path, size):
    Image.new("RGB", size, "teal").save(tmp_path / "odd.png")
    page, _ = draw(memory, str(tmp_path / "odd.png"))
    assert page.count("<figure") == 3 and len(page) < 4_000_000


# ---- heads come when asked for


def test_nothing_is_fetched_or_loaded_before_somebody_asks(memory, hub, picture):
    page, note = draw(memory, picture, loaded=None)
    assert 'class="load">Load heads</button>' in page and note == "" and not memory.shelf._loaded
    button, _, page = Depths(memory).pick("tipsv2-g14-dpt", None)
    assert "5.3 GB with an encoder inside" in page and button["value"] == "Load heads · 5.3 GB"
    labels = dict((name, label) for label, name in memory.choices())
    assert labels["tiny-dpt"].endswith("local folder") and labels["tipsv2-b14-dpt"] == "B/14 · 86M+72M · ↓ 632 MB"
    with pytest.raises(ModelError, match="is not on this machine"):
        memory.heads("tipsv2-b14-dpt")
    assert hub.asked == []


def test_a_download_is_watched_loaded_and_found_again(memory, hub, picture):
    shown, (picker, loaded, trouble, button, slider) = press(memory, "tipsv2-b14-dpt")
    assert hub.asked == ["google/tipsv2-b14-dpt"] and any("<progress" in str(page) for _, _, page, _ in shown)
    assert (loaded, trouble, slider["value"]) == ("tipsv2-b14-dpt", "", 56)
    assert button == gr.update(value="Loaded", interactive=False)
    assert "B/14 · 86M+72M · loaded" in [label for label, _ in picker["choices"]]
    assert "<figure" in draw(memory, picture, loaded=loaded)[0]
    press(memory, "tiny-dpt")
    assert memory.where("tipsv2-b14-dpt") == memory.where("tiny-dpt") == "loaded"  # both fit
    memory.shelf.drop("tipsv2-b14-dpt", HEADS)
    assert memory.where("tipsv2-b14-dpt") == "cached"
    assert "<figure" in draw(memory, picture, loaded=loaded, resolution=84)[0]  # who chose it first still has it
    assert len(hub.asked) == 1 and memory.where("tipsv2-b14-dpt") == "loaded"


def test_a_download_that_fails_is_a_sentence_with_the_command_and_may_be_tried_again(memory, hub, picture):
    hub.fails = ConnectionError("connection lost")
    _, (_, loaded, trouble, button, _) = press(memory, "tipsv2-b14-dpt")
    assert loaded is None and "stopped (connection lost): try again" in trouble
    assert button == gr.update(value="Load heads · 632 MB", interactive=True)
    page, _ = draw(memory, picture, loaded=None, chosen="tipsv2-b14-dpt", trouble=trouble)
    assert "connection lost" in page and "<code>hf download google/tipsv2-b14-dpt</code>" in page
    assert "--model ./tipsv2-b14-dpt" in page and "Try again" in page
    with pytest.warns(UserWarning, match="connection lost"):  # where pictures are shown it is a toast
        _, (picker, loaded, *_) = press(memory, "tipsv2-b14-dpt", loaded="tiny-dpt")
    assert (picker, loaded) == ("tipsv2-b14-dpt", "tiny-dpt")
    hub.fails = None
    assert press(memory, "tipsv2-b14-dpt")[1][1] == "tipsv2-b14-dpt"


def test_without_a_network_the_same_within_seconds(memory, hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    _, (_, loaded, trouble, *_) = press(memory, "tipsv2-l14-dpt")
    assert loaded is None and "is not on this machine and HF_HUB_OFFLINE is set" in trouble and hub.asked == []


def test_a_download_can_be_cancelled(memory, hub):
    hub.endless = True
    handlers = Depths(memory)
    getting = handlers.fetch("tipsv2-b14-dpt", None, Visitor("a"))
    next(getting)
    handlers.cancel(Visitor("b"))  # somebody else's button
    handlers.cancel(Visitor("a"))
    assert "was cancelled" in list(getting)[-1][1]
    job = memory.downloads._jobs["tipsv2-b14-dpt"]
    job.join(10)
    assert not job.is_alive()  # with nobody waiting for it, it ended


def test_a_broken_folder_is_a_sentence_and_no_command(folder, tmp_path, picture):
    copy = shutil.copytree(folder, tmp_path / "broken")
    (copy / "model.safetensors").write_bytes(b"\0" * 100)
    memory = DepthMemory(Shelf("cpu"), [find(copy)])
    _, (_, loaded, trouble, *_) = press(memory, "broken")
    page, _ = draw(memory, picture, loaded=None, chosen="broken", trouble=trouble)
    assert loaded is None and "cannot be read" in trouble and "hf download" not in page


def test_heads_are_under_the_budget_of_the_encoders(memory, folder, hub, tiny_folder, tmp_path, monkeypatch):
    need = sum(each.numel() for each in load_dpt(folder).model.parameters()) * 4
    shelf = memory.shelf
    shelf.budget = need - 1000
    with pytest.raises(ModelError, match=r"tiny-dpt needs 2 MB of memory, 2 MB are free for it: start the app with a"):
        memory.heads()
    encoder = find(tiny_folder)
    shelf.budget = need + weight_bytes(encoder, "cpu") + 1000
    shelf.get(encoder)
    assert memory.heads().heads == ("depth", "normals", "segmentation") and memory.where("tiny-dpt") == "loaded"
    assert shelf.loaded(encoder.name)  # both fit
    assert "g/14 with DPT heads needs 5.3 GB" in press(memory, "tipsv2-g14-dpt", "tiny-dpt")[0][-1][1]
    assert "choose tiny-dpt, or start" in press(memory, "tipsv2-g14-dpt", "tiny-dpt")[0][-1][1]
    assert hub.asked == [] and memory.where("tiny-dpt") == "loaded"
    memory._infos["copy"] = find(shutil.copytree(folder, tmp_path / "copy"))
    assert memory.heads("copy").info.name == "copy"
    assert memory.where("tiny-dpt") == "folder" and not shelf.loaded(encoder.name)  # the budget holds one of the heads
    shelf.get(encoder)
    assert memory.where("copy") == "loaded"


def test_models_that_are_given_with_the_flag(folder, tiny_folder, tmp_path):
    encoders, heads = apart([str(folder), str(tiny_folder), "google/tipsv2-l14-dpt"])
    assert encoders == [str(tiny_folder)] and [info.name for info in heads] == ["tiny-dpt", "tipsv2-l14-dpt"]
    assert apart(["auto"]) == (["auto"], []) and apart([str(folder)])[0] == ["auto"]
    assert DepthMemory(Shelf("cpu"), heads).first == "tiny-dpt"
    copy = find(shutil.copytree(folder, tmp_path / "tipsv2-b14-dpt"))
    memory = DepthMemory(Shelf("cpu"), [copy])
    assert memory.where("tipsv2-b14-dpt") == "folder" and len(memory.choices()) == len(DPT)
    with pytest.raises(ModelError, match="not on offer"):
        memory.info("tipsv2-b14")


def test_examples_are_photographs_and_no_image_says_what_to_do(memory):
    assert {each.kind for each in depth.photographs()} == {"photographs"}
    field, image = depth.take_example(0)
    assert field == image and Path(image).is_file()
    with pytest.raises(ValueError, match="gone"):
        depth.take_example(99)
    assert "Start with an image" in draw(memory, None)[0]


# ---- what is handed out


def take(memory, image, span="auto"):
    return DepthOutputs(memory).take(image, "tiny-dpt", 84, span, 2, 8, "magma", 0.5, Visitor("a"))


@pytest.mark.parametrize("span", ["auto", "fixed"])
def test_the_code_and_the_command_make_the_files(memory, folder, picture, span, tmp_path, monkeypatch):
    taken = take(memory, picture, span)
    work = tmp_path / "work"
    work.mkdir()
    (work / "tiny-dpt").symlink_to(folder)
    shutil.copy(picture, work / "image.png")
    monkeypatch.chdir(work)
    exec(compile(take(memory, picture, span).python, "snippet", "exec"), {})
    for name in ("depth", "normals", "classes"):
        assert np.array_equal(np.asarray(Image.open(work / f"{name}.png")), taken.pictures[name])
    line = shlex.split(taken.command)
    assert line[:3] == ["python", "-m", "tipsv2"] and ("--near" in taken.command) == (span == "fixed")
    assert main(line[3:]) == 0
    with np.load(work / "depth.npz", allow_pickle=False) as stored:
        assert {name: stored[name].tolist() for name in stored} == {
            name: array.tolist() for name, array in taken.arrays.items()
        }


def test_files_of_the_row(memory, picture):
    assert DepthOutputs(memory).take(picture, None, 56, "auto", 0, 9, "magma", 0.5) is None
    taken, found = take(memory, picture), memory.heads().predict(picture, 84)
    with zipfile.ZipFile(export(taken, "png", "a")) as archive:
        assert len(archive.namelist()) == 4
    told = json.loads(export(taken, "json", "a").read_text())
    assert told["depth_m"]["nearest"] == pytest.approx(found.depth.min(), abs=1e-3)
    assert told["shares"] == pytest.approx(found.shares()) and told["patches"] == [6, 8]
    coco = json.loads(export(taken, "coco", "a").read_text())
    names = {each["id"]: each["name"] for each in coco["categories"]}
    areas = {names[each["category_id"]]: each["area"] for each in coco["annotations"]}
    assert areas == {name: round(share * 5400) for name, share in found.shares().items()}


def test_the_endpoints(memory, picture, hub):
    outputs = DepthOutputs(memory)
    told = outputs.load_heads("tiny-dpt", Visitor("a"))
    assert told["heads"] == ["depth", "normals", "segmentation"] and len(told["classes"]) == 150
    ask = dict(resolution=56, span="auto", near=0, far=10, colormap="viridis", opacity=0.6, request=Visitor("a"))
    path, numbers, pictures = outputs.depth(picture, "tiny-dpt", **ask)
    with np.load(path, allow_pickle=False) as stored:
        assert stored["depth"].shape == (60, 90) and stored["normals"].shape == (60, 90, 3)
    assert sum(numbers["shares"].values()) == pytest.approx(1) and len(pictures) == 4
    for image, heads, sentence in (
        (None, "tiny-dpt", "Give an image"),
        (picture, "nothing", "not on offer"),
        (picture, "tipsv2-b14-dpt", "call /load_heads"),
    ):
        with pytest.raises(gr.Error, match=sentence):
            outputs.depth(image, heads, **ask)
    with pytest.raises(gr.Error, match="colormap"):
        outputs.depth(picture, "tiny-dpt", **ask | dict(colormap="nope"))
    assert hub.asked == []


def test_an_image_goes_with_the_program_that_sent_it(memory, picture, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    path = tmp_path / "hash" / "image.png"
    path.parent.mkdir()
    shutil.copy(picture, path)
    ask = dict(resolution=56, span="auto", near=0, far=10, colormap="viridis", opacity=0.6, request=Visitor("a"))
    DepthOutputs(memory).depth(str(path), "tiny-dpt", **ask)
    belongings.clear("a")
    assert not path.exists()


# ---- in a browser


@pytest.fixture(scope="module")
def url(serving, folder):
    yield from serving(["depth"], folder)


def test_from_the_offer_to_classes_shown_alone(visit):
    from playwright.sync_api import expect

    page = visit()
    expect(page.locator(".tips-heads")).to_contain_text("They are on this machine")
    expect(page.locator(".tips-depth")).to_have_count(0)
    page.locator(".tips-heads .load").click()
    expect(page.locator(".tips-depth figure")).to_have_count(3)
    line, needle = page.locator(".told"), page.locator(".needle")
    stage = page.locator(".depth .stage")
    stage.hover(position={"x": 30, "y": 40})
    expect(line).to_contain_text(re.compile(r"^\d\.\d\d m · normal .+, .+, .+ · [a-z]"))
    expect(page.locator(".spot:visible")).to_have_count(3)
    expect(needle).to_be_visible()
    expect(page.locator(".ball i:visible")).to_have_count(1)
    stage.focus()
    page.keyboard.press("ArrowRight")
    before = line.text_content()
    page.keyboard.press("Shift+ArrowRight")
    expect(line).not_to_have_text(before)
    button = page.locator(".tips-depth .legend button").first
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    clear = page.evaluate(
        "() => { const c = document.querySelector('.tips-depth canvas'), d = c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data; let n = 0;"
        " for (let i = 3; i < d.length; i += 4) n += d[i] === 0; return 4 * n / d.length }"
    )
    share = float(button.locator("b").text_content().split("\u2009")[0]) / 100
    assert clear == pytest.approx(share, abs=0.01) and share > 0.02
    page.get_by_text("Fixed", exact=True).click()
    expect(page.locator(".scale li").last).to_have_text("10")
    page.get_by_label("Farthest, m").fill("0")
    page.get_by_label("Farthest, m").press("Enter")
    expect(page.locator(".toast-body")).to_contain_text("less than the farthest")
    expect(page.locator(".tips-depth figure")).to_have_count(3)


def test_on_a_phone_without_a_network(visit):
    from playwright.sync_api import expect

    page = visit(width=400)
    page.get_by_label("Heads", exact=True).click()
    page.get_by_role("option", name="L/14 · ").click()
    expect(page.locator(".tips-heads")).to_contain_text("1.6 GB")
    page.locator(".tips-load").click()
    expect(page.locator(".trouble")).to_contain_text("google/tipsv2-l14-dpt is not on this machine")
    expect(page.locator(".tips-heads code").first).to_have_text("hf download google/tipsv2-l14-dpt")
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    page.get_by_label("Heads", exact=True).click()
    page.get_by_role("option", name="tiny-dpt").click()
    expect(page.locator(".trouble")).to_have_count(0)
    page.locator(".tips-heads .load").click()
    expect(page.locator(".tips-depth figure")).to_have_count(3)
    expect(page.locator(".tips-export")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_a_client_of_the_api(url, picture):
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    client = Client(url, verbose=False)
    arrays, numbers, pictures = client.predict(image=handle_file(picture), heads="tiny-dpt", api_name="/depth")
    with np.load(arrays, allow_pickle=False) as stored:
        assert stored["labels"].shape == (60, 90) and len(stored["classes"]) == 150
    assert numbers["model"] == "tiny-dpt" and len(pictures) == 4 and numbers["patches"] == [4, 6]
    with pytest.raises(AppError, match="HF_HUB_OFFLINE"):
        client.predict(heads="tipsv2-b14-dpt", api_name="/load_heads")


def test_serving_the_tab_loads_nothing_heavy(folder):
    code = (
        "import json, sys; from demos.ui.page import build; from demos.launch import launch\n"
        f"page = build(['depth'], model={str(folder)!r}, device='cpu')\n"
        "launch(page, server_name='127.0.0.1', prevent_thread_lock=True, quiet=True); page.close(verbose=False)\n"
        "heavy = {'torch', 'transformers', 'matplotlib', 'umap', 'numba', 'skimage', 'sklearn', 'scipy'}\n"
        "print(json.dumps(sorted(heavy & set(sys.modules))))"
    )
    served = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert json.loads(served.stdout.splitlines()[-1]) == []
