"""The export row: what the files hold, that the shown code makes the same numbers, and the row in a browser.

python -m pytest tests/test_exports.py
"""

import ast
import html
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demos.backend.studio import Studio
from demos.compare import export as compare_export
from demos.compare.tab import Compares
from demos.export import files as export_files
from demos.export import snippets
from demos.export.files import Taken
from demos.inside import export as inside_export
from demos.inside.tab import InsideHandlers
from demos.ui import export_row, export_views
from tipsv2.analysis import projection
from tipsv2.analysis.rle import decode
from tipsv2.checkpoints.bundled import NANO
from tipsv2.checkpoints.catalogue import find

ROOT = Path(__file__).resolve().parent.parent
BLANK = np.zeros((4, 6, 3), np.uint8)
INSIDE = dict(view="pca", layer=0, model=NANO, features="final", resolution=112, red=1, green=3, blue=2)
INSIDE |= dict(foreground=False, k=3, words=["dog"], colors="pca", neighbors=5, gap="bridge")
COMPARE = dict(model_a=NANO, features_a="values", model_b=NANO, features_b="final", resolution=112)
COMPARE |= dict(queries=["a dog", 'it\'s "red"'], templates="tips9", mask=None, masked="", scale="z")


def taken(**changes):
    return Taken(**dict(name="heatmap", pictures={"dog": BLANK}, arrays={"maps": BLANK[..., 0]}, scores={}) | changes)


