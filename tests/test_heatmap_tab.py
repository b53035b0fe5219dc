"""The Ask tab: layers, distractors, own templates, sentences, regions, a second image, nearest words, windows, exports,
as plain handlers with a tiny random encoder, through the API, and in a browser. Maps and clicks: test_demos, test_app.

python -m pytest tests/test_heatmap_tab.py
"""

import html
import json
import re
from dataclasses import fields

import gradio as gr
import numpy as np
import pytest
import torch
from caller import Visitor
from pictures import noise
from PIL import Image

from demos.ask import export, views
from demos.ask.api import Endpoints
from demos.ask.tab import Heatmaps, as_sentence, default_threshold
from demos.ask.work import MAX_TEMPLATES, Question, layer_number, templates_of
from demos.backend.studio import Studio
from tipsv2.analysis import verdict
from tipsv2.analysis.heatmap import heatmap, patch_maps, patch_similarity, peak, to_pixels
from tipsv2.analysis.regions import at_share, find_regions
from tipsv2.analysis.verdict import Calibration, judge
from tipsv2.analysis.words import vocabulary, word_maps
from tipsv2.checkpoints.bundled import DRAWINGS, PHOTOGRAPHS
from tipsv2.network.view import View

SENTENCE = "a red dog on grass"


@pytest.fixture
def tab(tiny_folder):
    return Heatmaps(Studio(str(tiny_folder), device="cpu"))


@pytest.fixture
def picture(tmp_path):
    """90 x 60 pixels, 4 x 6 patches: no two alike."""
    return noise(tmp_path / "noise.png", 0, (60, 90))


@pytest.fixture
def other(tmp_path):
    """56 x 56 pixels, 4 x 4 patches."""
    return noise(tmp_path / "other.png", 1, (56, 56))


def draw(tab, image, **asked):
    return tab.drawn(Question(image, **(dict(resolution=56) | asked)), "a")


def shown(page):
    """The maps in a page: name -> values [h, w]."""
    found = {}
    for card in re.findall(r"<figure[^>]* data-grid.*?</figure>", page, re.S):
        rows, columns = map(int, re.search(r'data-grid="(\d+)x(\d+)"', card).groups())
        values = np.array(json.loads(re.search(r'data-values="(.*?)"', card).group(1))).reshape(rows, columns)
        found[html.unescape(re.search(r"<figcaption><b[^>]*>(.*?)</b>", card).group(1))] = values
    return found


def expected(tab, image, names, **asked):
    """The library's maps at the patches' own size."""
    maps = heatmap(tab.studio.encoder(), image, names, resolution=56, **asked)
    return dict(zip(names, maps, strict=True))


def as_pixels(values):
    return to_pixels(torch.tensor(values)[None], (60, 90))[0].numpy()


@pytest.mark.parametrize("features, layer", [("final", "final"), ("values", "values"), ("1", 1), ("3", 3)])
def test_any_layer_is_the_library_s(tab, picture, features, layer):
    found = shown(draw(tab, picture, queries=["dog", "grass"], features=features)[0])
    for name, map_ in expected(tab, picture, ["dog", "grass"], features=layer).items():
        np.testing.assert_allclose(as_pixels(found[name]), map_, atol=2e-3)  # layers are remembered in float16


def test_layers_follow_the_encoder(tab):
    told = tab.layers(None, "7")
    assert [value for _, value in told["choices"]] == ["values", "final", "3", "2", "1"] and told["value"] == "values"
    assert tab.layers(None, "2")["value"] == "2"
    assert (layer_number("values"), layer_number("final"), layer_number("12")) == (None, None, 12)


def test_a_follow_up_never_encodes_the_image_again(tab, picture, other, monkeypatch):
    encoder, images, layers = tab.studio.encoder(), [], []
    real, real_layers = encoder.look, encoder.encode_layers
    monkeypatch.setattr(encoder, "look", lambda *given: images.append(given) or real(*given))
    monkeypatch.setattr(encoder, "encode_layers", lambda *given: layers.append(given) or real_layers(*given))
    for asked in (
        dict(queries=["dog"]),
        dict(queries=["dog", "cat"], mode="competing", distractors=["sky"], templates="tips9"),
        dict(by="sentence", sentence=SENTENCE, features="final"),
        dict(queries=["cat"], patch=(5, 5), cut=True, threshold=0.3),
        dict(queries=["cat"], patch=(80, 50), vocabulary="dog, cat"),
    ):
        draw(tab, picture, **asked)
    assert len(images) == 1 and not layers
    for features in ("1", "2", "1"):
        draw(tab, picture, queries=["dog"], features=features)
    assert len(images) == 1 and len(layers) == 1
    for point in ((5, 5), (80, 50)):
        draw(tab, picture, patch=point, other=other)
    assert len(images) == 2


