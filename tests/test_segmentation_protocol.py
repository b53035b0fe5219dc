"""The protocol against loops written from its description, the scores against scikit-learn and brute force."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.metrics import jaccard_score

from tipsv2.analysis.heatmap import mean_of_windows, patch_maps
from tipsv2.analysis.metrics import confusion_matrix, mean_iou
from tipsv2.analysis.segmentation import segment
from tipsv2.evaluation.segmentation.pictures import confusion_plot, iou_bars, triple, write
from tipsv2.evaluation.segmentation.protocol import Words, asked, guess, look
from tipsv2.evaluation.segmentation.scores import Tables, class_table, pack
from tipsv2.images import shortened
from tipsv2.network.dense import layer_features
from tipsv2.network.encoder import load
from tipsv2.network.view import View, windowed
from tipsv2.records import bootstrap


def picture(width, height, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def patches(encoder, crop):
    """A crop [3, H, W] -> value features at whole patches, unit length [h, w, D]."""
    height, width = (math.ceil(side / 14) * 14 for side in crop.shape[1:])
    if (height, width) != tuple(crop.shape[1:]):
        crop = F.interpolate(crop[None], (height, width), mode="bicubic", align_corners=False)[0]
    return F.normalize(encoder.encode_pixels(crop[None])["values"][0], dim=-1)


@pytest.mark.parametrize(("width", "height"), [(200, 90), (61, 150), (64, 64)])
def test_slide_equals_a_loop_written_from_the_protocol(tiny_encoder, width, height):
    image, size = picture(width, height), (height + 13, width - 9)
    words = Words.of(("a dog", "grass", "the sky", "snow", "a red car"))
    text = tiny_encoder.encode_text(words.rows)
    (features,) = look(tiny_encoder, [image], View(66, 56, 42, "bicubic"), ("values",))

    short = min(width, height)
    wide, high = (66 if side == short else math.floor(66 * side / short) for side in (width, height))
    pixels = np.asarray(image.resize((wide, high), Image.Resampling.BICUBIC), np.float32) / 255
    pixels = torch.from_numpy(pixels).permute(2, 0, 1)
    shares, seen = torch.zeros(len(text), high, wide), torch.zeros(high, wide)
    for i in range(max(high - 56 + 41, 0) // 42 + 1):
        for j in range(max(wide - 56 + 41, 0) // 42 + 1):
            bottom, right = min(i * 42 + 56, high), min(j * 42 + 56, wide)
            top, left = max(bottom - 56, 0), max(right - 56, 0)
            grid = patches(tiny_encoder, pixels[:, top:bottom, left:right])
            cosines = torch.einsum("cd,hwd->chw", text, grid)
            cosines = F.interpolate(cosines[None], (56, 56), mode="bilinear", align_corners=False)[0]
            shares[:, top:bottom, left:right] += torch.exp(cosines) / torch.exp(cosines).sum(dim=0)
            seen[top:bottom, left:right] += 1
    shares /= seen
    found = mean_of_windows(patch_maps(features, text), features.windows, softmax=True)
    assert (found - shares).abs().max() < 1e-5 < shares.std()
    expected = F.interpolate(shares[None], size, mode="bilinear", align_corners=False)[0].argmax(dim=0).numpy()
    found = guess(features, "values", text, words, size)
    assert len(np.unique(expected)) > 2 and (found == expected).mean() > 0.9995


@pytest.mark.parametrize("kind", ["values", "final", "layer:2"])
def test_whole_equals_a_loop_written_from_the_protocol(tiny_encoder, kind):
    image = picture(150, 100)
    words = Words.of(("a dog", "grass", "the sky"))
    text = tiny_encoder.encode_text(words.rows)
    (features,) = look(tiny_encoder, [image], View(60, resample="bicubic"), (kind,))
    found = guess(features, kind, text, words, (100, 150))
    pixels = torch.from_numpy(np.asarray(image.resize((90, 60), Image.Resampling.BICUBIC), np.float32) / 255)
    pixels = F.interpolate(pixels.permute(2, 0, 1)[None], (70, 98), mode="bicubic", align_corners=False)
    model = tiny_encoder.model.vision_model
    with torch.no_grad():
        if kind == "layer:2":
            hidden = model.encoder.layer[1](model.encoder.layer[0](model.embeddings(pixels)))
            grid = model.layernorm(hidden)[0, 2:].reshape(5, 7, -1)
        else:
            grid = tiny_encoder.encode_pixels(pixels)["patches" if kind == "final" else "values"][0]
    cosines = torch.einsum("cd,hwd->chw", text, F.normalize(grid, dim=-1))
    expected = F.interpolate(cosines[None], (100, 150), mode="bilinear", align_corners=False)[0].argmax(dim=0).numpy()
    assert (patch_maps(features, text, asked(kind)) - cosines).abs().max() < 1e-5
    assert len(np.unique(expected)) > 1 and (found == expected).mean() > 0.9995


@torch.no_grad()
def test_layers_see_the_pixels_as_they_are_in_bfloat16_too(tiny_folder):
    encoder, image = load(tiny_folder, device="cpu", dtype="bfloat16"), picture(100, 60)
    pixels = F.interpolate(shortened(image, 56)[None], (56, 98), mode="bicubic", align_corners=False)
    for kind, number in (("layer:2", 2), ("final", 3)):
        (features,) = look(encoder, [image], View(56, resample="bicubic"), (kind,))
        ((_, (_, _, grid, _)),) = layer_features(encoder.model.vision_model, pixels, [number])
        assert torch.equal(features.patches, grid[0].float())


def test_pictures_together_equal_pictures_alone(tiny_encoder):
    images = [picture(90, 60, 1), picture(60, 90, 2), picture(90, 60, 3), picture(61, 60, 4)]
    view, kinds = View(60, 56, 42, "bicubic"), ("values", "final")
    for image, together in zip(images, look(tiny_encoder, images, view, kinds), strict=True):
        (alone,) = look(tiny_encoder, [image], view, kinds)
        assert (alone.size, alone.windows) == (together.size, together.windows)
        for name in ("patches", "values"):
            assert torch.allclose(getattr(alone, name), getattr(together, name), atol=1e-5)


def test_short_side_and_odd_shapes():
    assert shortened(picture(683, 512), 448).shape == (3, 448, 597)  # the notebook prints these sizes of ADE20K's first
    assert shortened(picture(448, 500), 448).shape == (3, 500, 448)
    assert shortened(picture(3, 300), 20).shape == (3, 2000, 20)
    with pytest.raises(ValueError, match="resolution"):
        shortened(picture(9, 9), 0)


@pytest.mark.parametrize("windows", [False, True])
@pytest.mark.parametrize("kind", ["values", "final"])
def test_segment_gives_the_labels_of_the_evaluation(tiny_encoder, windows, kind):
    """The same view, the same labels: `python -m tipsv2 segment` and `evaluate segmentation` follow one protocol."""
    image, classes = picture(150, 101), ("a dog", "grass", "the sky", "snow")
    view = windowed(tiny_encoder, 70, "bicubic") if windows else View(70, resample="bicubic")
    text = tiny_encoder.encode_text(classes, "tips9")
    (features,) = look(tiny_encoder, [image], view, (kind,))
    expected = guess(features, kind, text, Words.of(classes), (101, 150))
    assert len(np.unique(expected)) > 1
    found = segment(tiny_encoder, image, classes, features=kind, resolution=70, windows=windows)
    np.testing.assert_array_equal(found.labels, expected)
    closer = segment(tiny_encoder, image, classes, features=kind, resolution=70, windows=windows, resample="bilinear")
    assert (closer.labels != expected).any()
    # a word for the background competes in both
    words = Words.of(("none", *classes), 0, ["a photo"])
    text = tiny_encoder.encode_text(words.rows, "tips9")
    expected = guess(features, kind, text, words, (101, 150)) - 1
    found = segment(tiny_encoder, image, classes, "tips9", kind, ["a photo"], 70, windows=windows)
    np.testing.assert_array_equal(found.labels, expected)


def test_only_some_classes_may_be_guessed(tiny_encoder):
    (features,) = look(tiny_encoder, [picture(90, 60)], View(56, resample="bicubic"), ("values",))
    words = Words.of(("none", "a dog", "grass", "sky"), 0, ["snow", "a car"])
    text = tiny_encoder.encode_text(words.rows)
    every = guess(features, "values", text, words, (60, 90))
    assert words.rows == ("a dog", "grass", "sky", "snow", "a car") and words.owners.tolist() == [1, 2, 3, 0, 0]
    assert set(np.unique(guess(features, "values", text, words, (60, 90), np.array([0, 3])))) <= {0, 3}
    maps = torch.einsum("cd,hwd->chw", text, F.normalize(features.values, dim=-1))
    best = F.interpolate(maps[None], (60, 90), mode="bilinear")[0].argmax(dim=0)
    assert np.array_equal(every, words.owners[best.numpy()])


@pytest.fixture(scope="module")
def maps():
    """Six images' truth (with -1) and guess, of 12 classes two of which never occur."""
    rng = np.random.default_rng(3)
    truth = rng.integers(-1, 10, (6, 20, 30))
    truth[2] = truth[2].clip(-1, 4)  # an image in which some classes are only guessed
    return truth, np.where(rng.random(truth.shape) < 0.5, truth.clip(0), rng.integers(0, 10, truth.shape))


