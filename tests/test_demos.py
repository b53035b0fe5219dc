"""The explorer's handlers as plain functions, with a tiny random encoder: what is shown is what was computed, an image
is encoded once, and whatever somebody uploads or types ends in a sentence.

    python -m pytest tests/test_demos.py
"""

import base64
import html
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from demos.ask.api import Endpoints
from demos.ask.tab import Heatmaps
from demos.ask.work import Question, patch_at
from demos.backend.studio import KEEP_IMAGES, LONGEST, MAX_PATCHES, Studio
from demos.compare.tab import Compares
from demos.export.files import Taken, coco
from demos.launch import parser
from demos.ui import controls, examples, views
from demos.ui.loading import status_html
from demos.ui.page import build
from tipsv2.checkpoints import bundled
from tipsv2.checkpoints.bundled import DRAWINGS, PHOTOGRAPHS
from tipsv2.images import fit_size

ROOT = Path(__file__).resolve().parent.parent


class Visitor:
    """Stands for gr.Request: all the handlers use of it."""

    def __init__(self, session_hash):
        self.session_hash = session_hash


@pytest.fixture
def studio(tiny_folder):
    return Studio(str(tiny_folder), device="cpu")


@pytest.fixture
def picture(tmp_path):
    """A noisy picture of 90 x 60 pixels: no two patches alike."""
    path = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)).save(path)
    return str(path)


@pytest.fixture
def encodings(studio, monkeypatch):
    """The resolutions at which the real encoder has looked at an image, one entry per call."""
    encoder, calls = studio.encoder(), []
    real = encoder.look

    def counted(image, view):
        calls.append(view.resolution)
        return real(image, view)

    monkeypatch.setattr(encoder, "look", counted)
    return calls


def draw_maps(studio, image, queries, patch=None, who="a", **changes):
    question = Question(image, patch=patch, queries=queries, **(dict(resolution=56) | changes))
    return Heatmaps(studio).drawn(question, who)


def cards(page):
    """The maps in a page as (name, values [h, w], peak, mean)."""
    found = []
    for card in re.findall(r"<figure[^>]* data-grid.*?</figure>", page, re.S):
        rows, columns = map(int, re.search(r'data-grid="(\d+)x(\d+)"', card).groups())
        values = np.array(json.loads(re.search(r'data-values="(.*?)"', card).group(1))).reshape(rows, columns)
        name = html.unescape(re.search(r"<figcaption><b[^>]*>(.*?)</b>", card).group(1))
        peak, mean = (float(re.search(rf'value-{what}">(.*?)<', card).group(1)) for what in ("peak", "mean"))
        found.append((name, values, peak, mean))
    return found


def test_a_second_query_does_not_encode_the_image_again(studio, picture, encodings):
    draw_maps(studio, picture, ["dog"])
    draw_maps(studio, picture, ["dog", "cat"], templates="tips9", mode="competing")
    assert encodings == [56]
    draw_maps(studio, picture, ["dog"], resolution=112)
    assert encodings == [56, 112]


def test_visitors_do_not_share_images_and_leaving_forgets_them(studio, picture, encodings):
    for who in ("a", "b", "a"):
        draw_maps(studio, picture, ["dog"], who=who)
    assert len(encodings) == 2
    studio.forget("a")
    draw_maps(studio, picture, ["dog"], who="b")
    assert len(encodings) == 2
    draw_maps(studio, picture, ["dog"], who="a")
    assert len(encodings) == 3


def test_a_visitor_keeps_only_the_last_images(studio, picture, encodings):
    encoder = studio.encoder()
    for resolution in range(28, 28 + 14 * (KEEP_IMAGES + 1), 14):
        studio.encode("a", encoder, picture, resolution)
    studio.encode("a", encoder, picture, resolution)
    assert len(encodings) == KEEP_IMAGES + 1
    studio.encode("a", encoder, picture, 28)
    assert len(encodings) == KEEP_IMAGES + 2


def test_maps_show_the_cosines_of_the_encoder(studio, picture, tiny_encoder):
    encoder = studio.encoder()
    patches = encoder.encode_image(picture, 56).values.double().numpy()
    texts = encoder.encode_text(["dog", "grass"]).double().numpy()
    expected = np.einsum("hwd,nd->nhw", patches / np.linalg.norm(patches, axis=-1, keepdims=True), texts)
    page, note = draw_maps(studio, picture, ["dog", "grass"])
    assert [name for name, *_ in cards(page)] == ["dog", "grass"]
    for (_, values, peak, mean), map_ in zip(cards(page), expected, strict=True):
        np.testing.assert_allclose(values, map_, atol=1e-4)
        assert (peak, mean) == pytest.approx((map_.max(), map_.mean()), abs=6e-4)
    assert "4 × 6 patches" in note