def test_distractors_take_their_share_and_get_no_map(tab, picture):
    asked = dict(queries=["dog"], mode="competing", distractors=["cat", "dog", "sky"], temperature=0.1)
    found = shown(draw(tab, picture, **asked)[0])
    whole = expected(tab, picture, ["dog", "cat", "sky"], mode="competing", temperature=0.1)
    assert list(found) == ["dog"] and found["dog"].max() < 1
    np.testing.assert_allclose(as_pixels(found["dog"]), whole["dog"], atol=2e-3)
    with pytest.warns(UserWarning, match="distractor"):
        assert draw(tab, picture, queries=["dog"], mode="competing", distractors=["dog"]) == gr.skip()


def test_own_templates_are_one_a_line(tab, picture):
    own = "a photo of a {}.\n\n  the {} \nthe {}"
    assert templates_of(Question(None, templates="own", own=own)) == ("a photo of a {}.", "the {}")
    found = shown(draw(tab, picture, queries=["dog"], templates="own", own=own)[0])
    map_ = expected(tab, picture, ["dog"], templates=["a photo of a {}.", "the {}"])["dog"]
    np.testing.assert_allclose(as_pixels(found["dog"]), map_, atol=1e-3)


def test_a_sentence_becomes_a_map_for_each_word(tab, picture):
    page, _ = draw(tab, picture, by="sentence", sentence=SENTENCE, queries=["sky"])
    words, maps = word_maps(tab.studio.encoder(), picture, SENTENCE, resolution=56)
    assert list(shown(page)) == words == ["red", "dog", "grass"]
    for word, map_ in zip(words, maps, strict=True):
        np.testing.assert_allclose(as_pixels(shown(page)[word]), map_, atol=1e-3)
    assert "What does the image show?" in draw(tab, picture, by="sentence", queries=["sky"])[0]
    assert as_sentence(["a dog", "sky", "sand"]) == "a dog, sky and sand"
    assert (as_sentence(["a dog"]), as_sentence([])) == ("a dog", "")


@pytest.mark.parametrize("above, threshold", [("range", 0.7), ("score", 0.02)])
def test_regions_are_told_and_drawn(tab, picture, above, threshold):
    page, _ = draw(tab, picture, queries=["dog"], cut=True, above=above, threshold=threshold)
    map_ = expected(tab, picture, ["dog"])["dog"]
    found = find_regions(map_, at_share(map_, threshold) if above == "range" else threshold, 0.002)
    assert found.parts and f"<b>{100 * found.share:.1f}&thinsp;%</b>" in page
    boxes = [
        tuple(map(int, box)) for box in re.findall(r'<rect x="(\d+)" y="(\d+)" width="(\d+)" height="(\d+)"', page)
    ]
    assert boxes == [(a, b, c - a, d - b) for a, b, c, d in (part.box for part in found.parts)] * 2
    assert 'class="region"' not in draw(tab, picture, queries=["dog"], threshold=threshold)[0]
    assert "<b>Nothing</b>" in draw(tab, picture, queries=["dog"], cut=True, above="score", threshold=1.0)[0]


def test_thresholds_fit_what_they_cut():
    assert default_threshold(True, "range", "cosine") == 0.55
    assert default_threshold(False, "range", "cosine") == gr.skip()  # another score leaves a share where it was
    assert (default_threshold(True, "score", "cosine"), default_threshold(False, "score", "competing")) == (0.2, 0.5)


