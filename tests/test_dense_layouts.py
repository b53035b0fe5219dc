"""NYU Depth v2 and NAVI: ten-image miniatures in the trees of their users, numbers worked out by hand, wrong trees."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from test_dpt import make_dpt

from tipsv2.analysis.depth import load_dpt
from tipsv2.evaluation.layouts import open_data
from tipsv2.evaluation.layouts.navi import normals_from_depth, read_depth
from tipsv2.evaluation.probing.dense import evaluate_task
from tipsv2.evaluation.segmentation import linear as segmentation_probe
from tipsv2.evaluation.tasks import depth, normals

SCENES = ("kitchen", "office")


def grey16(file, values) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint16)).save(file)


def photo(file, size=(480, 640)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(file)


@pytest.fixture
def nyu(tmp_path):
    """Ten pictures: six to test on, 1 m to 6 m away, four to train on. Outside the crop all is 9 m."""
    for number in range(10):
        part, scene = ("test", "train")[number >= 6], SCENES[number % 2]
        photo(tmp_path / part / scene / f"rgb_{number:05d}.jpg")
        values = np.full((480, 640), 9000)
        values[45:471, 41:601] = 1000 * (number % 6 + 1)
        values[45:471, 41:51] = 0  # unknown
        grey16(tmp_path / part / scene / f"sync_depth_{number:05d}.png", values)
    return tmp_path


@pytest.fixture
def nyu_normals(tmp_path):
    """Ten pictures that look at the camera, upwards (in a half) and nowhere (in the last row)."""
    for number in range(10):
        part = ("test", "train")[number >= 6]
        photo(tmp_path / part / f"{number:06d}_img.png", (20, 30))
        colors = np.full((20, 30, 3), (128, 128, 255), np.uint8)
        colors[:, 15:] = (128, 255, 128)
        colors[19] = 0
        Image.fromarray(colors).save(tmp_path / part / f"{number:06d}_normal.png")
    return tmp_path


@pytest.fixture
def navi(tmp_path):
    """Ten pictures of two objects: a wall 0.5 m to 1 m away, its last column unknown; six in wild sets."""
    for number in range(10):
        thing = ("3d_dollhouse_sink", "water_gun")[number % 2]
        scene = tmp_path / thing / ("wild_set" if number < 6 else "multiview_00_pixel_5")
        photo(scene / "images" / f"{number:03d}.jpg", (20, 30))
        values = np.full((20, 30), round(655350 / (500 + 100 * (number % 6))))
        values[:, 29] = 0
        grey16(scene / "depth" / f"{number:03d}.png", values)
        file = scene / "annotations.json"
        rows = json.loads(file.read_text()) if file.exists() else []
        rows.append({"filename": f"{number:03d}.jpg", "camera": {"focal_length": 25.0}, "image_size": [20, 30]})
        file.write_text(json.dumps(rows))
    return tmp_path


def constant(task, encoder, data, value):
    """The evaluation of one guess for every pixel."""

    def predict(image, side):
        return np.broadcast_to(np.float32(value), (image.height, image.width, *np.shape(value)))

    return evaluate_task(task, encoder, data, 28, None, None, False, "final", 1, None, predict)


def test_nyu_by_hand(nyu, tiny_encoder):
    for data in (f"nyu:{nyu}", str(nyu)):
        numbers = constant(depth.TASK, tiny_encoder, data, 4.0)
        assert numbers["images"] == 6 and numbers["part"] == "test"
        assert numbers["rmse"] == pytest.approx((3 + 2 + 1 + 0 + 1 + 2) / 6, abs=1e-4)
        assert numbers["abs_rel"] == pytest.approx((3 / 1 + 2 / 2 + 1 / 3 + 0 + 1 / 5 + 2 / 6) / 6, abs=1e-4)
        assert numbers["delta1"] == round(1 / 6, 4)  # 5 / 4 is 1.25, not less
    truth = open_data("depth", str(nyu)).samples[2].truth()
    assert np.isnan(truth[44]).all() and np.isnan(truth[:, 50]).all() and np.isfinite(truth[45:471, 51:601]).all()


def test_nyu_by_its_lists(nyu, tiny_encoder):
    lines = ["/kitchen/rgb_00002.jpg /kitchen/sync_depth_00002.png 518.8579", "", "office/rgb_00003.jpg None 518.8579"]
    (nyu / "nyu_test.txt").write_text("\n".join(lines))
    assert [s.name for s in open_data("depth", str(nyu)).samples] == ["test/kitchen/rgb_00002.jpg"]
    assert constant(depth.TASK, tiny_encoder, str(nyu), 4.0)["rmse"] == 1
    for line, words in (
        ("kitchen/rgb_9.jpg x.png 1", "line 1 names kitchen/rgb_9.jpg"),
        ("alone", "line 1 is 'alone'"),
    ):
        (nyu / "nyu_test.txt").write_text(line)
        with pytest.raises(ValueError, match=words):
            open_data("depth", str(nyu))


def test_nyu_normals_by_hand(nyu_normals, tiny_encoder):
    """Towards the camera is right for one half and 90 degrees off for the other (8 bits: half a degree)."""
    numbers = constant(normals.TASK, tiny_encoder, f"nyu-normals:{nyu_normals}", (0, 0, 1))
    assert numbers["images"] == 6 and numbers["mean"] == pytest.approx(45, abs=0.4)
    assert numbers["rmse"] == pytest.approx(90 / math.sqrt(2), abs=0.4) and numbers["under_11.25"] == 0.5
    sample = open_data("normals", str(nyu_normals)).samples[0]
    assert np.isnan(sample.truth()[19]).all() and np.isfinite(sample.truth()[:19]).all()
    colors = np.zeros((20, 30, 3), np.uint8)
    colors[:] = (255, 128, 128)  # to the left in this tree, so -x here
    Image.fromarray(colors).save(nyu_normals / "test" / "000000_normal.png")
    assert np.allclose(sample.truth()[0, 0], (-1, 0, 0), atol=0.01)


def test_a_dpt_head_with_the_axes_of_nyus_files_is_right_about_them(nyu_normals, tmp_path):
    """Its last layer says (0.6, 0, 0.8) whatever it sees, and so do all files."""
    model = make_dpt("Tipsv2DptForNormalEstimation")
    with torch.no_grad():
        model.decoder.head.weight.zero_()
        model.decoder.head.bias.copy_(torch.tensor([3.0, 0, 4]))
    model.save_pretrained(tmp_path / "model")
    for file in nyu_normals.glob("*/*_normal.png"):
        Image.new("RGB", (30, 20), (204, 128, 230)).save(file)
    given = dict(resolution=28, head="dpt", progress=False)
    dpt = load_dpt(tmp_path / "model", device="cpu")
    assert normals.evaluate(dpt, f"nyu-normals:{nyu_normals}", **given)["rmse"] == pytest.approx(0, abs=0.5)


def test_navi_by_hand(navi, tiny_encoder):
    numbers = constant(depth.TASK, tiny_encoder, f"navi:{navi}", 0.7)
    assert numbers["images"] == 6
    assert numbers["rmse"] == pytest.approx((0.2 + 0.1 + 0 + 0.1 + 0.2 + 0.3) / 6, abs=1e-3)
    assert numbers["delta1"] == 0.5  # 0.6, 0.7 and 0.8
    assert len(open_data("depth", str(navi), "train").samples) == 4
    facing = constant(normals.TASK, tiny_encoder, str(navi), (0, 0, 1))  # a wall seen straight on
    assert facing["rmse"] == pytest.approx(0, abs=0.1) and facing["under_11.25"] == 1
    truth = open_data("normals", str(navi)).samples[0].truth()
    known = np.isfinite(truth).all(axis=2)
    assert known.sum() == 18 * 27 and known[1:19, 1:28].all()  # not the border, nor beside the unknown column


def plane_depth(n, focal, size, away=1.0):
    """Depth of n . p = -away along the rays (x right, y up, z towards the camera), nan beyond the horizon."""
    height, width = size
    rows, columns = np.mgrid[:height, :width] + 0.5
    rays = np.stack([(columns - width / 2) / focal, (height / 2 - rows) / focal, np.full(rows.shape, -1.0)], 2)
    far = -away / (rays @ n)
    return np.where(far > 0, far, np.nan).astype(np.float32)


@pytest.mark.parametrize("plane", [(0, 0, 1), (0.6, 0, 0.8), (-0.3, 0.5, 0.81), (0, 0.95, 0.3)])
def test_normals_of_a_plane(plane):
    """Every normal of a plane is its own."""
    n = np.array(plane) / np.linalg.norm(plane)
    found = normals_from_depth(plane_depth(n, 60.0, (40, 50)), 60.0)
    known = np.isfinite(found).all(axis=2)
    assert known.sum() > 500 and normals.angles(np.where(known[..., None], n, np.nan), found).max() < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("plane", [(0.6, 0, 0.8), (-0.3, 0.5, 0.81)])
def test_normals_of_a_photographed_plane(plane, tmp_path):
    """Half a metre away in 16 bits, where neighbours mostly have the same number; every third pixel is Probe3D's."""
    n, focal = np.array(plane) / np.linalg.norm(plane), 1536.0
    grey16(tmp_path / "depth.png", np.round(655350 / (1000 * plane_depth(n, focal, (1536, 2046), 0.5 * n[2]))))
    far = read_depth(tmp_path / "depth.png")
    found = normals_from_depth(far, focal)
    known = np.isfinite(found).all(axis=2)
    assert known[3:-3, 3:-3].all() and not known[:3].any() and not known[:, -3:].any()
    assert normals.angles(np.where(known[..., None], n, np.nan), found).mean() < 4
    assert np.allclose(found[1::3, 1::3], normals_from_depth(far[1::3, 1::3], focal / 3), atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("task", [depth, normals])
def test_a_probe_on_navi(task, navi, tiny_encoder, tmp_path):
    settings = dict(resolution=28, epochs=2, progress=False, out=tmp_path / "out")
    numbers = task.evaluate(tiny_encoder, f"navi:{navi}", **settings)
    assert (numbers["images"], numbers["train_images"]) == (6, 4) and math.isfinite(numbers["rmse"])
    assert task.evaluate(tiny_encoder, f"navi:{navi}", **settings) == numbers


def test_images_without_a_known_pixel_are_left_out_and_said(nyu, tiny_encoder):
    grey16(nyu / "test" / "kitchen" / "sync_depth_00000.png", np.zeros((480, 640)))
    numbers = constant(depth.TASK, tiny_encoder, str(nyu), 4.0)
    assert (numbers["images"], numbers["left_out"]) == (5, 1)
    assert numbers["rmse"] == pytest.approx((2 + 1 + 0 + 1 + 2) / 5, abs=1e-4)
    for file in nyu.glob("*/*/sync_*"):
        grey16(file, np.full((480, 640), 20_000))  # beyond ten metres
    with pytest.raises(ValueError, match="None of the 6 images .* has a known pixel"):
        constant(depth.TASK, tiny_encoder, str(nyu), 4.0)
    with pytest.raises(ValueError, match="None of the 4 training images has a known pixel"):
        depth.evaluate(tiny_encoder, str(nyu), resolution=28, epochs=1, progress=False)


def test_what_was_judged_before_a_missing_file_is_kept(nyu, tiny_encoder, tmp_path, monkeypatch):
    monkeypatch.setattr("tipsv2.evaluation.probing.dense.BATCH_SIZE", 2)
    lost = nyu / "test" / "office" / "sync_depth_00005.png"
    kept = lost.rename(tmp_path / "kept.png")
    asked = []

    def run(task):
        def predict(image, side):
            asked.append(image)
            return np.full((480, 640), 4.0, np.float32)

        given = (28, None, tmp_path / "out", False, "final", 1, None, predict)
        return evaluate_task(task, tiny_encoder, f"nyu:{nyu}", *given)

    with pytest.raises(ValueError, match="sync_depth_00005.png' is missing"):
        run(depth.TASK)
    assert len(asked) == 4
    kept.rename(lost)
    unpainted = replace(depth.TASK, pictures=lambda *_: None)
    assert run(unpainted)["images"] == 6 and len(asked) == 6


def test_wrong_trees_are_told(nyu, navi, tmp_path, tiny_encoder):
    with pytest.raises(ValueError) as error:
        open_data("depth", f"nyu:{tmp_path / 'water_gun'}")
    assert "lacks test, which NYU Depth v2 has" in str(error.value) and "sync_depth_00000.png" in str(error.value)
    with pytest.raises(ValueError, match="navi has no segmentation"):
        open_data("segmentation", f"navi:{navi}")
    with pytest.raises(ValueError, match="no part 'val': choose train or test"):
        open_data("depth", f"nyu:{nyu}", "val")
    (tmp_path / "water_gun" / "wild_set" / "annotations.json").write_text('[{"filename": 3}]')
    with pytest.raises(ValueError, match="annotations.json' is no list of NAVI's annotations"):
        open_data("depth", f"navi:{navi}")
    (tmp_path / "water_gun" / "wild_set" / "annotations.json").unlink()
    with pytest.raises(ValueError, match="annotations.json' is missing"):
        open_data("depth", f"navi:{navi}")
    empty = tmp_path / "empty"
    (empty / "test").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"holds no sample of NYU Depth v2 \(test\): the split is empty"):
        open_data("depth", f"nyu:{empty}")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((48, 64), np.uint16), "is 64 x 48 pixels, where NYU's depth is 640 x 480"),
        (np.tile(np.uint8([1, 2, 3]), (480, 640, 1)), "is a picture in colours"),
    ],
)
def test_depth_that_is_none(nyu, values, words):
    file = nyu / "test" / "kitchen" / "sync_depth_00000.png"
    Image.fromarray(values).save(file)
    with pytest.raises(ValueError, match=words):
        open_data("depth", str(nyu)).samples[0].truth()
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(ValueError, match="sync_depth_00000.png' cannot be used: .*damaged"):
        open_data("depth", str(nyu)).samples[0].truth()