def test_competing_maps_share_every_patch(studio, picture):
    page, _ = draw_maps(studio, picture, ["dog", "grass", "sky"], mode="competing")
    np.testing.assert_allclose(sum(values for _, values, *_ in cards(page)), 1, atol=3e-4)


def test_a_clicked_patch_leads_the_maps_and_is_outlined(studio, picture):
    page, _ = draw_maps(studio, picture, ["dog"], patch=(89.0, 0.0))
    (name, values, peak, _), other = cards(page)
    assert other[0] == "dog" and name != "dog"
    assert peak == values[0, -1] == pytest.approx(1, abs=1e-4)  # a patch resembles itself most
    assert re.search(r'class="patch" style="left:83\.333%;top:0\.000%;width:16\.667%;height:25\.000%"', page)


@pytest.mark.parametrize("point, patch", [((0, 0), (0, 0)), ((89.9, 59.9), (3, 5)), ((16, 14), (0, 1))])
def test_patch_at(point, patch):
    assert patch_at(point, (60, 90), (4, 6)) == patch


def test_resolution_note_warns_beyond_training(studio, picture):
    assert "Beyond" not in draw_maps(studio, picture, ["dog"])[1]
    assert "Beyond the 56 px" in draw_maps(studio, picture, ["dog"], resolution=84)[1]


def test_empty_pages_say_what_to_do(studio, picture):
    assert "Start with an image" in draw_maps(studio, None, ["dog"])[0]
    assert "press Enter" in draw_maps(studio, picture, [])[0]


@pytest.mark.parametrize(
    "queries, told",
    [
        (["x" * 10_000], "10,000 characters"),
        (["dog", "🐶🐶"], "has no letters"),
        ([f"thing {i}" for i in range(13)], "keep to 12"),
    ],
)
def test_queries_that_cannot_be_asked_become_one_sentence(studio, picture, queries, told):
    with pytest.warns(UserWarning, match=told) as caught:
        assert draw_maps(studio, picture, queries) == gr.skip()
    assert len(caught) == 1


def test_odd_queries_are_asked_all_the_same(studio, picture):
    page, _ = draw_maps(studio, picture, ["  собака ", "犬", "犬", "", "dog 🐶", "<b>bold</b>"])
    assert [name for name, *_ in cards(page)] == ["собака", "犬", "dog 🐶", "<b>bold</b>"]
    assert "<b>bold" not in page


def test_one_competing_query_is_refused(studio, picture):
    with pytest.warns(UserWarning, match="at least two"):
        draw_maps(studio, picture, ["dog"], mode="competing")


def upload(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content) if isinstance(content, bytes) else content.save(path)
    return {"path": str(path)}