def test_a_clicked_patch_is_found_in_a_second_image_on_one_scale(tab, picture, other):
    page, _ = draw(tab, picture, patch=(89, 0), other=other)
    encoder = tab.studio.encoder()
    here, there = encoder.encode_image(picture, 56).values, encoder.encode_image(other, 56).values
    similar = patch_similarity(here, 0, 5, there)
    np.testing.assert_allclose(shown(page)["In the second image"], similar, atol=1e-4)
    row, column = divmod(int(similar.argmax()), 4)
    second = next(each for each in re.findall(r"<figure.*?</figure>", page, re.S) if "In the second image" in each)
    assert f'class="patch" style="left:{25 * column:.3f}%;top:{25 * row:.3f}%' in second
    low = min(patch_similarity(here, 0, 5).min(), similar.min())
    scales = re.findall(r'class="range"><span>(.*?)</span>.*?<span>(.*?)</span>', page)
    assert scales == [(f"{low:.3f}", "1.000")] * 2
    assert page.count("--photo:") == 2 and 'class="card other"' in page


def test_nearest_words_of_a_patch(tab, picture):
    words = ["dog", "cat", "<b>sky</b>", "tree"]
    page, _ = draw(tab, picture, patch=(0, 0), vocabulary=", ".join(words))
    encoder = tab.studio.encoder()
    patch = encoder.encode_image(picture, 56).values[0, 0]
    scores = torch.nn.functional.cosine_similarity(patch[None], encoder.encode_text(words)).tolist()
    told = [
        (html.unescape(name), float(score)) for name, score in re.findall(r"<span>([^<]*)</span><b>(.*?)</b><em>", page)
    ]
    assert told == [
        (name, pytest.approx(score, abs=6e-4)) for score, name in sorted(zip(scores, words, strict=True))[::-1]
    ]
    assert "<b>sky" not in page
    assert page.count("data-word=") == 4 and draw(tab, picture, patch=(0, 0))[0].count("data-word=") == 8


def test_every_kind_of_encoder_has_a_vocabulary():
    scenes, photographs = vocabulary((DRAWINGS,)), vocabulary((PHOTOGRAPHS,))
    assert {"grass", "banana", "red"} <= set(scenes) and {"person", "road", "red"} <= set(photographs)
    assert len(scenes) == len(set(scenes)) > 300 and vocabulary(()) == photographs
    assert {*vocabulary((PHOTOGRAPHS, DRAWINGS))} == {*scenes, *photographs}


def test_a_peak_is_one_number_wherever_it_is_asked_for(tab, picture, tmp_path, tiny_folder):
    """/heatmap, /regions, verdicts, the command line, a comparison of two encoders: the highest cosine of a patch."""
    from tipsv2.__main__ import main
    from tipsv2.analysis.alignment import compare

    api, encoder = Endpoints(tab), tab.studio.encoder()
    given = dict(model=None, mode="cosine", features="values", templates="none", temperature=0.05, resolution=42)
    _, (scores,) = api.heatmap(picture, ["dog"], **given, colormap="viridis", opacity=0.6, request=Visitor())
    _, (region,) = api.regions(picture, ["dog"], **given, above="range", threshold=0.5, request=Visitor())
    assert max(part["peak"] for part in region["parts"]) == scores["peak"]
    options = ["--model", str(tiny_folder), "--device", "cpu", "--resolution", "42", "--out", str(tmp_path / "out")]
    assert main(["heatmap", str(picture), "dog", *options]) == 0
    (row,) = json.loads((tmp_path / "out" / "scores.json").read_text("utf-8"))["scores"]
    assert (row["peak"], row["mean"]) == pytest.approx((scores["peak"], scores["mean"]), abs=1e-6)
    found = compare(encoder, encoder, picture, ["dog"], features=("values", "final"), resolutions=(42, 42)).scores[0][0]
    assert (found.peak, found.x, found.y) == (pytest.approx(row["peak"]), row["x"], row["y"])
    features = encoder.look(picture, View(42))
    (dog,) = patch_maps(features, encoder.encode_text(["dog"]))
    assert judge(encoder, features.values, ["dog"])[0].peak == peak(dog).score == pytest.approx(row["peak"])
    assert heatmap(encoder, picture, ["dog"], resolution=42).max() < row["peak"] - 1e-4  # no pixel is as high


