"""tipsv2.analysis.alignment and the compare command: scores against loops and scipy, and what the sentence may claim.

python -m pytest tests/test_alignment.py
"""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import make_model
from PIL import Image
from scipy.stats import pearsonr, rankdata, zscore
from sklearn.metrics import roc_auc_score

from tipsv2.__main__ import main
from tipsv2.analysis.alignment import MapScore, compare, compare_maps, sentence, standardise
from tipsv2.analysis.heatmap import heatmap, patch_maps
from tipsv2.evaluation.side_by_side import draw
from tipsv2.network.encoder import load
from tipsv2.network.view import View

ROOT = Path(__file__).parent.parent


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 84, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def other_encoder(tiny_folder, tmp_path_factory):
    """Of another depth, patch size and training resolution than the tiny one."""
    folder = tmp_path_factory.mktemp("models") / "other"
    model = make_model(len(load(tiny_folder, "cpu", "float32").tokenizer), seed=1)
    config = model.config
    config.vision_config.num_hidden_layers, config.vision_config.patch_size = 4, 16
    config.vision_config.image_size = 96
    type(model)(config).save_pretrained(folder)
    for file in tiny_folder.glob("*token*"):
        (folder / file.name).write_bytes(file.read_bytes())
    return load(folder, device="cpu", dtype="float32")


def maps_and_masks(seed=0, count=3, shape=(20, 30)):
    random = np.random.default_rng(seed)
    a, b = random.normal(0.1, 0.02, (2, count, *shape)).astype(np.float32)
    masks = random.random((count, *shape)) > 0.8
    return a, b * 5, masks


def scored(**values):
    """MapScores by query: a number is its AUROC, None has no mask, a tuple of one number is its sharpness."""
    rows = [MapScore(query, 0, 0, 0, 0, None) for query in values]
    return [
        replace(row, sharpness=value[0]) if isinstance(value, tuple) else replace(row, auroc=value)
        for row, value in zip(rows, values.values(), strict=True)
    ]


# Scales and scores


def test_scales_equal_scipy():
    maps = maps_and_masks()[0].round(2)  # with ties
    flat = maps.reshape(3, -1)
    assert np.allclose(standardise(maps).reshape(3, -1), zscore(flat.astype(np.float64), axis=1), atol=1e-5)
    ranks = (rankdata(flat, axis=1) - 0.5) / flat.shape[1]
    assert np.allclose(standardise(maps, "rank").reshape(3, -1), ranks, atol=1e-6)
    assert np.array_equal(standardise(maps, "cosine"), maps)
    assert not standardise(np.full((1, 4, 4), 0.3)).any()  # a flat map, its rounding not blown up
    with pytest.raises(ValueError, match="Unknown scale 'x'"):
        standardise(maps, "x")


def test_the_difference_does_not_see_an_encoders_range():
    a, b, _ = maps_and_masks()
    queries = ["x", "y", "z"]
    found = compare_maps(a, b, queries)
    assert (
        np.allclose(found.difference, standardise(b) - standardise(a), atol=1e-6) and found.difference.shape == a.shape
    )
    assert np.abs(compare_maps(a, a * 7 - 0.5, queries).difference).max() < 1e-3
    assert np.abs(compare_maps(a, np.exp(20 * a), queries, scale="rank").difference).max() < 1e-3
    assert np.array_equal(compare_maps(a, b, queries, scale="cosine").difference, b - a)
    assert np.array_equal(compare_maps(b, a, queries).difference, -found.difference)