NOISE = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    "name, content, told",
    [
        ("empty.png", b"", "empty"),
        ("text.png", b"not a picture", "not a picture"),
        ("half.png", "half", "truncated or damaged"),
        ("bomb.png", Image.new("1", (8000, 8000)), "50 million"),
    ],
)
def test_bad_uploads_become_one_sentence_and_an_empty_field(tmp_path, name, content, told):
    if content == "half":
        NOISE.save(tmp_path / "whole.png")
        whole = (tmp_path / "whole.png").read_bytes()
        content = whole[: len(whole) // 2]
    with pytest.warns(UserWarning, match=told) as caught:
        assert controls.accept_upload(upload(tmp_path, name, content)) == (None, None)
    assert len(caught) == 1


@pytest.mark.parametrize(
    "name, content, size",
    [
        ("dot.png", Image.new("RGB", (1, 1)), (1, 1)),
        ("thin.png", Image.new("RGB", (1, 20_000)), (1, LONGEST)),
        ("print.jpg", NOISE.convert("CMYK"), (50, 40)),
        ("deep.png", Image.fromarray(np.full((40, 50), 40_000, np.uint16)), (50, 40)),
        ("palette.gif", NOISE.convert("P"), (50, 40)),
        ("glass.png", NOISE.convert("RGBA"), (50, 40)),
    ],
)
def test_odd_images_become_rgb(studio, tmp_path, name, content, size):
    path, kept = controls.accept_upload(upload(tmp_path, name, content))
    assert path == kept
    with Image.open(path) as shown:
        assert (shown.format, shown.mode, shown.size) == ("PNG", "RGB", size)
    assert len(cards(draw_maps(studio, path, ["dog"])[0])) == 1


@pytest.mark.parametrize("size, kept", [((2048, 2048), (2048, 2048)), ((9000, 1000), (6144, 682))])
def test_an_upload_keeps_what_an_encoder_can_use_and_its_first_size(studio, tmp_path, size, kept, monkeypatch):
    told = []
    monkeypatch.setattr(gr, "Info", lambda text, **_: told.append(text))
    path, _ = controls.accept_upload(upload(tmp_path, "photo.png", Image.new("RGB", size)))
    with Image.open(path) as image:
        assert image.size == kept
    masks = {"dog": np.ones(kept[::-1], bool)}
    (image,) = coco(Taken("heatmap", {}, {}, {}, masks, image=path))["images"]
    assert (image["width"], image["height"]) == kept
    if size == kept:
        assert not told and "original_width" not in image
    else:
        assert (image["original_width"], image["original_height"]) == size
        assert "9000 × 1000 pixels" in told[0] and "6144 × 682" in told[0]


def test_uploads_are_turned_as_their_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "phone.jpg"
    NOISE.save(path, exif=exif)
    with Image.open(controls.accept_upload({"path": str(path)})[0]) as shown:
        assert shown.size == (40, 50)


def test_an_image_that_is_gone_is_a_sentence(studio, tmp_path):
    with pytest.warns(UserWarning, match="no longer there"):
        draw_maps(studio, str(tmp_path / "gone.png"), ["dog"])


def test_api_errors_reach_the_client_as_sentences(studio, picture):
    given = dict(mode="cosine", features="values", templates="none", temperature=0.05, resolution=56)
    given |= dict(colormap="viridis", opacity=0.5)
    api = Endpoints(Heatmaps(studio))
    overlays, scores = api.heatmap(picture, ["dog"], None, **given)
    assert overlays[0][1] == scores[0]["query"] == "dog"
    assert overlays[0][0].shape == (60, 90, 3)
    assert np.max(scores[0]["patches"]) == pytest.approx(scores[0]["peak"], abs=1e-5)
    with pytest.raises(gr.Error, match="at least one query"):
        api.heatmap(picture, [], None, **given)
    with pytest.raises(gr.Error, match="not on offer"):
        api.heatmap(picture, ["dog"], "/etc", **given)


@pytest.mark.parametrize("size", [(448, 448), (1, 5000), (4000, 1000), (3000, 2000)])
@pytest.mark.parametrize("resolution", [224, 1372])
def test_no_image_gets_more_patches_than_affordable(size, resolution):
    used = Studio.affordable(size, resolution, 14)
    height, width = fit_size(*size, used)
    assert used <= resolution and height * width / 14**2 <= MAX_PATCHES * 1.05
    assert used == resolution or height * width / 14**2 > MAX_PATCHES * 0.9


def test_examples_follow_the_sidecar_and_tolerate_its_absence(tmp_path):
    assert examples.examples((DRAWINGS,), tmp_path / "nowhere") == []
    for name in ("b.png", "a.jpg"):
        NOISE.save(tmp_path / name)
    assert [each.path.name for each in examples.examples((DRAWINGS,), tmp_path)] == ["a.jpg", "b.png"]
    entries = [
        {"file": "b.png", "queries": ["a dog"], "classes": ["dog", "sky"], "for": "drawings"},
        {"file": "lost.png"},
    ]
    (tmp_path / "examples.json").write_text(json.dumps(entries))
    first, second = examples.examples((DRAWINGS,), tmp_path)
    assert (first.path.name, first.queries, first.classes) == ("b.png", ("a dog",), ("dog", "sky"))
    assert second.path.name == "a.jpg"
    (tmp_path / "examples.json").write_text("{broken")
    assert len(examples.examples((DRAWINGS,), tmp_path)) == 2


def test_every_encoder_gets_examples_it_knows():
    def kinds(*knows):
        return [each.kind for each in examples.examples(knows)]

    photographs, scenes = kinds(PHOTOGRAPHS), kinds(DRAWINGS)
    assert {*photographs} == {PHOTOGRAPHS} and {*scenes} == {DRAWINGS} and len(photographs) >= 6 and len(scenes) >= 6
    both = kinds(PHOTOGRAPHS, DRAWINGS)
    assert both == (photographs + scenes)[: examples.MAX_EXAMPLES] and both[-4:] == [DRAWINGS] * 4
    unknown = kinds()
    assert unknown[0] == DRAWINGS and unknown[-1] == PHOTOGRAPHS and len(unknown) == examples.MAX_EXAMPLES


def test_photographs_are_small_licensed_and_asked_for_one_thing_that_is_not_there():
    licences = (examples.FOLDER / "LICENSES.md").read_text("utf-8")
    for example in examples.examples((PHOTOGRAPHS,)):
        assert f"| `{example.path.name}` |" in licences and example.path.stat().st_size < 200_000
        with Image.open(example.path) as image:
            assert min(image.size) >= 300
        assert len(example.absent) == 1 and example.queries[-1:] == example.absent and len(example.queries) >= 3
        assert len(example.classes) >= 2 and not {*example.absent} & {*example.classes}


def test_a_page_opens_on_a_photograph_where_the_encoder_knows_some(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(bundled, "MODELS_FOLDER", tmp_path)
    for name, kind in ((bundled.NANO, DRAWINGS), (bundled.S14, PHOTOGRAPHS)):
        shutil.copytree(tiny_folder, tmp_path / name)
        studio = Studio("auto", device="cpu")
        assert studio.first == name and controls.pick_example(studio, None, 0).kind == kind
        assert controls.first_queries(studio) == list(controls.pick_example(studio, name, 0).queries)
        assert f"knows {' and '.join(bundled.about(name).knows)}" in status_html(studio, name)
        base = [
            each for each in build(["train"], "auto", "cpu").blocks.values() if getattr(each, "label", "") == "Base"
        ]
        assert [each.value for each in base] == [bundled.NANO]  # the small one, whichever answers
    assert controls.pick_example(studio, "tipsv2-nano", 0).kind == DRAWINGS
    queries = Compares(studio).take_example(None, 0)[2]
    assert queries == [each for each in controls.first_queries(studio) if each != "a dog"] and len(queries) == 3


def test_examples_are_taken_whole(studio):
    handlers = Heatmaps(studio)
    field, image, queries, patch = handlers.take_example(None, 0)
    assert field == image and Path(image).is_file() and queries and patch is None
    with pytest.raises(ValueError, match="reload"):
        handlers.take_example(None, 999)
    assert views.thumbnails([]) == "" and controls.strip_html(studio, None).count("<button") >= 6


@pytest.mark.parametrize("training, low, high", [(56, 28, 224), (224, 112, 896), (448, 224, 1372), (0, 224, 1372)])
def test_resolution_range(training, low, high):
    assert {"minimum": low, "maximum": high, "step": 14}.items() <= controls.resolution_range(training).items()


def test_help_comes_at_once():
    code = (
        "import runpy, sys; sys.argv = ['app.py', '--help']\n"
        "try: runpy.run_path('app.py', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'gradio', 'matplotlib', 'transformers'} & set(sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert "example: python app.py --model" in told
    assert parser().parse_args([]).model is None


def test_an_unknown_model_is_a_sentence_on_the_command_line():
    command = [sys.executable, "app.py", "--model", "tipsv2-b15"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 2 and "tipsv2-b14" in told.stderr and "Traceback" not in told.stderr


def test_a_picture_of_a_map_has_exactly_its_colours():
    from tipsv2.analysis.render import colorize

    values = np.random.default_rng(0).normal(size=(7, 9)).astype(np.float32)
    shown = Image.open(
        io.BytesIO(base64.b64decode(views.data_uri(views.colored(values, "magma", -1, 2)).partition(",")[2]))
    )
    assert (shown.format, shown.mode) == ("PNG", "P")
    np.testing.assert_array_equal(np.asarray(shown.convert("RGB")), colorize(values, "magma", -1, 2))


def test_the_photo_under_the_maps_is_made_once_and_forgotten_with_its_image():
    image = NOISE.copy()
    before = len(views._photos)
    first = views.photo_uri(image)
    assert views.photo_uri(image) is first and views.photo_uri(NOISE.rotate(180)) != first
    del image
    assert len(views._photos) == before


def test_a_program_may_give_one_query_as_a_string():
    assert controls.texts("a dog", "query", 4) == ["a dog"] == controls.texts(["a dog", " "], "query", 4)
