"""The tab Segment: its numbers are the library's, true masks come from files, brushes and scenes.

python -m pytest tests/test_segmentation_tab.py
"""

import base64
import html
import io
import json
import re
import shlex
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import torch
from caller import Visitor
from pictures import noise
from PIL import Image

from demos.backend import belongings
from demos.backend.studio import Studio
from demos.segment import controls, views
from demos.segment import truth as segmentation_truth
from demos.segment.api import Endpoints
from demos.segment.controls import OWN_NAMES, presets
from demos.segment.export import take
from demos.segment.tab import Segmentations
from demos.segment.truth import Truth, placed
from demos.segment.work import MAX_CLASSES, ask, legend, rows, split
from demos.ui.examples import Example, examples
from tipsv2.__main__ import main
from tipsv2.analysis import segmentation as segmentation_module
from tipsv2.analysis import verdict
from tipsv2.analysis.familiar import Familiar
from tipsv2.analysis.heatmap import similarity
from tipsv2.analysis.label_maps import BACKGROUND, IGNORED, agreement, resize_labels
from tipsv2.analysis.segmentation import class_verdicts, label_map, segment
from tipsv2.analysis.verdict import NOT_HERE, Calibration
from tipsv2.checkpoints.bundled import DRAWINGS

NAMES = "image model truth classes templates features layer windows background threshold words resolution sharp".split()
USUAL = dict(model=None, truth=None, templates="none", features="values", layer=0, windows=False, background="none")
USUAL |= dict(threshold=-0.05, words="wall", resolution=56, sharp=False)
FIVE = ["dog", "cat", "grass", "sky", "snow"]


@pytest.fixture
def tab(tiny_folder):
    return Segmentations(Studio(str(tiny_folder), device="cpu"))


@pytest.fixture
def picture(tmp_path):
    """A noisy picture of 90 x 60 pixels: no two patches alike."""
    return noise(tmp_path / "noise.png")


@pytest.fixture
def truth():
    """A label map over FIVE in the picture's size, some of it background, some unknown."""
    labels = np.random.default_rng(1).integers(-2, 5, (6, 9)).repeat(10, axis=0).repeat(10, axis=1)
    return Truth(labels, tuple(FIVE), True, "Test")


def draw(tab, image, classes=FIVE, who="a", **changes):
    given = USUAL | dict(image=image, classes=", ".join(classes)) | changes
    return tab.draw(*(given[name] for name in NAMES), request=Visitor(who))


def unpack(runs, shape):
    values, counts = np.array(runs).reshape(-1, 2).T
    return values.repeat(counts).reshape(shape)


def content(page):
    """What the page tells the script: (label map, everything else)."""
    rows_, columns = map(int, re.search(r'data-grid="(\d+)x(\d+)"', page).groups())
    told = json.loads(html.unescape(re.search(r'data-content="(.*?)"', page).group(1)))
    return unpack(told["found"], (rows_, columns)), told


def table(page):
    """The tables as the reader sees them: class -> its numbers, found and not found."""
    cells = {}
    page = re.sub(r'<span class="tips-verdict".*?</span>', "", page)
    for row in re.findall(r"<tr>(?!<th scope=\"col\").*?</tr>", page):
        name = html.unescape(re.sub(r"<[^>]+>", "", re.search(r"<th scope=\"row\".*?</th>", row).group(0)))
        cells[name] = [re.sub(r"<[^>]+>", "", cell).replace("&thinsp;", "") for cell in re.findall(r"<td.*?</td>", row)]
    return cells