def test_scores_equal_loops():
    a, b, masks = maps_and_masks()
    found = compare_maps(a, b, ["x", "y", "z"], masks=[masks[0], None, masks[2]], tolerance=1)
    for maps, scores in zip((a, b), found.scores, strict=True):
        for query, row in enumerate(scores):
            values = maps[query].astype(np.float64)
            peak = max((values[y, x], -y, -x) for y in range(20) for x in range(30))
            assert (row.peak, row.y, row.x) == (pytest.approx(peak[0]), -peak[1], -peak[2])
            sd = values.std()
            assert row.sharpness == pytest.approx((peak[0] - values.mean()) / sd, abs=1e-4)
            rivals = [maps[other][row.y, row.x] for other in range(3) if other != query]
            assert row.margin == pytest.approx((peak[0] - max(rivals)) / sd, abs=1e-4)
            if query == 1:
                assert row.inside is row.pointing is row.auroc is row.iou is None
                continue
            mask = masks[query]
            assert row.inside == pytest.approx((values[mask].mean() - values[~mask].mean()) / sd, abs=1e-4)
            assert row.auroc == pytest.approx(roc_auc_score(mask.ravel(), values.ravel()))
            assert row.pointing is any(
                mask[y, x] for y in range(20) for x in range(30) if np.hypot(y - row.y, x - row.x) <= 1
            )
            ious = [(mask & (values >= t)).sum() / (mask | (values >= t)).sum() for t in np.unique(values)]
            assert row.iou == pytest.approx(max(ious))
    for query in range(3):
        expected = pearsonr(a[query].ravel(), b[query].ravel()).statistic
        assert found.agreement[query] == pytest.approx(expected, abs=1e-5)


def test_one_query_has_no_margin():
    a, b, _ = maps_and_masks(count=1)
    assert compare_maps(a, b, ["x"]).scores[0][0].margin is None


def test_the_same_name_twice_is_told_apart():
    a, b, _ = maps_and_masks()
    assert compare_maps(a, b, "xyz", ("run", "run")).names == ("run (A)", "run (B)")
    assert compare_maps(a, b, "xyz", ("run", "nano")).names == ("run", "nano")


def test_two_encoders_of_other_grids_and_resolutions(tiny_encoder, other_encoder, picture):
    mask = np.zeros((60, 84), bool)
    mask[10:30, 20:60] = True
    found = compare(tiny_encoder, other_encoder, picture, ["dog", "sky"], [mask, None], "final", "tips9", (42, None))
    assert found.maps.shape == (2, 2, 60, 84) and found.difference.dtype == np.float32
    assert np.allclose(found.maps[0], heatmap(tiny_encoder, picture, ["dog", "sky"], "cosine", "final", "tips9", 42))
    assert np.allclose(found.maps[1], heatmap(other_encoder, picture, ["dog", "sky"], "cosine", "final", "tips9"))
    assert found.names == (tiny_encoder.info.name, other_encoder.info.name) == ("tiny", "other")
    assert found.scores[1][0].auroc == pytest.approx(roc_auc_score(mask.ravel(), found.maps[1, 0].ravel()))
    assert "'dog', the only query with a mask" in found.sentence


def test_what_does_not_fit_is_said():
    a, b, masks = maps_and_masks()
    for wrong, message in (
        ((masks[:2]), "2 masks for 3 queries"),
        (masks.astype(int), "Mask 1 must be bool"),
        ([None, masks[0].T, None], "Mask 2 must be bool"),
        ([np.zeros((20, 30), bool), None, None], "Mask 1 marks no pixel"),
        ([np.ones((20, 30), bool), None, None], "Mask 1 marks every pixel"),
    ):
        with pytest.raises(ValueError, match=message):
            compare_maps(a, b, "xyz", masks=wrong)
    with pytest.raises(ValueError, match="same pixels"):
        compare_maps(a, b[:, :10], "xyz")
    for bad in (a[:2], a[0], np.where(a > 0.1, np.nan, a)):
        with pytest.raises(ValueError, match="Maps must be finite"):
            compare_maps(bad, b, "xyz")


# The sentence


def test_better_takes_a_mask():
    found = sentence(("A", "B"), (scored(dog=0.7, cat=0.8, sky=0.84), scored(dog=0.9, cat=0.91, sky=0.92)), [0, 0, 0])
    assert found == "B aligns better here: mean AUROC 0.91 against 0.78 over 3 queries."
    swapped = sentence(("B", "A"), (scored(dog=0.9, cat=0.91, sky=0.92), scored(dog=0.7, cat=0.8, sky=0.84)), [0, 0, 0])
    assert swapped == found
    one = sentence(("A", "B"), (scored(dog=0.8), scored(dog=0.7)), [0])
    assert one == "A aligns better here: AUROC 0.80 against 0.70 for 'dog'."