@pytest.fixture(scope="module")
def tables(maps):
    packed = [pack(confusion_matrix(t, g, 12)) for t, g in zip(*maps, strict=True)]
    return Tables([f"image {number}" for number in range(6)], packed, 12)


def test_scores_equal_scikit_learn(maps, tables):
    truth, guessed = maps
    keep = truth >= 0
    assert tables.miou() == pytest.approx(jaccard_score(truth[keep], guessed[keep], average="macro"))
    assert tables.pixel_accuracy() == pytest.approx((truth[keep] == guessed[keep]).mean())
    each = jaccard_score(truth[keep], guessed[keep], average=None, labels=range(10))
    rows = class_table(tables.sum(), tuple("abcdefghijkl"))
    assert [rows[name]["iou"] for name in "abcdefghij"] == pytest.approx(each, abs=1e-4)
    assert rows["l"] == {"iou": None, "truth": 0.0, "guess": 0.0} and rows["a"]["truth"] == pytest.approx(
        (truth[keep] == 0).mean(), abs=1e-4
    )
    for own, t, g in zip(tables.of_images(), truth, guessed, strict=True):
        assert own == pytest.approx(jaccard_score(t[t >= 0], g[t >= 0], average="macro", labels=np.unique(t[t >= 0])))
    assert np.array_equal(tables.truth(), [np.bincount(t[t >= 0], minlength=12) for t in truth])


