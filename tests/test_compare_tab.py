"""The Compare tab: what it shows is what tipsv2.analysis.alignment, layers and projection found; its page in a real
Chromium.

python -m pytest tests/test_compare_tab.py
"""

import base64
import io
import re
import shutil
from html import unescape

import gradio as gr
import numpy as np
import pytest
from caller import Visitor
from pictures import noise
from PIL import Image

from demos.backend import belongings
from demos.backend.studio import Studio
from demos.compare import charts as compare_charts
from demos.compare import mask as compare_mask
from demos.compare.api import Endpoints
from demos.compare.sides import look, measure, partner
from demos.compare.tab import Compares
from tipsv2.checkpoints import bundled
from tipsv2.checkpoints.bundled import NANO, S14
from tipsv2.checkpoints.catalogue import ModelError
from tipsv2.images import ImageError

WORDS = ["dog", "grass"]
SAME = dict(model_a=None, features_a="values", model_b=None, features_b="final", resolution=0)
OTHER = SAME | dict(model_b=NANO, features_b="values")
TEACHER, STUDENT = bundled.PAIRS[NANO]


@pytest.fixture(scope="module")
def studio(tiny_folder):
    return Studio(str(tiny_folder), device="cpu")


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """A noisy picture of 90 x 60 pixels: no two patches alike."""
    return noise(tmp_path_factory.mktemp("pictures") / "noise.png")


@pytest.fixture
def mask():
    found = np.zeros((60, 90), bool)
    found[10:40, 20:60] = True
    return found


def uri(mask):
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def draw(studio, image, queries=WORDS, mask=None, masked="", scale="z", sides=SAME, templates="none"):
    given = dict(queries=queries, templates=templates, mask=mask, masked=masked, scale=scale, request=Visitor())
    return Compares(studio).draw(image, **sides, **given)


def cells(page):
    """The table's body: a list of texts per query."""
    body = re.search(r'<table class="scores">.*?<tbody>(.*?)</tbody>', page, re.S).group(1)
    rows = re.findall(r"<tr>(.*?)</tr>", body)
    return [
        [
            unescape(re.sub("<[^>]+>", "", cell)).replace("−", "-")
            for cell in re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row)
        ]
        for row in rows
    ]


@pytest.mark.parametrize("sides", [SAME, OTHER], ids=["one model", "two models"])
def test_the_page_shows_what_the_library_finds(studio, picture, mask, sides):
    from tipsv2.analysis.alignment import compare_maps
    from tipsv2.analysis.heatmap import patch_maps

    encoders = studio.encoder(sides["model_a"]), studio.encoder(sides["model_b"])
    kinds = sides["features_a"], sides["features_b"]
    maps = [
        patch_maps(each.look(picture), each.encode_text(WORDS), kind)
        for each, kind in zip(encoders, kinds, strict=True)
    ]
    names = ("tiny", NANO) if sides is OTHER else ("tiny (values)", "tiny (final layer)")
    expected = compare_maps(*maps, WORDS, names, [None, mask], size=mask.shape)
    page, note = draw(studio, picture, mask=mask, masked="grass", sides=sides)
    assert unescape(re.search(r'class="verdict"[^>]*>(.*?)</p>', page).group(1)) == expected.sentence
    dog, grass = cells(page)
    a, b = (scores[1] for scores in expected.scores)
    hits = ["hit" if each.pointing else "miss" for each in (a, b)]
    assert grass[:3] == ["grass", f"{a.peak:.3f}", f"{b.peak:.3f}"]
    assert grass[3:7] == [f"{a.sharpness:.2f}", f"{b.sharpness:.2f}", f"{a.margin:.2f}", f"{b.margin:.2f}"]
    assert grass[7:-1] == [*hits, f"{a.auroc:.3f}", f"{b.auroc:.3f}", f"{a.iou:.2f}", f"{b.iou:.2f}"]
    assert dog[0] == "dog" and dog[7:-1] == ["–"] * 6
    assert [row[-1] for row in (dog, grass)] == [f"{value:.2f}" for value in expected.agreement]
    assert page.count('class="outline"') == 2
    assert "A sees 56 px, 4 × 6 patches" in note and ("B sees 224 px, 16 × 24" in note) == (sides is OTHER)