def test_truth_of_another_size_is_told(navi, tiny_encoder):
    grey16(navi / "3d_dollhouse_sink" / "wild_set" / "depth" / "000.png", np.full((30, 20), 1000))
    with pytest.raises(ValueError, match="wild_set/images/000.jpg' is 30 x 20 pixels, but its truth is 20 x 30"):
        constant(depth.TASK, tiny_encoder, str(navi), 0.7)


def test_a_segmentation_probe_on_ade20k(tmp_path, tiny_encoder):
    """Two colours are two classes, which any encoder tells apart; what the label files leave out is not judged."""
    rng = np.random.default_rng(0)
    for folder, count in (("training", 6), ("validation", 4)):
        for kind in ("images", "annotations"):
            (tmp_path / kind / folder).mkdir(parents=True)
        for number in range(count):
            labels = np.full((56, 56), 3 if number % 2 else 17, np.uint8)
            labels[:, 28:] = 17 if number % 2 else 3
            colors = np.where((labels == 3)[..., None], (200, 40, 40), (30, 60, 220)) + rng.integers(0, 20, (56, 56, 3))
            labels[:, :14] = 0
            Image.fromarray(colors.astype(np.uint8)).save(tmp_path / "images" / folder / f"{number}.jpg")
            Image.fromarray(labels).save(tmp_path / "annotations" / folder / f"{number}.png")
    numbers = segmentation_probe.evaluate(tiny_encoder, f"ade20k:{tmp_path}", epochs=100, progress=False)
    assert (numbers["images"], numbers["train_images"], numbers["part"]) == (4, 6, "val")
    assert (
        numbers["pixel_accuracy"] > 0.95
        and min(numbers["per_class"][name]["iou"] for name in ("sky", "mountain")) > 0.9
    )