@pytest.mark.parametrize(
    "changes, options",
    [
        (dict(templates="tips9"), dict(templates="tips9")),
        (dict(background="threshold", threshold=-0.04), dict(background=-0.04)),
        (dict(background="verdict"), dict(background="verdict")),
        (dict(background="verdict", layer=2), dict(background="verdict", layer=2)),
        (dict(background="words", words="snow, dog, tree"), dict(background=["snow", "tree"])),
        (dict(layer=2, features="final"), dict(layer=2, features="final")),
        (dict(layer=99), {}),
        (dict(windows=True, resolution=112), dict(windows=True, resolution=112)),
        (dict(sharp=True), dict(sharp=True)),
        (dict(sharp=True, background="threshold", threshold=-0.04), dict(sharp=True, background=-0.04)),
    ],
)
def test_the_page_shows_what_the_library_finds(tab, picture, changes, options):
    names = FIVE[:4]
    usual = dict(templates="none", resolution=56, resample="bilinear")
    expected = segment(tab.studio.encoder(), picture, names, **usual | options)
    page, note, _ = draw(tab, picture, names, **changes)
    labels, told = content(page)
    np.testing.assert_array_equal(labels, expected.labels)
    assert told["names"] == names and told["colors"] == ["#{:02x}{:02x}{:02x}".format(*rgb) for rgb in legend(4)]
    cells = table(page)
    for name in names:
        share, mean, peak = expected.shares[name], expected.means[name], expected.peaks[name]
        if share > 0:
            assert cells[name][1:] == [f"{mean:.3f}", f"{peak:.3f}"]
            assert cells[name][0] == ("&lt;0.1%" if share < 0.001 else f"{100 * share:.1f}%")
        else:
            assert cells[name] == [f"{peak:.3f}"]
    if "background" in options:
        left_out = expected.shares["background"]
        assert 0 <= left_out < 1 and cells.get("background", ["0.0%"])[0] == f"{100 * left_out:.1f}%"
        assert left_out or options["background"] == "verdict"
    verdicts = class_verdicts(tab.studio.encoder(), tab.studio.encoder().encode_image(picture, 56).values, names)
    if "windows" not in options:
        seen = [each.answer != NOT_HERE and expected.shares[each.query] > 0 for each in verdicts]
        assert f"{sum(seen)} of 4 classes found" in page
    assert "patches" in note


def test_found_classes_come_by_share_and_the_others_by_their_best(tab, picture):
    names = [f"thing {number}" for number in range(40)]
    page, _, _ = draw(tab, picture, names)
    found, *absent = page.split("<details")
    shares = [float(share) for share in re.findall(r"</em>([\d.]+)&thinsp;%", found)]
    assert shares == sorted(shares, reverse=True)
    for part in absent:  # those that are not here, and those that are but won nothing
        best = [float(numbers[-1]) for numbers in table(part).values()]
        assert best == sorted(best, reverse=True) and f": {len(best)}</summary>" in part
    assert "Not here: " in absent[0] and sum(len(table(part)) for part in absent) > 5


def test_two_hundred_classes_have_two_hundred_colours(tab, picture):
    names = [f"thing {number}" for number in range(MAX_CLASSES)]
    page, _, _ = draw(tab, picture, names)
    assert len(set(content(page)[1]["colors"])) == MAX_CLASSES and set(table(page)) == set(names)
    assert len(page) < 150_000


def test_run_lengths_are_the_map_again():
    labels = np.random.default_rng(0).integers(-1, 3, (7, 11))
    runs = views.run_lengths(labels)
    np.testing.assert_array_equal(unpack(runs, (7, 11)), labels)
    assert views.run_lengths(np.zeros((5, 6), int)) == [0, 30]


def test_the_same_question_is_answered_from_memory(tab, picture, truth, monkeypatch):
    encoder, calls = tab.studio.encoder(), []
    for name in ("look", "encode_layers", "encode_text"):
        real = getattr(encoder, name)

        def counted(*given, real=real, name=name, **more):
            calls.append(name)
            return real(*given, **more)

        monkeypatch.setattr(encoder, name, counted)
    draw(tab, picture)
    draw(tab, picture, truth=truth)
    first = len(calls)  # the classes with templates, the vocabulary of the verdicts, the classes alone
    assert calls == ["look", *["encode_text"] * (first - 1)] and first <= 4
    draw(tab, picture, layer=2)
    draw(tab, picture, layer=1)
    assert calls.count("encode_layers") == 1 and calls.count("look") == 1
    draw(tab, picture, who="b")
    assert calls.count("encode_layers") == 1 and calls.count("look") == 2


def test_windows_say_where_they_make_no_difference(tab, picture):
    assert "One window of 56 px holds the whole image" in draw(tab, picture, windows=True, resolution=28)[1]
    assert "4 × 6 patches, in 2 windows of 56 px" in draw(tab, picture, windows=True)[1]  # its long side has 84 px
    assert "last layer only" in draw(tab, picture, windows=True, layer=1, resolution=112)[1]
    note = draw(tab, picture, windows=True, resolution=112)[1]
    assert "8 × 12 patches, in 12 windows of 56 px" in note and "Beyond" not in note