def test_windows_look_closer_and_tell_their_price(tab, picture):
    from tipsv2.analysis.heatmap import similarity
    from tipsv2.network.view import windowed

    page, note = draw(tab, picture, queries=["dog"], windows=True, resolution=112)
    encoder = tab.studio.encoder()
    seen = encoder.look(picture, windowed(encoder, 112))
    np.testing.assert_allclose(shown(page)["dog"], similarity(seen.values, encoder.encode_text(["dog"]))[0], atol=1e-4)
    assert "8 × 12 patches through 12 windows of 56 px" in note
    assert "layer 1 is of the whole image" in draw(tab, picture, queries=["dog"], windows=True, features="1")[1]


@pytest.mark.parametrize(
    "asked, told",
    [
        (dict(templates="own", own="a dog\na {}"), "has no {}: write {} where"),
        (dict(templates="own", own=" \n"), "at least one template"),
        (dict(templates="own", own="{} x" * 99), "396 characters"),
        (
            dict(templates="own", own="\n".join(f"{{}} {i}" for i in range(MAX_TEMPLATES + 1))),
            f"keep to {MAX_TEMPLATES}",
        ),
        (dict(features="9"), "no layer 9"),
        (dict(features="nothing"), "number of a layer"),
        (dict(by="sentence", sentence="x" * 300), "300 characters"),
        (dict(by="sentence", sentence="🐶"), "no letters"),
        (dict(by="sentence", sentence=" ".join(f"word{i}" for i in range(13))), "more than 12 words"),
        (dict(patch=(0, 0), vocabulary="🐶"), "no letters"),
        (dict(patch=(0, 0), other="gone.png"), "no longer there"),
        (dict(cut=True, threshold=7.0), "between 0 and 1"),
        (dict(mode="competing", distractors=["x" * 300]), "at least two"),  # the chip is red, and competes with nothing
    ],
)
def test_what_cannot_be_asked_is_one_sentence(tab, picture, asked, told):
    with pytest.warns(UserWarning, match=re.escape(told)) as caught:
        assert draw(tab, picture, **(dict(queries=["dog"]) | asked)) == gr.skip()
    assert len(caught) == 1


def test_what_was_typed_is_escaped(tab, picture):
    page, _ = draw(tab, picture, queries=['<b>"bold"</b>'], cut=True)
    assert '<b>"bold' not in page and "&lt;b&gt;&quot;bold" in page


def test_the_api_speaks_numbers(tab, picture, other):
    api, given = Endpoints(tab), dict(model=None, features="values", resolution=56)
    painted = dict(colormap="viridis", opacity=0.5)
    scored = dict(mode="cosine", temperature=0.05)
    overlays, scores = api.word_maps(picture, SENTENCE, **given, **scored, **painted, request=Visitor())
    assert [each["query"] for each in scores] == [name for _, name in overlays] == ["red", "dog", "grass"]
    overlays, told = api.similar_patches(picture, 0, 0, other, **given, **painted, request=Visitor())
    assert told["patch"] == [0, 0] and [each.shape for each, _ in overlays] == [(60, 90, 3), (56, 56, 3)]
    row, column = told["other"]["best"]
    assert told["other"]["patches"][row][column] == pytest.approx(told["other"]["peak"], abs=1e-5)
    overlays, told = api.similar_patches(picture, 0, 0, None, **given, **painted, request=Visitor())
    assert len(overlays) == 1 and "other" not in told
    words = api.nearest_words(picture, 0, 0, "dog, cat, sky", 2, **given, request=Visitor())
    assert len(words) == 2 and words[0]["score"] >= words[1]["score"]
    cut = dict(templates="none", above="range", threshold=0.6)
    masks, told = api.regions(picture, ["dog", "cat"], **given, **scored, **cut, request=Visitor())
    for (mask, name), each in zip(masks, told, strict=True):
        assert name == each["query"] and mask.shape == (60, 90) and set(np.unique(mask)) == {0, 255}
        assert each["share"] == pytest.approx((mask == 255).mean(), abs=1e-5)
        assert sum(part["area"] for part in each["parts"]) == (mask == 255).sum()
    with pytest.raises(gr.Error, match="a sentence"):
        api.word_maps(picture, " ", **given, **scored, **painted)
    for count in (None, 0):
        with pytest.raises(gr.Error, match=f"not {count}"):
            api.nearest_words(picture, 0, 0, "dog, cat", count, **given)
    with pytest.raises(gr.Error, match="no layer 8"):
        api.nearest_words(picture, 0, 0, "", 2, **(given | dict(features="8")))


