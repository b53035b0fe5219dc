"""Scenes: determinism, labels that agree with the picture, captions that agree with the objects, fixed splits."""

import json
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tipsv2 import scenes
from tipsv2.scenes import backgrounds, captions
from tipsv2.scenes.scene import _stamp


def test_a_seed_is_a_scene():
    first, again, other = scenes.draw(7, 112), scenes.draw(7, 112), scenes.draw(8, 112)
    assert np.array_equal(first.image, again.image) and np.array_equal(first.labels, again.labels)
    assert first.captions == again.captions
    assert not np.array_equal(first.image, other.image)


def test_shapes_and_ranges():
    scene = scenes.draw(3, 140)
    assert scene.image.shape == (140, 140, 3) and scene.image.dtype == np.uint8
    assert scene.labels.shape == (140, 140) and scene.labels.max() < len(scenes.names())
    assert set(scene.captions) == {"web", "short", "detailed"} and 1 <= len(scene.objects) <= 5


def test_size_changes_the_sampling_not_the_composition():
    for seed in range(5):
        small, large = scenes.draw(seed, 112), scenes.draw(seed, 224)
        assert [o.noun for o in small.objects] == [o.noun for o in large.objects]
        assert (small.labels == large.labels[::2, ::2]).mean() > 0.95
        shrunk = np.asarray(Image.fromarray(large.image).resize((112, 112), Image.Resampling.BOX), np.float32)
        assert np.abs(shrunk - small.image).mean() < 14


def test_labels_follow_the_sprites():
    """Where a lone object is labelled the picture differs from its background; elsewhere only shadow falls."""
    for seed in range(60):
        scene = scenes.draw(seed, 224)
        if len(scene.objects) == 1:
            break
    plain, labels = backgrounds.background(random.Random(seed), 224)
    thing = scene.labels >= len(scenes.STUFF)
    assert scene.labels[thing].tolist() == [len(scenes.STUFF) + scene.objects[0].noun] * int(thing.sum())
    assert np.array_equal(scene.labels[~thing], labels[~thing])
    changed = np.abs(scene.image - np.clip(plain, 0, 255)).max(-1) > 2
    assert changed[thing].mean() > 0.9
    brighter = (scene.image.astype(int) - np.clip(plain, 0, 255)).min(-1) > 3
    assert brighter[~thing].mean() < 0.02  # outside, only shadows: nothing gets brighter but soft edges


def test_flip_mirrors_and_rotation_turns():
    upright = _stamp("noto", 0, 0, 64, 0.0, False)
    assert np.abs(_stamp("noto", 0, 0, 64, 0.0, True) - upright[:, ::-1]).mean() < 2
    half_turn = _stamp("noto", 0, 0, 64, np.pi, False)
    size = min(len(upright), len(half_turn))
    assert np.abs(half_turn[:size, :size] - upright[::-1, ::-1][:size, :size]).mean() < 6


def test_captions_name_what_shows():
    nouns = scenes.nouns()
    for seed in range(40):
        scene = scenes.draw(seed, 112)
        said = [nouns[o.noun] for o in scene.objects if o.visible >= 0.35]
        for role in ("short", "detailed"):
            for noun in said:
                assert noun.name in scene.captions[role] or noun.plural in scene.captions[role]
        assert len(scene.captions["detailed"].split()) < 90


def test_short_caption_counts_and_agrees():
    nouns = scenes.nouns()
    dog = next(i for i, n in enumerate(nouns) if n.name == "dog")
    owl = next(i for i, n in enumerate(nouns) if n.name == "owl")
    objects = [
        captions.Object(k, "noto", (0.5, 0.5), side, 1.0, "grass") for k, side in ((dog, 0.3), (dog, 0.3), (owl, 0.2))
    ]
    texts = {captions.short(random.Random(s), nouns, objects, ("sky", "grass")) for s in range(20)}
    said = "two dogs and an owl"
    assert texts == {said, f"{said} on the grass", f"{said} on the grass with sky behind"}


def test_web_captions_are_short_and_sometimes_useless():
    nouns = scenes.nouns()
    objects = [captions.Object(0, "noto", (0.5, 0.5), 0.5, 1.0, "grass")]
    texts = [captions.web(random.Random(s), nouns, objects, ("grass",)) for s in range(500)]
    silent = [
        t for t in texts if nouns[0].name not in t and "grass" not in t and not any(k in t for k in nouns[0].keywords)
    ]
    assert 0 < len(silent) < 30 and max(len(t.split()) for t in texts) < 14