def test_the_difference_is_red_where_b_responds_more(studio, picture):
    from tipsv2.analysis.render import colorize

    page, _ = draw(studio, picture, ["dog"])
    pictures = re.findall(r'<img src="data:image/png;base64,([^"]*)" alt="Where B', page)
    (shown,) = [np.asarray(Image.open(io.BytesIO(base64.b64decode(code))).convert("RGB")) for code in pictures]
    both = look(studio, "a", picture, (None, None), ("values", "final"), 0)
    found = measure(both, ["dog"], "none", "z", [None])
    most = np.abs(found.difference).max()
    np.testing.assert_array_equal(shown, colorize(found.difference[0], "RdBu_r", -most, most))
    red = shown[..., 0].astype(int) - shown[..., 2]
    assert red[found.difference[0] > most / 2].min() > 0 > red[found.difference[0] < -most / 2].max(initial=-1)


def test_without_a_mask_there_are_no_columns_for_it(studio, picture):
    page, _ = draw(studio, picture)
    assert "AUROC" not in page and "no mask was given" in page and [len(row) for row in cells(page)] == [8, 8]


def test_one_query_has_no_margin_and_equal_sides_are_said_to_be(studio, picture):
    page, note = draw(studio, picture, ["dog"], sides=SAME | dict(features_b="values"))
    assert cells(page)[0][5:7] == ["–", "–"] and "Both sides are the same" in note


def test_an_image_is_encoded_once_per_model(studio, picture, monkeypatch):
    encoder, calls = studio.encoder(), []
    real = encoder.look
    monkeypatch.setattr(encoder, "look", lambda *given: calls.append(given) or real(*given))
    studio.forget("a")
    for scale in ("z", "rank", "cosine"):
        draw(studio, picture, scale=scale)
    Compares(studio).paint(picture, **SAME, request=Visitor())
    assert len(calls) == 1


def test_what_was_typed_is_escaped(studio, picture, mask):
    words = ["<b>bold</b>", '"><img src=x onerror=alert(1)>', "a & b"]
    handlers = Compares(studio)
    page, _ = draw(studio, picture, words, mask, words[0])
    page += handlers.layers(picture, **SAME, queries=words, templates="none", mask=None, masked="", request=Visitor())
    assert "<b>bold" not in page and "<img src=x" not in page and "&lt;b&gt;bold" in page


@pytest.mark.parametrize("sides", [SAME, OTHER], ids=["one model", "two models"])
def test_layers_are_those_of_the_library(studio, picture, mask, sides):
    from tipsv2.analysis.layers import layer_cka, layer_scores

    encoders = studio.encoder(sides["model_a"]), studio.encoder(sides["model_b"])
    layers = [each.encode_layers(picture) for each in encoders]
    cka = layer_cka([layers])
    given = dict(queries=WORDS, templates="none", mask=mask, masked="grass", request=Visitor())
    page = Compares(studio).layers(picture, **sides, **given)
    for row in range(len(layers[0])):
        for column in range(len(layers[1])):
            assert f"layer {row + 1} of A, layer {column + 1} of B: {cka[row, column]:.2f}<" in page
    measure, table = layer_scores(layers[1], encoders[1].encode_text(WORDS), [None, mask], sides["features_b"])
    assert measure == "auroc" and "AUROC" in page
    assert all(f"layer {number} of B: {row[1]:.3f}<" in page for number, row in enumerate(table, 1))


def test_layers_of_a_blank_image_have_no_likeness(studio, tmp_path):
    Image.new("RGB", (40, 40), "white").save(tmp_path / "blank.png")
    cka = np.full((2, 2), np.nan)
    page = compare_charts.layers(
        ("a", "b"),
        cka,
        np.zeros((2, 2, 3), np.uint8),
        np.zeros((1, 256, 3), np.uint8),
        "sharpness",
        (np.zeros((2, 1)),) * 2,
        [""],
    )
    assert page.count("undefined") == 4
    assert "verdict" in draw(studio, str(tmp_path / "blank.png"))[0]