class Sure:
    """A calibration for the tiny encoder: what peaks highest is here, the lowest is not."""

    def __init__(self, tab, picture, *queries):
        judged = sorted(judge(tab.studio.encoder(), tab_values(tab, picture), queries), key=lambda each: each.peak)
        self.order = [each.query for each in judged]
        here, not_here = (1 / (1 + np.exp(-each.peak)) for each in (judged[-1], judged[0]))
        self.calibration = Calibration(1.0, 0.0, 0.0, here, not_here, judged[1].peak, -0.5, 0.5, ("noise",))


def tab_values(tab, picture):
    return tab.studio.encoder().encode_image(picture, 56).values


@pytest.fixture
def calibrated(tab, picture, monkeypatch):
    sure = Sure(tab, picture, "dog", "cat", "grass")
    monkeypatch.setattr(verdict, "calibration_of", lambda info: sure.calibration)
    return sure


def badges(page):
    found = re.findall(r"<figcaption><b[^>]*>(.*?)</b><span class=\"tips-verdict\" data-answer=\"(.*?)\"", page)
    return dict(found)


def test_every_query_has_its_verdict_and_one_scale_is_for_all(tab, picture, calibrated):
    page, _ = draw(tab, picture, queries=["dog", "cat", "grass"])
    worst, middle, best = calibrated.order
    assert badges(page) == {worst: "not here", middle: "perhaps", best: "here"}
    assert re.findall(r'class="range"><span>(.*?)</span>.*?<span>(.*?)</span>', page) == [("-0.500", "0.500")] * 3
    assert page.count('class="card absent"') == 1 and page.count("uncalibrated") == 0 and "fitted on noise" in page
    own, _ = draw(tab, picture, queries=["dog", "cat", "grass"], scale="own")
    scales = np.array(re.findall(r'class="range"><span>(.*?)</span>.*?<span>(.*?)</span>', own), float)
    np.testing.assert_allclose(scales, [(each.min(), each.max()) for each in shown(own).values()], atol=6e-4)
    assert 'class="card absent"' not in own and badges(own) == badges(page)
    shared, _ = draw(tab, picture, queries=["dog", "cat", "grass"], scale="shared")
    every = np.concatenate([values.ravel() for values in shown(shared).values()])
    scales = np.array(re.findall(r'class="range"><span>(.*?)</span>.*?<span>(.*?)</span>', shared), float)
    np.testing.assert_allclose(scales, [(every.min(), every.max())] * 3, atol=6e-4)


def test_the_verdict_does_not_hang_on_how_maps_are_drawn(tab, picture, calibrated):
    plain = badges(draw(tab, picture, queries=["dog", "cat", "grass"])[0])
    for asked in (dict(features="1"), dict(features="final"), dict(mode="competing"), dict(templates="tips9")):
        assert badges(draw(tab, picture, queries=["dog", "cat", "grass"], **asked)[0]) == plain
    words = badges(draw(tab, picture, by="sentence", sentence="the dog, a cat and grass")[0])
    assert words == plain


def test_an_encoder_without_calibration_says_so(tab, picture):
    page, _ = draw(tab, picture, queries=["dog", "cat"])
    assert len(badges(page)) == 2 and page.count("<small>uncalibrated</small>") == 2 and "ranks alone" in page
    encoder = tab.studio.encoder()
    low, high = verdict.color_range(encoder, tab_values(tab, picture))
    assert re.findall(r'class="range"><span>(.*?)</span>', page) == [f"{low:.3f}"] * 2 and low < high
    low, high = verdict.color_range(encoder, encoder.encode_layers(picture, [1], 56)[1].patches)
    page, _ = draw(tab, picture, queries=["dog"], features="1")
    assert abs(float(re.search(r'class="range"><span>(.*?)</span>', page).group(1)) - low) < 2e-3