@pytest.fixture(scope="module")
def studio():
    return Studio(NANO, device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Holds image.png, 120 x 90 pixels, and a mask for it: where the shown code will run."""
    folder = tmp_path_factory.mktemp("code")
    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((120, 90)).save(folder / "image.png")
    return folder


# ---- files


@pytest.mark.parametrize(
    "model, image, name",
    [
        ("google/tipsv2-b14", "/tmp/gradio/0a/my cat.png", "tipsv2-b14_heatmap_my_cat"),
        ("../../etc/", "/tmp/..", "etc_heatmap"),
        ("C:\\runs\\a b", "x" * 200 + ".png", "a_b_heatmap_" + "x" * 48),
        ("", "собака.png", "heatmap_собака"),
        ("<b>", "a\x00b\n.png", "b_heatmap_a_b"),
    ],
)
def test_names_say_what_it_is_and_nothing_else(model, image, name):
    assert export_files.stem(taken(model=model, image=image)) == name


def test_one_picture_is_a_png_and_several_are_a_zip(tmp_path):
    path = export_files.write(taken(model="m"), "png", tmp_path)
    assert path.name == "m_heatmap.png" and Image.open(path).size == (6, 4)
    path = export_files.write(taken(pictures={"../a/b": BLANK, "a b": BLANK + 7, "🐶": BLANK}), "png", tmp_path)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["heatmap_01_a_b.png", "heatmap_02_a_b.png", "heatmap_03_picture.png"]
        with archive.open("heatmap_02_a_b.png") as file:
            np.testing.assert_array_equal(np.asarray(Image.open(file)), BLANK + 7)


def test_numbers_come_back(tmp_path):
    arrays = {"maps": np.random.default_rng(0).normal(size=(2, 3, 4)), "queries": np.array(["a dog", "été"])}
    found = np.load(export_files.write(taken(arrays=arrays), "npz", tmp_path), allow_pickle=False)
    assert set(found) == {"maps", "queries"}
    for name, values in arrays.items():
        np.testing.assert_array_equal(found[name], values)
    with pytest.raises(AssertionError):
        export_files.write(taken(arrays={"a": np.array([{}])}), "npz", tmp_path)
    scores = {"peak": np.float32(0.5), "none": float("nan"), "all": (np.arange(2), {3: np.inf}), "query": "été"}
    told = json.loads(export_files.write(taken(scores=scores), "json", tmp_path).read_text("utf-8"))
    assert told == {"peak": 0.5, "none": None, "all": [[0, 1], {"3": None}], "query": "été"}


def test_masks_are_a_coco_data_set(tmp_path):
    rng = np.random.default_rng(0)
    masks = {"dog": rng.random((9, 7)) < 0.3, "nothing": np.zeros((9, 7), bool), "<sky>": rng.random((9, 7)) < 0.6}
    path = export_files.write(taken(masks=masks, model="m", image="/x/cat.png"), "coco", tmp_path)
    assert path.name == "m_heatmap_cat_coco.json"
    told = json.loads(path.read_text("utf-8"))
    assert told["images"] == [{"id": 1, "file_name": "cat.png", "width": 7, "height": 9}]
    names = {each["id"]: each["name"] for each in told["categories"]}
    assert list(names.values()) == list(masks)
    assert [names[each["category_id"]] for each in told["annotations"]] == ["dog", "<sky>"]
    for each in told["annotations"]:
        mask = masks[names[each["category_id"]]]
        np.testing.assert_array_equal(decode(each["segmentation"]), mask)
        ys, xs = np.nonzero(mask)
        assert each["area"] == len(ys) and each["image_id"] == 1
        assert each["bbox"] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]


@pytest.mark.parametrize("kind", ["coco", "png", "npz", "image", "exe"])
def test_what_is_not_there_is_a_sentence(kind, tmp_path):
    with pytest.raises(ValueError, match=r"^[A-Z].*\.$"):
        export_files.write(taken(pictures={}, arrays={}), kind, tmp_path)
    assert not list(tmp_path.iterdir())


def test_every_file_has_a_folder_nobody_can_guess():
    first, second = (export_row.export(taken(), "json", "a") for _ in range(2))
    assert first.parent != second.parent and all(len(path.parent.name) == 32 for path in (first, second))


# ---- code


def test_code_is_escaped_and_reads_as_it_was():
    python = 'from a import b  # <i>\nx = "<script>" if 1.5e-3 else None'
    page = export_views.code(python, "python -m tipsv2 heatmap image.png '<b>' --mode cosine")
    shown = [re.sub("<.*?>", "", each) for each in re.findall("<code>(.*?)</code>", page, re.DOTALL)]
    assert html.unescape(shown[0]) == python and html.unescape(shown[1]).endswith("'<b>' --mode cosine")
    assert "<script>" not in page and "<i>" not in page
    for part in ('"keyword">from<', '"note"># &lt;i&gt;<', '"number">1.5e-3<', '"option">--mode<'):
        assert f"<span class={part}" in page
    assert "command" not in export_views.code(python, "")


@pytest.mark.parametrize(
    "value", ['a "dog"', "it's", "\\n\n\t", "été 🐶", ["a", 1, 0.25, None, True], (1,), (1, 2), {}]
)
def test_literals_are_the_values(value):
    assert ast.literal_eval(snippets.literal(value)) == value


def test_long_calls_break_and_commands_survive_a_shell():
    queries = ["a dog", 'it\'s "red"', "$HOME; rm", "été"]
    source = snippets.call("dict", queries=queries, mode="cosine", templates="none", resolution=448.0, threshold=0.05)
    assert source.count("\n") == 6
    assert eval(source)["queries"] == queries and eval(source)["resolution"] == 448
    words = shlex.split(snippets.command("heatmap", "image.png", *queries, out="o", layer=None, threshold=-0.1))
    assert words[4:9] == ["image.png", *queries] and words[9:] == ["--out", "o", "--threshold=-0.1"]
    assert shlex.split(snippets.command("heatmap", "-x.png", "a", out="o"))[-3:] == ["--", "-x.png", "a"]


def test_a_folder_outside_is_named_without_its_path(tiny_folder, monkeypatch):
    info = find(str(tiny_folder))
    assert snippets.model_name(info) == "tiny"
    assert snippets.load(info).startswith('# "tiny" stands for the folder of this encoder')
    monkeypatch.chdir(tiny_folder.parent)
    for found in (info, find("tiny")):
        assert snippets.model_name(found) == "tiny" and snippets.load(found) == 'encoder = load("tiny")'
    assert snippets.model_name(find("tipsv2-b14")) == "google/tipsv2-b14"
    assert snippets.load(find(NANO), "a") == f'a = load("{NANO}")'


def test_a_run_outside_is_called_after_itself(tiny_folder, tmp_path, monkeypatch):
    place = shutil.copytree(tiny_folder, tmp_path / "runs" / 'a"\nb' / "model")
    (place.parent / "recipe.json").write_text("{}")
    source = snippets.load(find(place.parent), "dpt", "load_dpt")
    (line,) = ast.parse(source).body
    assert ast.unparse(line) == "dpt = load_dpt('a\"\\nb')" and str(tmp_path) not in source
    assert source.startswith("# ") and "stands for the folder" in source
    monkeypatch.chdir(tmp_path)
    assert snippets.model_name(find(place.parent)) == str(place.relative_to(tmp_path))


# ---- the tabs: what is taken along, and that its code makes it again


def inside(studio, folder, **changes):
    return inside_export.take(InsideHandlers(studio), str(folder / "image.png"), *(INSIDE | changes).values())


def compared(studio, folder, **changes):
    return compare_export.take(Compares(studio), str(folder / "image.png"), *(COMPARE | changes).values())


@pytest.mark.slow
def test_the_shown_code_makes_the_numbers_of_the_file(studio, folder):
    mask = np.asarray(Image.open(folder / "image.png").convert("L")) > 127
    Image.fromarray(mask).save(folder / "mask.png")
    made = {
        "pca": inside(studio, folder),
        "foreground": inside(studio, folder, foreground=True),
        "clusters": inside(studio, folder, view="clusters", layer=2, features="values"),
        "norms": inside(studio, folder, view="norms"),
        "compare": compared(studio, folder, mask=mask, masked="a dog", resolution=0),
    }
    assert all(each.model and each.image and each.python and each.command for each in made.values())
    shown = {name: {"python": each.python} for name, each in made.items()}
    for name in ("clusters", "compare"):  # one of either kind: the command makes all of a layer's views at once
        shown[name]["command"] = made[name].command
    run = (
        "import json, os, shlex, shutil, sys\n"
        "from tipsv2.__main__ import main\n"
        "for name, ways in json.load(sys.stdin).items():\n"
        "    for way, text in ways.items():\n"
        "        os.makedirs(f'{name}/{way}'); os.chdir(f'{name}/{way}')\n"
        "        shutil.copy('../../image.png', '.'); shutil.copy('../../mask.png', '.')\n"
        "        exec(text, {}) if way == 'python' else main(shlex.split(text)[3:])\n"
        "        os.chdir('../..')\n"
    )
    place = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", run],
        cwd=folder,
        env=place,
        input=json.dumps(shown),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(made["compare"].scores["sentence"]) == 2
    for name, each in made.items():
        file = {"foreground": "pca"}.get(name, name)
        same(np.load(folder / name / "python" / f"{file}.npz"), each.arrays)
        first = next(iter(each.pictures.values()))
        np.testing.assert_allclose(np.asarray(Image.open(folder / name / "python" / f"{file}.png")), first, atol=1)
    for name, file in (("clusters", "features.npz"), ("compare", "compare.npz")):
        same(np.load(folder / name / "command" / file), made[name].arrays)
    scores = np.load(folder / "clusters" / "command" / "features.npz")["scores"]
    other = inside(studio, folder, layer=2, features="values").arrays["scores"]
    np.testing.assert_allclose(scores, other[..., :3], atol=2e-3)


def same(found, arrays):
    shared = set(arrays) & set(found)
    assert shared
    for name in shared:
        if arrays[name].dtype.kind == "f":
            np.testing.assert_allclose(found[name], arrays[name], rtol=2e-3, atol=2e-3, err_msg=name)
        else:
            np.testing.assert_array_equal(found[name], arrays[name], err_msg=name)


def test_inside_gives_pictures_and_masks_as_large_as_the_image(studio, folder):
    each = inside(studio, folder, view="clusters")
    labels = each.arrays["labels"]
    assert each.pictures["clusters"].shape == (90, 120, 3) and labels.shape == (8, 11)
    assert [mask.shape for mask in each.masks.values()] == [(90, 120)] * 3
    assert sum(mask.astype(int) for mask in each.masks.values()).min() == 1  # every pixel in one of them
    assert each.masks["cluster 1"].mean() == pytest.approx(each.scores["shares"][0], abs=0.05)
    assert set(inside(studio, folder, view="norms").masks) == {"outlier"}
    assert not inside(studio, folder).masks
    assert inside_export.take(InsideHandlers(studio), None, *INSIDE.values()) is None


def test_a_map_is_taken_once_it_is_drawn(studio, folder, monkeypatch):
    tab = InsideHandlers(studio)
    given = INSIDE | dict(view="map", words=["a dog", "$x$"])
    with pytest.raises(ValueError, match="Draw the map"):
        inside_export.take(tab, str(folder / "image.png"), *given.values())
    seen, grid, layer = tab.patches(str(folder / "image.png"), 0, NANO, "final", 112, "local")
    places = np.random.default_rng(0).normal(size=(*grid.shape[:2], 2)), np.ones((2, 2))
    studio.remember(seen, ("map", layer, "final", ("a dog", "$x$"), 5, "bridge"), places)
    for colors in ("pca", "pixels"):
        given["colors"] = colors
        each = inside_export.take(tab, str(folder / "image.png"), *given.values())
        assert min(each.pictures["map"].shape[:2]) >= 1000 and not each.command
        np.testing.assert_array_equal(each.arrays["places"], places[0])
    asked = []
    monkeypatch.setattr(projection, "joint_map", lambda *given, **more: asked.append((given, more)) or places)
    monkeypatch.chdir(folder)
    exec(each.python, {})  # UMAP itself takes seconds to compile; all else is as somebody would run it
    ((patches, words), more), *_ = asked
    np.testing.assert_array_equal(patches, grid)
    np.testing.assert_allclose(words, studio.encoder().encode_text(["a dog", "$x$"]), atol=1e-6)
    assert more == {"neighbors": 5, "gap": "bridge"} and Image.open("map.png").size[0] > 300
    np.testing.assert_array_equal(np.load("map.npz")["places"], places[0])


def test_compare_gives_both_sides(studio, folder):
    each = compared(studio, folder)
    assert list(each.pictures)[:4] == ["overview", "a dog A", "a dog B", "a dog B-A"] and len(each.pictures) == 9
    assert all(picture.shape == (90, 120, 3) for picture in list(each.pictures.values())[1:])
    assert each.arrays["maps"].shape == (2, 2, 90, 120) and not each.masks
    np.testing.assert_allclose(each.arrays["patches_b"], studio.encoder().encode_image(each.image, 112).patches)
    np.testing.assert_allclose(each.arrays["difference"].mean(axis=(1, 2)), 0, atol=1e-4)
    assert export_files.stem(each) == "opentips-nano_compare_image"
    mask = np.zeros((45, 60), bool)
    mask[:20] = True
    judged = compared(studio, folder, mask=mask, masked="a dog")
    assert judged.masks["a dog"].shape == (90, 120) and judged.masks["a dog"].mean() == pytest.approx(mask.mean())
    assert judged.scores["scores"][0]["a"]["auroc"] and judged.scores["scores"][1]["a"]["auroc"] is None
    assert compared(studio, folder, queries=["a, b"]).command == "" and compared(studio, folder, queries=[]) is None


# ---- in a browser


@pytest.fixture(scope="module")
def served(tiny_folder):
    from demos.launch import launch
    from demos.ui.page import build

    page = build(["inside"], model=str(tiny_folder), device="cpu")
    _, address, _ = launch(page, server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    yield page, address
    page.close(verbose=False)


@pytest.fixture(scope="module")
def url(served):
    return served[1]


def press(page, kind):
    with page.expect_download() as waited:
        page.locator(f".tips-export [data-kind={kind}]").click()
    return waited.value


def test_a_press_downloads_a_file_that_the_sweep_deletes(visit, served):
    from gradio.route_utils import delete_files_created_by_app
    from playwright.sync_api import expect

    page = visit()
    expect(page.locator(".tips-inside.pca")).to_be_visible()
    file = press(page, "png")
    assert re.fullmatch(r"tiny_pca_\w+\.png", file.suggested_filename)
    shown = page.locator(".tips-image img").first
    size = shown.evaluate("e => [e.naturalWidth, e.naturalHeight]")
    assert list(Image.open(file.path()).size) == size
    npz = press(page, "npz")
    assert np.load(npz.path())["scores"].shape[-1] == 9 and npz.url != file.url
    assert page.request.get(file.url).ok
    delete_files_created_by_app(served[0], None)
    assert not page.request.get(file.url).ok


def test_nothing_to_take_is_a_sentence_and_no_file(visit):
    from playwright.sync_api import expect

    page = visit()
    expect(page.locator(".tips-inside.pca")).to_be_visible()
    press(page, "json")
    files = []
    page.on("download", lambda file: files.append(file))
    page.locator("[data-kind=coco]").click()  # components are no masks
    expect(page.locator(".toast-body")).to_contain_text("no mask here")
    page.get_by_label("Remove Image").click()
    expect(page.get_by_text("Start with an image")).to_be_visible()
    page.locator("[data-kind=png]").click()
    expect(page.get_by_text("nothing to save yet")).to_be_visible()
    assert not files


def test_code_opens_by_keyboard_and_closes_when_it_is_no_longer_true(visit):
    from playwright.sync_api import expect

    page = visit(width=400)
    expect(page.locator(".tips-inside.pca")).to_be_visible()
    page.locator(".tips-export [data-kind=json]").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    panel = page.locator(".tips-code")
    expect(panel).to_be_visible()
    expect(panel.locator(".python code")).to_contain_text('encoder.encode_image("image.png", resolution=56)')
    expect(panel.locator(".command code")).to_contain_text("python -m tipsv2 features image.png")
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    panel.locator(".copy").first.click()
    expect(panel.locator(".copy").first).not_to_have_text("Copy")
    with page.expect_download() as waited:
        panel.locator("[data-kind=image]").click()
    assert waited.value.suggested_filename == "image.png"
    page.locator(".tips-view").get_by_text("Norms", exact=True).click()
    expect(panel).to_have_count(0)
    page.locator(".tips-export [data-kind=code]").click()
    expect(panel).to_contain_text("patch_norms")
    panel.locator(".close").click()
    expect(panel).to_have_count(0)