def test_components_share_their_colours(studio, picture):
    one = Compares(studio).paint(picture, **(SAME | dict(features_b="values")), request=Visitor())
    codes = re.findall(r'src="(data:[^"]*)"', one)
    assert len(codes) == 2 and codes[0] == codes[1]
    two = Compares(studio).paint(picture, **OTHER, request=Visitor())
    assert "stays different" in two and "One basis" in one
    assert Compares(studio).paint(None, **SAME, request=Visitor()) == ""


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (300, 20)])
def test_odd_images_are_compared(studio, tmp_path, size):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(
        tmp_path / "a.png"
    )
    page, _ = draw(studio, str(tmp_path / "a.png"), sides=OTHER)
    assert len(cells(page)) == 2
    assert "tips-joint" in Compares(studio).paint(str(tmp_path / "a.png"), **OTHER, request=Visitor())


def test_empty_pages_say_what_to_do(studio, picture):
    assert "Start with an image" in draw(studio, None)[0]
    assert "press Enter" in draw(studio, picture, ["", "  "])[0]


@pytest.mark.parametrize(
    "queries, told", [(["x" * 201], "201 characters"), (["🐶"], "has no letters"), ([str(i) for i in range(9)], "to 8")]
)
def test_queries_that_cannot_be_asked_become_one_sentence_and_spoil_no_other(studio, picture, queries, told):
    drawn, _ = draw(studio, picture, ["a dog", *queries])
    assert drawn.count('class="tips-note tips-refused"') == 1 and told in drawn
    kept = min(len(queries), 8 - 1) if "to 8" in told else 0
    alone, _ = draw(studio, picture, ["a dog", *queries[:kept]])
    assert drawn[drawn.index("</p>") + 4 :] == alone


def test_masks_are_drawn_or_uploaded(picture, mask, tmp_path):
    Image.fromarray(mask).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(compare_mask.take(str(tmp_path / "mask.png"), picture, drawn=False), mask)
    np.testing.assert_array_equal(compare_mask.take(uri(mask), picture, drawn=True), mask)
    large = np.repeat(np.repeat(mask, 3, axis=0), 3, axis=1)
    np.testing.assert_array_equal(compare_mask.take(uri(large), picture, drawn=True), mask)
    assert compare_mask.take(uri(np.zeros_like(mask)), picture, drawn=True) is None
    edge = compare_mask.outline(mask)
    assert edge[..., 3].any() and not edge[~mask].any() and not edge[20:30, 30:50].any()


@pytest.mark.parametrize("sent", [None, "/etc/passwd", "data:image/png;base64,!!", "data:image/png;base64,AAAA"])
def test_a_drawing_that_is_none_is_a_sentence(picture, sent):
    with pytest.raises(ImageError):
        compare_mask.take(sent, picture, drawn=True)


def test_a_mask_that_fits_not_is_a_sentence(studio, picture, mask):
    with pytest.raises(ImageError, match="90 × 30 pixels and the image 90 × 60"):
        compare_mask.take(uri(mask[:30]), picture, drawn=True)
    with pytest.raises(ValueError, match="image first"):
        compare_mask.take(uri(mask), None, drawn=True)
    with pytest.warns(UserWarning, match="every pixel"):
        draw(studio, picture, mask=np.ones_like(mask), masked="dog")


def test_a_mask_counts_only_while_its_query_is_there():
    assert compare_mask.choices(WORDS, "dog")["value"] == "dog"
    gone = compare_mask.choices(["cat"], "dog")
    assert gone["value"] == "" and gone["choices"][1] == ("cat", "cat")


def test_another_query_gets_a_mask_of_its_own(picture, mask):
    drawing, upload, begun = compare_mask.begin(picture, "dog")
    assert drawing["visible"] and upload["visible"] and begun is None
    assert "<canvas" in drawing["value"] and "data-mask" not in drawing["value"]
    assert "data-mask" in compare_mask.canvas(picture, "dog", mask)
    for nobody in (compare_mask.begin(picture, ""), compare_mask.begin(None, "dog")):
        assert not nobody[0]["visible"] and nobody[0]["value"] == ""


def test_the_side_opposite(studio, tiny_folder, tmp_path, monkeypatch):
    assert partner(studio, None) == (bundled.default(), "values")
    monkeypatch.setattr(bundled, "MODELS_FOLDER", tmp_path)
    shutil.copytree(tiny_folder, tmp_path / NANO)
    alone = Studio(NANO, device="cpu")
    monkeypatch.setattr("demos.compare.sides.is_cached", lambda info: False)
    assert partner(alone, None) == (NANO, "final")
    monkeypatch.setattr("demos.compare.sides.is_cached", lambda info: info.name == "tipsv2-b14")
    assert partner(alone, None) == ("tipsv2-b14", "values")