@pytest.mark.parametrize("background", ["none", "threshold"])
def test_iou_is_that_of_the_library(tab, picture, truth, background):
    page, _, told = draw(tab, picture, truth=truth, background=background)
    labels, sent = content(page)
    expected = agreement(labels, truth.labels, 5)
    assert (labels < 0).any() == (background == "threshold")
    cells = table(page)
    for name, iou in zip(FIVE, expected.iou, strict=True):
        assert cells[name][-1] == ("–" if np.isnan(iou) else f"{iou:.2f}")
    assert f"mIoU {expected.mean:.3f}" in page and f"{100 * expected.accuracy:.1f}&thinsp;% of the pixels" in page
    np.testing.assert_array_equal(unpack(sent["truth"], labels.shape), truth.labels)
    np.testing.assert_array_equal(unpack(sent["wrong"], labels.shape), expected.wrong)
    assert "Test." in told


def test_a_truth_follows_its_names_into_another_list(truth):
    moved = placed(truth, ["sky", "tree", "dog"], (60, 90))
    for name, place in (("sky", 0), ("dog", 2)):
        np.testing.assert_array_equal(moved == place, truth.labels == FIVE.index(name))
    np.testing.assert_array_equal(moved == IGNORED, truth.labels == IGNORED)
    assert set(np.unique(moved)) == {IGNORED, BACKGROUND, 0, 2}
    assert "2 of its 5 classes are in the list" in segmentation_truth.describe(truth, ["sky", "tree", "dog"])


def test_examples_bring_their_true_masks(tab):
    from tipsv2 import scenes

    shown = examples((DRAWINGS,))
    assert len(shown) == 6
    for example in shown[3:5]:  # the two that are drawn fastest
        scene = scenes.draw(example.seed, 448, example.styles)
        np.testing.assert_array_equal(np.asarray(Image.open(example.path).convert("RGB")), scene.image)
        truth = segmentation_truth.of_example(example)
        assert set(truth.names) == set(example.classes)
        np.testing.assert_array_equal(np.array(truth.names)[truth.labels], np.array(scenes.names())[scene.labels])
    assert segmentation_truth.of_example(Example(Path("photo.png"))) is None
    field, image, classes, own, truth = tab.take_example(None, 0)
    assert field == image and classes == own and truth is not None


def save(tmp_path, content, name="mask.png"):
    Image.fromarray(content).save(tmp_path / name)
    return str(tmp_path / name)


def upload(tmp_path, content, image, first="1", marked="", names=FIVE):
    return segmentation_truth.uploaded(save(tmp_path, content), int(first), marked, names, legend(len(names)), image)


def test_masks_are_uploaded_as_numbers_or_colours(picture, truth, tmp_path):
    numbers = np.where(truth.labels == IGNORED, 255, truth.labels + 1).astype(np.uint8)
    np.testing.assert_array_equal(upload(tmp_path, numbers, picture).labels, truth.labels)
    from_zero = np.where(truth.labels < 0, 255, truth.labels).astype(np.uint8)
    found = upload(tmp_path, from_zero, picture, first="0")
    np.testing.assert_array_equal(found.labels, np.where(truth.labels < 0, IGNORED, truth.labels))
    painted = np.where((truth.labels >= 0)[..., None], legend(5)[truth.labels], 255).astype(np.uint8)
    found = upload(tmp_path, painted, picture)
    np.testing.assert_array_equal(found.labels, np.maximum(truth.labels, BACKGROUND))
    assert found.whole and found.note == ""


