"""What a run's heatmaps are of: the user's own images, the same every time, or scenes that no run learns."""

import numpy as np
import photos
import pytest

from tipsv2 import scenes
from train.data.samples import CaptionedImages, DrawnScenes
from train.recipe import recipes
from train.recipe.overrides import override
from train.run.monitor import MONITOR_SEED
from train.run.shown import IMAGES, LARGEST, queries_of, shown_images


def own(path):
    return CaptionedImages(override(recipes.get("smoke"), [f"data.source={path}"]), 0, 1)


@pytest.mark.parametrize(
    "caption, queries",
    [
        ("a red circle", ["a red circle"]),
        ("eine alte Mühle", ["eine alte Mühle"]),
        ("睡在草地上的狗", ["睡在草地上的狗"]),
        ("a brown dog asleep on the green grass", ["brown dog asleep", "green grass"]),
        ("one and two and three and four and five", ["two", "three", "four", "five"]),
        ("mug, plate, fork, knife, spoon", ["mug", "plate", "fork", "knife"]),
        ("!!! ??? !!! ???", ["!!! ??? !!! ???"]),
    ],
)
def test_a_short_caption_is_the_query_and_a_long_one_gives_phrases(caption, queries):
    assert queries_of(caption) == queries


@pytest.mark.parametrize("kind", ["folder", "tars"])
def test_the_first_usable_images_are_shown(tmp_path, kind):
    """An empty picture and an empty caption are passed over, and the next two take their places."""
    if kind == "folder":
        path = photos.folder(tmp_path / "x", 9)
        (path / "001.png").write_bytes(b"")
        (path / "002.txt").write_text(" ")
    else:
        path = tmp_path / "x"
        spoilt = {1: {"png": b""}, 2: {"txt": b" ", "json": b"{}"}}
        photos.tar(path / "0.tar", range(9), lambda number, files: files | spoilt.get(number, {}))
    for _ in range(2):
        found = shown_images(own(path), 56, MONITOR_SEED)
        assert [photos.number_of(each.image) for each in found] == [0, 3, 4, 5]
        assert [each.queries for each in found] == [[f"picture number {number}"] for number in (0, 3, 4, 5)]


def test_where_no_image_can_be_used_none_is_shown_and_large_ones_are_kept_small(tmp_path):
    path = photos.folder(tmp_path / "x", 8)
    photos.picture(7, size=(1200, 300)).save(path / "003.png")
    sizes = [each.image.size for each in shown_images(own(path), 56, MONITOR_SEED)]
    assert sizes == [(40, 30)] * 3 + [(LARGEST, LARGEST // 4)]
    for file in path.glob("*.png"):
        file.write_bytes(b"")
    assert shown_images(own(path), 56, MONITOR_SEED) == []


def test_scenes_are_the_monitors_and_asked_for_what_shows():
    found = shown_images(DrawnScenes(recipes.get("smoke"), 0, 1), 70, MONITOR_SEED)
    assert len(found) == IMAGES
    for number, each in enumerate(found):
        scene = scenes.draw(MONITOR_SEED + number, 70)
        assert np.array_equal(each.image, scene.image)
        present = {scenes.names()[label] for label in np.unique(scene.labels)}
        assert set(each.queries) <= present and len(each.queries) == min(4, len(present))