def test_programs_hear_the_verdict(tab, picture, calibrated):
    api, given = Endpoints(tab), dict(model=None, features="values", resolution=56, colormap="gray", opacity=1.0)
    given |= dict(mode="cosine", templates="none", temperature=0.05, request=Visitor())
    overlays, scores = api.heatmap(picture, ["dog", "cat", "grass"], **given)
    assert {each["query"]: each["verdict"] for each in scores} == dict(
        zip(calibrated.order, ("not here", "perhaps", "here"), strict=True)
    )
    for (painted, name), each in zip(overlays, scores, strict=True):
        assert each["query"] == name and 0 < each["likelihood"] < 1 and each["rival"]
        assert painted.max() == pytest.approx(255 * (each["peak"] + 0.5), abs=3)  # on the absolute scale
    overlays, _ = api.heatmap(picture, ["dog", "cat"], scale="own", **given)
    assert all(painted.max() > 250 for painted, _ in overlays)
    with pytest.raises(gr.Error, match="absolute, shared, own"):
        api.heatmap(picture, ["dog"], scale="none", **given)


def take(tab, image, opacity=0.5, **asked):
    question = Question(image, **(dict(resolution=56) | asked))
    return export.take(tab, *(getattr(question, each.name) for each in fields(Question)), opacity, request=Visitor())


def test_exports_hold_what_is_shown(tab, picture, other):
    assert take(tab, None) is None and take(tab, picture) is None
    taken = take(tab, picture, queries=["dog", "grass"], patch=(0, 0), other=other, threshold=0.6)
    maps = expected(tab, picture, ["dog", "grass"])
    np.testing.assert_allclose(taken.arrays["maps"], list(maps.values()), atol=1e-5)
    assert list(taken.pictures) == ["dog", "grass", "clicked patch", "second image"]
    for name, map_ in maps.items():
        np.testing.assert_array_equal(taken.masks[name], find_regions(map_, at_share(map_, 0.6), 0.002).mask)
    assert [each["query"] for each in taken.scores["scores"]] == ["dog", "grass"] and taken.model == "tiny"


@pytest.mark.parametrize(
    "asked",
    [
        dict(queries=["dog", 'a "red" car']),
        dict(
            queries=["dog"],
            mode="competing",
            distractors=[" cat ", "", "dog"],
            templates="own",
            own="a {}\nthe {}",
            features="2",
        ),
        dict(
            by="sentence", sentence=SENTENCE, cut=True, scale="shared", windows=True, resolution=112, features="final"
        ),
        dict(queries=["dog"], patch=(89, 59), other="other.png", cut=True, above="score", threshold=0.01),
    ],
)
def test_the_code_makes_the_picture(tab, picture, other, asked, tmp_path, monkeypatch):
    """The code that is shown, run, writes what the PNG button gives."""
    monkeypatch.chdir(tmp_path)
    Image.open(picture).save("image.png")
    taken = take(tab, picture, **asked)
    code = taken.python.replace("encoder = load(", "encoder = LOADED  # load(")
    exec(compile(code, "code", "exec"), {"LOADED": tab.studio.encoder()})
    with np.load("heatmap.npz") as arrays:
        np.testing.assert_allclose(arrays["maps"], taken.arrays["maps"], atol=3e-3)
    if not asked.get("cut"):
        for number, painted in enumerate(
            each for name, each in taken.pictures.items() if name in taken.arrays["names"]
        ):
            close = np.abs(np.asarray(Image.open(f"heatmap_{number}.png")).astype(int) - painted)
            assert close.mean() < 0.5
    if "patch" in asked:
        np.testing.assert_array_equal(np.asarray(Image.open("similar.png")), taken.pictures["clicked patch"])
        np.testing.assert_array_equal(np.asarray(Image.open("there.png")), taken.pictures["second image"])


def test_the_command_is_told_where_there_is_one(tab, picture):
    assert "python -m tipsv2 heatmap image.png dog" in take(tab, picture, queries=["dog"]).command
    for asked in (
        dict(features="1"),
        dict(windows=True),
        dict(by="sentence", sentence="dog"),
        dict(templates="own", own="{}"),
    ):
        assert take(tab, picture, **(dict(queries=["dog"]) | asked)).command == ""