@pytest.fixture
def with_a_pair(tiny_folder, tmp_path, monkeypatch):
    """Three bundled encoders, the teacher and its student among them."""
    monkeypatch.setattr(bundled, "MODELS_FOLDER", tmp_path)
    for name in (NANO, TEACHER, STUDENT):
        shutil.copytree(tiny_folder, tmp_path / name)


def test_a_page_opens_with_the_bundled_teacher_against_its_student(with_a_pair, tiny_folder, picture):
    handlers = Compares(Studio(NANO, device="cpu"))
    pick_a, model_a, pick_b, model_b, features_b, *_ = handlers.arrive(NANO, picture, None)
    assert (pick_a, model_a, pick_b, model_b, features_b) == (TEACHER, TEACHER, STUDENT, STUDENT, "values")
    page, _ = handlers.draw(picture, TEACHER, "values", STUDENT, "values", 0, WORDS, "none", None, "", "z", Visitor())
    assert f"<b>A</b> {TEACHER}" in page and f"<b>B</b> {STUDENT}" in page
    assert handlers.arrive("tipsv2-nano", picture, STUDENT)[:3] == (NANO, NANO, gr.skip())  # chosen by somebody
    asked_for = Compares(Studio(str(tiny_folder), device="cpu"))
    assert asked_for.arrive("tiny", picture, None)[:2] == ("tiny", "tiny")
    two = Compares(Studio([NANO, str(tiny_folder)], device="cpu"))
    assert two.arrive(NANO, picture, None)[1:4:2] == (NANO, "tiny")


def test_a_default_without_a_pair_stands_beside_another(with_a_pair, tiny_folder, tmp_path, picture):
    """Of the old pair neither has seen a photograph: it is no comparison for an encoder that has."""
    shutil.copytree(tiny_folder, tmp_path / S14)
    assert bundled.default() == S14 and bundled.pair() is None
    assert Compares(Studio("auto", device="cpu")).arrive(None, picture, None)[1:5:2] == (S14, NANO)
    assert Compares(Studio(NANO, device="cpu")).arrive(None, picture, None)[1] == NANO  # asked for


def test_a_pair_that_does_not_fit_leaves_the_pages_model(with_a_pair, picture, monkeypatch):
    handlers = Compares(Studio(NANO, device="cpu"))
    real = handlers.studio.shelf._load

    def damaged(info):
        if info.name in bundled.PAIRS[NANO]:
            raise ModelError(f"{info.name} cannot be read: get it again.")
        return real(info)

    monkeypatch.setattr(handlers.studio.shelf, "_load", damaged)
    with pytest.warns(UserWarning, match="cannot be read"):
        found = handlers.arrive(NANO, picture, None)
    assert found[:5] == (NANO, NANO, NANO, NANO, "final")


def test_the_pages_model_becomes_a(studio, picture):
    handlers = Compares(studio)
    _, model_a, _, model_b, features_b, field, image, strip = handlers.arrive(studio.first, None, None)
    assert (model_a, model_b, features_b) == (studio.first, bundled.default(), "values")
    assert field == image and "<button" in strip
    _, model_a, *others, strip = handlers.arrive(NANO, picture, studio.first)
    assert model_a == NANO and others == [gr.skip()] * 5


def test_the_api_answers_and_refuses_in_sentences(studio, picture, mask, tmp_path):
    Image.fromarray(mask).save(tmp_path / "mask.png")
    api, rest = Endpoints(studio), dict(templates="none", scale="rank")
    pictures, told, sentence = api.compare(
        picture, WORDS, **OTHER, **rest, mask=str(tmp_path / "mask.png"), masked=" grass"
    )
    assert [word for _, word in pictures] == WORDS and pictures[0][0].shape == (60, 90, 3)
    assert told["scores"][0]["a"]["auroc"] is None and 0 <= told["scores"][1]["b"]["auroc"] <= 1
    assert told["size"] == [90, 60] and sentence.endswith(".") and told["range"] <= 1
    layers = api.layers(picture, WORDS, **OTHER, templates="none")
    assert len(layers["cka"]) == 3 and len(layers["cka"][0]) == 6 and np.shape(layers["b"]) == (6, 2)
    (first, second), note = api.colors(picture, **OTHER)
    assert first[0].shape == (4, 6, 3) and second[0].shape == (16, 24, 3) and "rotation" in note
    for wrong, match in (
        (dict(image=None), "Give an image"),
        (dict(queries=[]), "at least one query"),
        (dict(masked="sky", mask="any"), "none of the queries"),
        (dict(model_b="/etc"), "not on offer"),
        (dict(features_a="norm"), "Unknown features"),
        (dict(scale="log"), "Unknown scale"),
    ):
        with pytest.raises(gr.Error, match=match):
            api.compare(**(dict(image=picture, queries=WORDS, **OTHER, **rest, mask=None, masked="") | wrong))