def test_a_palettes_black_is_not_taken_for_the_legends(picture, truth, tmp_path):
    names, numbers = [*FIVE, "tree", "car", "photo"], np.zeros((60, 90), np.uint8)
    numbers[20:25, 30:40] = 3  # under two parts in a hundred
    file = Image.fromarray(numbers)
    file.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])  # PASCAL VOC's
    file.save(tmp_path / "voc.png")
    given = (1, "", names, legend(8), picture)
    np.testing.assert_array_equal(
        segmentation_truth.uploaded(str(tmp_path / "voc.png"), *given).labels, numbers.astype(int) - 1
    )
    labels = np.where(truth.labels < 0, 7, truth.labels)
    painted = Image.fromarray(legend(8)[labels]).quantize(16, dither=Image.Dither.NONE)
    painted.save(tmp_path / "painted.png")
    found = segmentation_truth.uploaded(str(tmp_path / "painted.png"), *given)
    assert painted.mode == "P" and "legend's colours" in found.origin
    np.testing.assert_array_equal(found.labels, labels)


def test_a_black_and_white_mask_is_of_one_class(tab, picture, truth, tmp_path):
    cat = truth.labels == 1
    found = upload(tmp_path, np.where(cat, 255, 0).astype(np.uint8), picture, marked="cat")
    np.testing.assert_array_equal(found.labels, np.where(cat, 1, BACKGROUND))
    page, _, _ = draw(tab, picture, truth=found)
    labels, _ = content(page)
    iou = (cat & (labels == 1)).sum() / (cat | (labels == 1)).sum()
    assert f"<b>IoU {iou:.3f}" in page and "of one class" in page and table(page)["dog"][-1] == "–"
    with pytest.raises(ValueError, match="choose under “Draw”"):
        upload(tmp_path, np.where(cat, 255, 0).astype(np.uint8), picture)


def test_a_mask_of_another_size_is_resized_and_says_so(tab, picture, truth, tmp_path):
    small = (truth.labels[::10, ::10] + 2).astype(np.uint8)  # none is -2 here
    small = np.where(small == 0, 255, small - 1).astype(np.uint8)
    found = upload(tmp_path, small, picture)
    assert "9 × 6 pixels, the image 90 × 60: resized" in found.note and "stretched" not in found.note
    np.testing.assert_array_equal(resize_labels(found.labels, (60, 90)), truth.labels)
    assert found.note in html.unescape(draw(tab, picture, truth=found)[2])
    assert "stretched" in upload(tmp_path, small[:3], picture).note


@pytest.mark.parametrize(
    "broken, told",
    [
        ("text", "not a picture"),
        ("photo", "other colours than the legend"),
        ("numbers", "holds the number 7, but the list has 5 classes"),
        ("jpeg", "save the mask as PNG"),
    ],
)
def test_a_mask_that_is_none_becomes_one_sentence(tab, picture, tmp_path, broken, told):
    path = tmp_path / "mask"
    if broken == "text":
        path.write_text("no mask")
    elif broken == "photo":
        path = picture
    elif broken == "numbers":
        path = save(tmp_path, np.full((60, 90), 7, np.uint8))
    else:
        Image.new("L", (90, 60)).save(path, "JPEG")
    with pytest.warns(UserWarning, match=told) as caught:
        assert tab.upload_truth(str(path), "1", "", ", ".join(FIVE), picture) == gr.skip()
    assert len(caught) == 1
    with pytest.warns(UserWarning, match="Give an image first"):
        tab.upload_truth(str(path), "1", "", "dog", None)


def stroke(mask):
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def test_classes_are_drawn_one_after_the_other(tab, picture):
    dog, sky = np.zeros((2, 60, 90), bool)
    dog[:30], sky[20:50] = True, True
    one = segmentation_truth.drawn(stroke(dog), "dog", FIVE, None, picture)
    both = segmentation_truth.drawn(stroke(sky), "sky", FIVE, one, picture)
    assert not both.whole and (both.labels[:20] == 0).all() and (both.labels[20:50] == 3).all()
    assert (both.labels[50:] == BACKGROUND).all()
    page, _, _ = draw(tab, picture, truth=both)
    labels, _ = content(page)
    for name, mask in (("dog", both.labels == 0), ("sky", both.labels == 3)):
        iou = (mask & (labels == FIVE.index(name))).sum() / (mask | (labels == FIVE.index(name))).sum()
        assert table(page)[name][-1] == f"{iou:.2f}"
    again = segmentation_truth.drawn(stroke(np.zeros_like(sky)), "sky", FIVE, both, picture)
    assert set(np.unique(again.labels)) == {BACKGROUND, 0}
    assert segmentation_truth.drawn(stroke(np.zeros_like(sky)), "dog", FIVE, again, picture) is None
    canvas = segmentation_truth.canvas(picture, both, "sky", FIVE)
    code = re.search(r'data-mask="data:image/png;base64,(.*?)"', canvas).group(1)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(code)))) > 127, both.labels == 3)