def test_without_a_mask_it_is_sharper_not_better():
    found = sentence(("A", "B"), (scored(dog=(4.0,), cat=(3.0,)), scored(dog=(2.0,), cat=(2.5,))), [0.9, 0.5])
    assert found == (
        "A is sharper here: mean peak height (in standard deviations) 3.5 against 2.2 over 2 queries; no mask was "
        "given, so sharper need not mean better (the two sides' maps correlate 0.70)."
    )
    assert "Neither is clearly sharper" in sentence(("A", "B"), (scored(dog=(4.0,)), scored(dog=(4.05,))), [1])


def test_only_queries_with_a_mask_are_judged():
    a, b = scored(dog=0.9, cat=0.8, sky=None), scored(dog=0.7, cat=0.7, sky=None)
    assert "0.85 against 0.70 over the 2 queries of 3 with a mask." in sentence(("A", "B"), (a, b), [0, 0, 0])
    assert "for 'dog', the only query with a mask." in sentence(("A", "B"), (a[::2], b[::2]), [0, 0])


def test_ties_and_disagreement_are_said():
    tie = sentence(("A", "B"), (scored(dog=0.9, cat=0.8), scored(dog=0.905, cat=0.803)), [0, 0])
    assert tie == "Neither aligns clearly better here: mean AUROC A 0.85, B 0.85 over 2 queries."
    cancelled = sentence(("A", "B"), (scored(dog=0.9, cat=0.7), scored(dog=0.7, cat=0.9)), [0, 0])
    assert cancelled.endswith("over 2 queries (A leads on 'dog' and B leads on 'cat').")
    mostly = sentence(("A", "B"), (scored(dog=0.9, cat=0.9, sky=0.6), scored(dog=0.7, cat=0.7, sky=0.7)), [0, 0, 0])
    assert mostly == "A aligns better here: mean AUROC 0.80 against 0.70 over 3 queries, though not on 'sky'."
    split = sentence(("A", "B"), (scored(dog=0.9, cat=0.7), scored(dog=0.6, cat=0.8)), [0, 0])
    assert split == "The queries disagree: A leads with mean AUROC 0.80 against 0.70 over 2 queries, but B on 'cat'."
    outvoted = sentence(("A", "B"), (scored(p=0.9, q=0.7, r=0.7), scored(p=0.5, q=0.8, r=0.75)), [0, 0, 0])
    assert outvoted.startswith("The queries disagree: A leads") and outvoted.endswith("but B on 'q', 'r'.")
    five = [dict.fromkeys("abcde", 0.7), dict.fromkeys("abcde", 0.8)]
    many = sentence(("A", "B"), (scored(f=1.0, g=1.0, **five[0]), scored(f=0.1, g=0.1, **five[1])), [0] * 7)
    assert many.endswith("over 7 queries, but B on 'a', 'b', 'c' and 2 more.")


def test_chance_is_not_praised():
    found = sentence(("A", "B"), (scored(dog=0.4), scored(dog=0.55)), [0])
    assert found.startswith("B aligns better") and found.endswith("neither is far above chance, which is 0.50.")


# The picture and the command


@pytest.mark.slow
def test_drawing_marks_peaks_and_shows_every_query(picture):
    a, b, masks = maps_and_masks(shape=(60, 84))
    image = np.asarray(picture)
    one = draw(image, compare_maps(a[:1], b[:1], ["$x_1$ & <b>"], masks=masks[:1]))
    three = draw(image, compare_maps(a, b, ["x", "y", "z"], masks=masks))
    assert one.dtype == three.dtype == np.uint8 and one.ndim == 3 and one.shape[2] == 3
    assert three.shape[0] > 1.8 * one.shape[0] and 900 < one.shape[1] < 1200
    assert np.array_equal(one, draw(image, compare_maps(a[:1], b[:1], ["$x_1$ & <b>"], masks=masks[:1])))