def test_interval_equals_resampling_whole_images(maps, tables):
    truth, guessed = maps

    def drawn(weights):
        chosen = np.repeat(np.arange(6), weights)
        return mean_iou(confusion_matrix(truth[chosen], guessed[chosen], 12))

    assert tables.interval() == pytest.approx(bootstrap(6, drawn, centred=True))
    low, high = tables.interval()
    assert low < tables.miou() < high
    better = Tables(tables.names, [pack(confusion_matrix(t, t.clip(0), 12)) for t in truth], 12)
    low, high = tables.difference(better)
    assert 0 < low < better.miou() - tables.miou() < high
    assert tables.difference(tables) == (0, 0)
    with pytest.raises(ValueError, match="different images"):
        tables.difference(Tables(["other"], [pack(tables.sum())], 12))


def test_plots_show_what_is_in_the_table(tables):
    few = confusion_plot(tables.sum(), tuple("abcdefghijkl"))
    assert few.axes[0].images[0].get_array().shape == (12, 12)
    names = tuple(f"class {number}" for number in range(40))
    table = np.zeros((40, 40), np.int64)
    table[3, 7], table[5, 5], table[9, 2] = 60, 30, 10
    bars = confusion_plot(table, names).axes[0]
    assert [label.get_text() for label in bars.get_yticklabels()] == [
        "class 9 taken for class 2 (100 % of it)",
        "class 3 taken for class 7 (100 % of it)",
    ]
    assert [patch.get_width() for patch in bars.patches] == [10, 60]
    bars = iou_bars(np.array([[1, 0, 4], [0, 0, 0], [0, 0, 6]]), ("a", "b", "c $x")).axes[0]
    assert [patch.get_width() for patch in bars.patches] == [0.2, 0.6]
    assert "mIoU 0.400" in bars.get_legend().get_texts()[0].get_text()
    bars = iou_bars(np.array([[1, 1, 2], [0, 0, 0], [0, 0, 6]]), ("a", "b", "c")).axes[0]
    assert [label.get_text() for label in bars.get_yticklabels()] == ["a", "c"] and "1 class " in bars.get_xlabel()


def test_worst_and_best_images(tmp_path, maps, tables):
    asked = []

    def show(index):
        asked.append(index)
        return np.zeros((20, 30, 3), np.uint8), maps[0][index], maps[1][index]

    (tmp_path / "worst_1_of_an_earlier_run.png").write_bytes(b"")
    write(tmp_path, tables, tuple("abcdefghijkl"), show)
    order = np.argsort(tables.of_images())
    assert asked == [*order[:4], *order[::-1][:4]]
    names = sorted(path.name for path in tmp_path.glob("worst_*"))
    assert len(names) == 4 and names[0] == f"worst_1_image_{order[0]}_{tables.of_images()[order[0]]:.3f}.png"


def test_a_large_picture_is_shown_small_with_its_labels():
    truth = np.zeros((500, 1000), np.int64)
    truth[:, 500:] = 3
    truth[:100] = -1
    shown = triple(np.full((500, 1000, 3), 255, np.uint8), truth, np.full_like(truth, 3), ("a", "b", "c", "d"))
    height, width = 167, 334
    assert shown.shape[0] >= height and shown.shape[1] > 3 * width
    middle = shown[:, width + 12 : 2 * width + 12]
    assert (middle[10, 10] == 255).all() and (middle[100, 10] != middle[100, 300]).any()
    assert (middle[100, 300] == shown[100, 2 * width + 24 + 10]).all()  # the guess has the truth's colour of "d"