def test_a_whole_truth_can_be_mended_by_hand(picture, truth):
    dog = np.zeros((60, 90), bool)
    dog[:10] = True
    mended = segmentation_truth.drawn(stroke(dog), "dog", FIVE, truth, picture)
    assert mended.whole and "changed by hand" in mended.origin and (mended.labels[:10] == 0).all()
    np.testing.assert_array_equal(mended.labels[10:], np.where(truth.labels == 0, BACKGROUND, truth.labels)[10:])


def test_what_can_be_drawn_follows_the_list(picture):
    offered = controls.choices("dog, cat", "dog")
    assert [value for _, value in offered["choices"]] == ["", "dog", "cat"] and offered["value"] == "dog"
    assert controls.choices("cat", "dog")["value"] == ""
    assert controls.begin(picture, None, "dog", "dog, cat")["visible"]
    for image, marked in ((None, "dog"), (picture, ""), (picture, "sky")):
        assert not controls.begin(image, None, marked, "dog, cat")["visible"]


def test_empty_pages_say_what_to_do(tab, picture):
    assert "Start with an image" in draw(tab, None)[0]
    assert "Which classes?" in draw(tab, picture, [" ", ";", "\n"])[0]


@pytest.mark.parametrize(
    "classes, changes, told",
    [
        (["dog", "background"], dict(background="threshold"), "A class cannot be called"),
        (["dog"], dict(background="words", words="dog"), "background word"),
        (["dog"], dict(background="maybe"), "none, threshold or words"),
    ],
)
def test_questions_that_cannot_be_asked_become_one_sentence(tab, picture, classes, changes, told):
    with pytest.warns(UserWarning, match=told) as caught:
        assert draw(tab, picture, classes, **changes) == gr.skip()
    assert len(caught) == 1


@pytest.mark.parametrize(
    "names, told",
    [
        ([f"thing {i}" for i in range(500)], f"keep to {MAX_CLASSES}"),
        (["🐶", "dog", "sky"], "has no letters"),
        (["dog", "x" * 300], "300 characters"),
    ],
)
def test_a_name_that_cannot_be_asked_spoils_no_other(tab, picture, names, told):
    kept = [name for name in names if name != "🐶" and len(name) < 200][:MAX_CLASSES]
    page, *_ = draw(tab, picture, names)
    assert told in page[: page.index("</p>")]
    assert page[page.index("</p>") + 4 :] == draw(tab, picture, kept)[0]


def test_one_class_doubles_and_blanks(tab, picture):
    page, _, _ = draw(tab, picture, ["dog", "", "dog ", " dog"])
    assert "1 of 1 class found" in page and table(page)["dog"][0] == "100.0%"
    assert split(" dog, ,dog;cat\n\n sky,") == ["dog", "cat", "sky"]


def test_what_was_typed_is_escaped(tab, picture, truth):
    names = ["<i>snow</i>", '"dog"', "&cat"]
    page, _, told = draw(tab, picture, names, truth=Truth(truth.labels.clip(-1, 1), tuple(names), True, "<b>"))
    assert "<i>snow" not in page and "<b>" not in told and set(table(page)) == set(names)
    assert content(page)[1]["names"] == names


def test_presets_are_whole_and_counted():
    lists = presets()
    assert {title: len(split(names)) for title, names in lists.items()} | {"ADE20K": 150, "PASCAL Context": 59} == {
        title: len(split(names)) for title, names in lists.items()
    }
    assert {"PASCAL VOC", "COCO-Stuff", "Cityscapes", "Scenes: animals"} <= set(lists)
    assert all(1 < len(split(names)) <= MAX_CLASSES for names in lists.values()) and OWN_NAMES not in lists