def test_the_difference_is_drawn_red_where_b_responds_more():
    gray = np.full((40, 40, 3), 255, np.uint8)
    a, b = np.zeros((2, 1, 40, 40), np.float32)
    a[0, :, :20] = b[0, :, 20:] = 1  # A to the left, B to the right
    found = draw(gray, compare_maps(a, b, ["x"])).astype(int)
    redness = found[..., 0] - found[..., 2]
    third = redness[redness.shape[0] // 2, 2 * redness.shape[1] // 3 :]
    blue, red = np.flatnonzero(third < -40), np.flatnonzero(third > 40)
    assert len(blue) > 50 and len(red) > 50 and np.median(blue) < np.median(red)


@pytest.mark.slow
def test_compare_writes_a_picture_and_says_the_sentence(tiny_folder, tiny_encoder, picture, tmp_path, capsys):
    picture.save(tmp_path / "noise.png")
    mask = np.zeros((60, 84), bool)
    mask[:30] = True
    Image.fromarray(mask).save(tmp_path / "mask.png")
    out = tmp_path / "deep" / "compare.png"
    options = ["--models", f"{tiny_folder},{tiny_folder}", "--queries", "dog, a cat", "--device", "cpu"]
    options += ["--dtype", "float32", "--resolution", "42", "--features", "final", "--templates", "tips9"]
    masks = ["--masks", f"{tmp_path / 'mask.png'},none"]
    assert main(["compare", str(tmp_path / "noise.png"), *options, *masks, "--scale", "rank", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    expected = heatmap(tiny_encoder, picture, ["dog", "a cat"], "cosine", "final", "tips9", 42)
    area = roc_auc_score(mask.ravel(), expected[0].ravel())
    seen = tiny_encoder.look(picture, View(42))
    peak = patch_maps(seen, tiny_encoder.encode_text(["a cat"], "tips9"), "final").max()
    assert f"peak {peak:.3f}" in printed and printed.count(f"AUROC {area:.3f}, IoU") == 2
    assert "Neither aligns clearly better here: AUROC tiny (A)" in printed and f"written to {out}" in printed
    assert Image.open(out).width > 900
    assert main(["compare", str(tmp_path / "noise.png"), *options, *masks, "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    dog, cat = told["queries"]
    assert dog["query"] == "dog" and dog["A"] == dog["B"] and dog["A"]["auroc"] == pytest.approx(area, abs=1e-6)
    assert cat["B"]["peak"] == pytest.approx(float(peak), abs=1e-5) and cat["B"]["auroc"] is None
    assert told["models"] == {"A": "tiny (A)", "B": "tiny (B)"} and told["scale"] == "z"
    assert told["sentence"] in printed


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (dict(models="opentips-nano"), "two encoders"),
        (dict(models="a,b,c"), "two encoders"),
        (dict(out="here.gz"), "--out is a picture"),
        (dict(image="nowhere.png"), "There is no file 'nowhere.png'"),
        (dict(masks="gone.png"), "There is no file 'gone.png'"),
        (dict(queries=" , "), "at least one phrase"),
        (dict(masks="none,none"), "2 masks for 1 queries"),
        (dict(limit="3"), "--limit belongs to --data"),
        (dict(protocol="whole"), "--protocol belongs to --data"),
        (dict(background="0.1"), "--background belongs to --data"),
    ],
)
def test_compare_refuses_in_a_sentence(tiny_folder, picture, tmp_path, capsys, changed, message):
    picture.save(tmp_path / "noise.png")
    given = dict(
        image=str(tmp_path / "noise.png"), models=f"{tiny_folder},{tiny_folder}", queries="dog", **{"out": "x.png"}
    )
    given |= changed
    image = given.pop("image")
    assert main(["compare", image, "--device", "cpu", *(part for k, v in given.items() for part in (f"--{k}", v))]) == 2
    assert message in capsys.readouterr().err


def test_the_command_line_starts_light():
    code = "import sys, tipsv2.__main__ as m; m.build_parser(); assert not {'torch', 'matplotlib'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