def test_a_card_without_a_map_of_parts_tells_nothing_of_them():
    values = np.zeros((2, 2), np.float32)
    card = views.Card("a", values, Image.new("P", (2, 2)), 0, 0)
    page = views.maps(Image.new("RGB", (4, 4)), [card], Image.new("P", (256, 1)))
    assert 'class="patches"' in page and "covers" not in page and "near" not in page


# ---- in a browser


@pytest.fixture(scope="module")
def url(serving, tiny_folder):
    yield from serving(["ask"], tiny_folder)


def names(page):
    return page.locator(".tips-maps figcaption b")


def test_a_sentence_and_back(visit):
    from playwright.sync_api import expect

    page = visit()
    expect(names(page).first).to_be_visible()
    before = names(page).all_inner_texts()
    page.get_by_text("A sentence", exact=True).click()
    field = page.get_by_role("textbox", name="Sentence")
    expect(field).not_to_have_value("")  # the phrases, to begin with
    field.fill(SENTENCE)
    field.press("Enter")
    expect(names(page)).to_have_text(["red", "dog", "grass"])
    page.get_by_text("Words and phrases", exact=True).click()
    expect(names(page)).to_have_text(before)


def test_layers_distractors_and_a_word_that_is_near(visit):
    from playwright.sync_api import expect

    page = visit()
    expect(names(page).first).to_be_visible()
    picture = page.locator(".card .stage img").first
    before = picture.get_attribute("src")
    page.locator('.tips-settings input[aria-label="Layer"]').click()
    page.get_by_role("option", name="Layer 1 of 3").click()
    expect(picture).not_to_have_attribute("src", before)
    page.get_by_text("Competing", exact=True).click()
    expect(page.locator(".range span:last-child").first).to_have_text("1.000")
    top = page.locator(".value-mean").first
    alone = top.inner_text()
    page.get_by_label("Distractors").fill("snow")
    page.get_by_label("Distractors").press("Enter")
    expect(top).not_to_have_text(alone)
    page.locator(".card .stage").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(names(page).nth(1)).to_have_text("Nearest words")
    word = page.locator(".near button").first
    asked = word.get_attribute("data-word")
    word.click()
    expect(names(page).last).to_have_text(asked)


def test_the_drawer_on_a_phone(visit, other):
    from playwright.sync_api import expect

    page = visit(width=400)
    expect(names(page).first).to_be_visible()
    page.locator(".tips-image:visible .image-frame img").click(position={"x": 60, "y": 60})
    expect(page.locator(".near")).to_be_visible()
    page.get_by_role("button", name="More").click()
    page.get_by_label("Outline regions").check()
    expect(page.locator(".region").first).to_be_visible()
    expect(page.locator(".covers b").first).to_contain_text("%")
    page.locator(".tips-more .tips-image input[type=file]").set_input_files(other)
    expect(page.locator(".card.other .patch")).to_be_visible()
    page.get_by_text("Own", exact=True).click()
    own = page.get_by_label("Own templates")
    own.fill("a photo of a dog")
    own.blur()
    expect(page.locator(".toast-body")).to_contain_text("has no {}")
    page.get_by_label("Sliding windows").check()
    own.fill("the {}")
    own.blur()
    expect(page.locator(".tips-under .tips-note")).to_contain_text("window")
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


@pytest.mark.slow
def test_a_client_of_the_api(url, picture, other):
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    client, image = Client(url, verbose=False), handle_file(picture)
    _, scores = client.predict(image=image, sentence=SENTENCE, api_name="/word_maps")
    assert [each["query"] for each in scores] == ["red", "dog", "grass"]
    masks, told = client.predict(image=image, queries=["dog"], threshold=0.7, api_name="/regions")
    with Image.open(masks[0]["image"]) as mask:
        assert (mask.format, mask.size) == ("PNG", (90, 60)) and told[0]["parts"]
    overlays, told = client.predict(image=image, x=3, y=50, other=handle_file(other), api_name="/similar_patches")
    assert told["patch"] == [3, 0] and len(overlays) == 2 and len(told["other"]["best"]) == 2
    words = client.predict(image=image, x=3, y=50, vocabulary="dog,cat", features="2", api_name="/nearest_words")
    assert {each["word"] for each in words} == {"dog", "cat"}
    with pytest.raises(AppError, match="no layer 8"):
        client.predict(image=image, queries=["dog"], features="8", api_name="/heatmap")