def test_taken_along_at_full_size(tab, tmp_path):
    image = tmp_path / "wide.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 900, 3), dtype=np.uint8)).save(image)
    truth = Truth(np.zeros((2, 9), int), tuple(FIVE), True, "Test")
    given = USUAL | dict(image=str(image), classes=", ".join(FIVE), truth=truth, background="threshold")
    taken = take(tab.service, *(given[name] for name in NAMES), request=Visitor())
    usual = dict(templates="none", resolution=56, resample="bilinear")
    expected = segment(tab.studio.encoder(), str(image), FIVE, background=-0.05, **usual)
    np.testing.assert_array_equal(taken.arrays["labels"], expected.labels)
    np.testing.assert_allclose(taken.arrays["scores"], expected.scores, atol=1e-6)
    assert all(picture.dtype == np.uint8 for picture in taken.pictures.values())
    assert taken.pictures["overlay"].shape == taken.pictures["labels"].shape == (200, 900, 3)
    assert {name: mask.mean() for name, mask in taken.masks.items()} == pytest.approx(
        {name: share for name, share in expected.shares.items() if share and name != "background"}
    )
    assert taken.scores["miou"] == pytest.approx(agreement(expected.labels, np.zeros((200, 900)), 5).mean, abs=1e-6)
    back = segmentation_truth.from_colors(taken.pictures["labels"], legend(5))
    np.testing.assert_array_equal(back, expected.labels)  # a picture taken along can be given back as a mask
    assert take(tab.service, *(given[name] if name != "image" else None for name in NAMES)) is None