def test_a_mask_goes_with_the_program_that_sent_it(studio, picture, mask, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    path = tmp_path / "hash" / "mask.png"
    path.parent.mkdir()
    Image.fromarray(mask).save(path)
    given = dict(templates="none", scale="z", mask=str(path), request=Visitor())
    Endpoints(studio).compare(picture, WORDS, **SAME, **given)
    belongings.clear(Visitor().session_hash)
    assert not path.exists()


class TestInABrowser:
    @pytest.fixture(scope="class")
    def url(self, serving, tiny_folder):
        yield from serving(["compare"], tiny_folder)

    @pytest.fixture
    def expect(self):
        return pytest.importorskip("playwright.sync_api").expect

    def test_slide_draw_a_mask_and_look_into_the_layers(self, visit, expect):
        page = visit()
        page.locator(".pair .stage").first.click()  # a row becomes large
        handle = page.locator(".swipe input").first
        expect(handle).to_be_attached()
        expect(page.locator(".tips-joint img")).to_have_count(2)
        handle.focus()
        handle.press("ArrowRight")
        root = page.locator(".tips-compare")
        expect(root).to_have_attribute("style", re.compile(r"--at: ?51%"))
        expect(page.locator(".scores")).not_to_contain_text("AUROC")
        page.get_by_label("Mask of").click()
        page.get_by_role("option").nth(1).click()
        canvas = page.locator(".tips-mask canvas")
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        at = [
            (box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in ((0.2, 0.2), (0.8, 0.2), (0.5, 0.8))
        ]
        page.mouse.move(*at[0])
        page.mouse.down()
        for point in at[1:]:
            page.mouse.move(*point, steps=3)
        page.mouse.up()
        expect(page.locator(".scores")).to_contain_text("AUROC")
        expect(page.locator(".outline")).to_have_count(2)
        expect(root).to_have_attribute("style", re.compile(r"--at: ?51%"))
        page.get_by_role("button", name="Compare layer by layer").click()
        expect(page.locator(".tips-layers svg[role=img]")).to_have_count(2)
        page.locator(".tips-mask [data-tool=clear]").click()
        expect(page.locator(".scores")).not_to_contain_text("AUROC")

    def test_a_phone_needs_no_sideways_scroll_and_a_bad_query_is_a_sentence(self, visit, expect):
        page = visit(width=400)
        expect(page.locator(".scores")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        field = page.get_by_label("Look for")
        field.fill("🐶")
        field.press("Enter")
        expect(page.locator(".tips-refused")).to_contain_text("has no letters")
        expect(page.locator(".tips-queries .token.refused")).to_have_text("🐶")
        expect(page.locator(".scores")).to_be_visible()

    def test_a_client_of_the_api(self, url, picture):
        from gradio_client import Client, handle_file

        _, told, sentence = Client(url, verbose=False).predict(
            image=handle_file(picture), queries=WORDS, api_name="/compare"
        )
        assert [each["query"] for each in told["scores"]] == WORDS and "tiny" in sentence


def test_an_encoder_that_does_not_know_the_kind_of_picture_is_not_called_sharper(studio, picture, mask):
    """Without a mask nothing speaks for it; what the maps look like is no answer."""
    page, _ = draw(studio, picture, sides=OTHER)
    assert "Nothing here says which side is right" in page and "sharper" not in page
    masked, _ = draw(studio, picture, sides=OTHER, mask=mask, masked="dog")
    assert "Nothing here says" not in masked and "AUROC" in masked