def test_splits_are_fixed_and_apart():
    val, style = scenes.split("val", 56), scenes.split("style", 56)
    assert len(val) == len(style) == 500
    assert {o.style for i in range(20) for o in val[i].objects} <= set(scenes.SEEN_STYLES)
    assert {o.style for i in range(20) for o in style[i].objects} == {scenes.UNSEEN_STYLE}
    assert np.array_equal(val[3].image, scenes.draw(10**12 + 3, 56).image)
    with pytest.raises(IndexError):
        val[500]
    with pytest.raises(ValueError, match="scenes:val"):
        scenes.split("test")


def test_bad_size_is_a_sentence():
    with pytest.raises(ValueError, match="14 to 1024"):
        scenes.draw(0, 5000)


def test_shards_hold_picture_captions_and_mask(tmp_path, monkeypatch):
    from train.data.shards import write_shards

    (path,) = write_shards(tmp_path / "out", count=3, size=56, seed=5, show=False)
    with tarfile.open(path) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}
    assert sorted(files) == [f"{s:012d}.{kind}" for s in (5, 6, 7) for kind in ("jpg", "json", "png")]
    about = json.loads(files["000000000006.json"])
    (tmp_path / "m.png").write_bytes(files["000000000006.png"])
    scene = scenes.draw(6, 56)
    assert {k: about[k] for k in scene.captions} == scene.captions
    assert np.array_equal(np.asarray(Image.open(tmp_path / "m.png")), scene.labels)
    before = path.stat().st_mtime_ns
    write_shards(tmp_path / "out", count=3, size=56, seed=5, show=False)
    assert path.stat().st_mtime_ns == before  # an interrupted command goes on, it does not start over
    monkeypatch.setattr("train.data.shards.PER_SHARD", 3)
    assert len(write_shards(tmp_path / "out", count=5, size=56, seed=5, show=False)) == 2  # whole ones are followed
    with pytest.raises(ValueError, match=r"another kind \(count=5\)"):
        write_shards(tmp_path / "out", count=7, size=56, seed=5, show=False)
    write_shards(tmp_path / "out", count=5, size=56, seed=5, show=False)
    with pytest.raises(ValueError, match=r"holds scenes of another kind \(count=5, size=56\); choose another --out"):
        write_shards(tmp_path / "out", count=4, size=70, seed=5, show=False)
    (tmp_path / "out" / "scenes.json").unlink()
    with pytest.raises(ValueError, match=r"holds shards, and no scenes.json says of what"):
        write_shards(tmp_path / "out", count=3, size=56, seed=5, show=False)


def test_examples_are_scenes_anyone_can_draw_again():
    folder = Path(__file__).resolve().parents[1] / "assets" / "examples"
    entries = [entry for entry in json.loads((folder / "examples.json").read_text()) if entry["for"] == "drawings"]
    assert len(entries) >= 4
    for entry in entries:
        scene = scenes.draw(entry["seed"], 448, entry["styles"])
        shipped = np.asarray(Image.open(folder / entry["file"]), np.int16)
        assert np.abs(shipped - scene.image).mean() < 1, entry["file"]  # other Pillow versions round differently
        present = {scenes.names()[i] for i in np.unique(scene.labels)}
        assert set(entry["classes"]) <= present
        for query in entry["queries"]:
            assert query.removeprefix("an ").removeprefix("a ") in present


def test_fewer_nouns_are_spread_over_the_categories_and_leave_the_rest_of_a_scene_alone():
    chosen = scenes.some_nouns(30)
    assert len(set(chosen)) == 30 and chosen[0] == 0 and max(np.diff(chosen)) - min(np.diff(chosen)) <= 1
    assert scenes.some_nouns() == tuple(range(len(scenes.nouns())))
    few = scenes.split("val:30", 56)[:20]
    assert {o.noun for s in few for o in s.objects} <= set(chosen)
    full = [scenes.split("val", 56)[i] for i in range(20)]
    assert [s.regions for s in few] == [s.regions for s in full]
    with pytest.raises(ValueError, match="1 to 315"):
        scenes.split("val:400")
    with pytest.raises(ValueError, match="scenes:val:60"):
        scenes.split("val:many")