def test_the_code_and_the_command_make_the_picture(tab, picture, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, changes in enumerate(
        (dict(background="verdict", sharp=True), dict(layer=2), dict(windows=True, resolution=84))
    ):
        given = USUAL | dict(image=picture, classes="dog, cat, sky") | changes
        taken = take(tab.service, *(given[name] for name in NAMES), request=Visitor())
        code = taken.python.replace('"image.png"', repr(picture))
        code = re.sub(r"encoder = load\(.*\)", "encoder = ENCODER", code)
        scope = {"ENCODER": tab.studio.encoder()}
        exec(code, scope)  # what a visitor would run
        for name, values in np.load("segmentation.npz").items():
            # layers below the last are kept in float16 (demos/backend/studio.py)
            np.testing.assert_allclose(values, taken.arrays[name], atol=1e-4 if "layer" in changes else 1e-5)
        np.testing.assert_array_equal(np.asarray(Image.open("segmentation.png")), taken.pictures["overlay"])
        assert bool(taken.command) == (number != 1)
        if taken.command:
            words = [{"image.png": picture, "tiny": str(tiny_folder)}.get(w, w) for w in shlex.split(taken.command)]
            assert main([*words[3:], "--device", "cpu"]) == 0
            labels = np.asarray(Image.open("out/labels.png")).astype(int)
            np.testing.assert_array_equal(np.where(labels == 255, -1, labels), taken.arrays["labels"])


def test_the_api_answers_and_refuses_in_sentences(tab, picture, truth, tmp_path):
    numbers = np.where(truth.labels == IGNORED, 255, truth.labels + 1).astype(np.uint8)
    given = {name: value for name, value in USUAL.items() if name != "truth"} | dict(opacity=1.0, first="1")
    api = Endpoints(tab)

    def asked(**changes):
        return api.segmentation(
            **given | dict(image=picture, classes="dog, cat, grass, sky, snow", mask=None) | changes
        )

    painted, labels, told = asked(mask=save(tmp_path, numbers))
    assert painted.shape == (60, 90, 3) and labels.shape == (60, 90) and labels.dtype == np.uint8
    assert told["shares"]["dog"] == pytest.approx((labels == 1).mean(), abs=1e-5) and told["background"] == 0
    expected = agreement(labels.astype(int) - 1, truth.labels, 5)
    assert told["miou"] == pytest.approx(expected.mean, abs=1e-5)
    assert [row["name"] for row in told["classes"]] == FIVE and "miou" not in asked()[2]
    json.dumps(told, allow_nan=False)
    assert len(api.class_lists()["ADE20K"]) == 150
    for changes, words in (
        (dict(image=None), "Give an image"),
        (dict(classes=""), "at least one class"),
        (dict(model="/etc"), "not on offer"),
        (dict(features="middle"), "values or final"),
        (dict(mask=picture), "other colours"),
    ):
        with pytest.raises(gr.Error, match=words):
            asked(**changes)


def test_a_mask_goes_with_the_program_that_sent_it(tab, picture, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    (tmp_path / "hash").mkdir()
    path = save(tmp_path / "hash", np.zeros((60, 90), np.uint8))
    given = {name: value for name, value in USUAL.items() if name != "truth"} | dict(opacity=1.0, first="1")
    given |= dict(classes="dog, cat", mask=path, request=Visitor("a"))
    Endpoints(tab).segmentation(picture, **given)
    belongings.clear("a")
    assert not Path(path).exists()


def test_rows_have_no_background_unless_asked_for(tab, picture):
    for background, last in (("none", "snow"), ("threshold", "background")):
        question = ask(", ".join(FIVE), "none", "values", 0, False, background, 0.1, "", 56)
        assert rows(tab.service.divide(picture, question, None, "a"), None)[-1]["name"] == last


def test_what_is_not_here_gets_no_pixel_and_is_listed_apart(tab, picture, monkeypatch):
    encoder = tab.studio.encoder()
    verdicts = class_verdicts(encoder, encoder.encode_image(picture, 56).values, FIVE)
    order = sorted(verdicts, key=lambda each: -each.peak)  # those that win most are not here
    here, not_here = (1 / (1 + np.exp(each.peak)) for each in (order[-1], order[1]))
    fitted = Calibration(-1.0, 0.0, 0.0, here, not_here, order[2].peak - 0.05, -0.5, 0.5, ("noise",))
    for module in (verdict, segmentation_module):
        monkeypatch.setattr(module, "calibration_of", lambda info: fitted)
    absent = {each.query for each in order[:2]}
    page, _, _ = draw(tab, picture, background="verdict")
    labels, _ = content(page)
    assert (labels < 0).any() and not {FIVE[number] for number in np.unique(labels) if number >= 0} & absent
    apart = page.split("<summary>Not here: 2</summary>")[1]
    assert set(table(apart.split("</details>")[0])) == absent
    found = [each.query for each in order[2:] if (labels == FIVE.index(each.query)).any()]
    assert f"{len(found)} of 5 classes found" in page and "fitted on noise" in page
    expected = segment(
        encoder, picture, FIVE, templates="none", background="verdict", resolution=56, resample="bilinear"
    )
    np.testing.assert_array_equal(labels, expected.labels)
    assert {name for name, each in expected.verdicts.items() if each.answer == NOT_HERE} == absent
    all_pixels, _, _ = draw(tab, picture)  # without a background they win pixels, and do not count
    won = {FIVE[number] for number in np.unique(content(all_pixels)[0])}
    assert won & absent and f"{len(won - absent)} of 5 classes found" in all_pixels


def test_a_kind_of_picture_never_seen_is_not_painted(tab, picture, monkeypatch):
    width = tab.studio.encoder().encode_image(picture, 56).values.shape[-1]
    never = Familiar((0.0,) * 2 * width, -9.0, 0.5, ("photographs",))
    fitted = Calibration(1.0, 0.0, 0.0, 0.1, None, -1.0, -0.5, 0.5, ("noise",), familiar=never)
    for module in (verdict, segmentation_module):
        monkeypatch.setattr(module, "calibration_of", lambda info: fitted)
    page, _, _ = draw(tab, picture, background="verdict")
    assert (content(page)[0] < 0).all() and "<summary>Unknown: 5</summary>" in page
    assert "Whether any of 5 classes is here is unknown" in page and "looks like none of them" in page
    assert "classes found" not in draw(tab, picture)[0]  # what every pixel must be: painted, and still unknown


def test_a_class_may_have_several_words(tab, picture):
    encoder = tab.studio.encoder()
    maps = similarity(encoder.encode_image(picture, 56).values, encoder.encode_text(["dog", "cat", "sky"]))
    both = torch.stack([torch.maximum(maps[0], maps[1]), maps[2]])
    expected, _ = label_map(both, (60, 90))
    page, _, _ = draw(tab, picture, ["dog | cat", "sky"])
    np.testing.assert_array_equal(content(page)[0], expected)
    assert table(page)["dog | cat"][-1] == f"{both[0].max():.3f}"
