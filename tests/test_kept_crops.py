"""What is kept of a frozen part: tokens, labels, soft names; a stopped `train keep` goes on; damage is a sentence."""

import json
import shutil

import kept_trees
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tipsv2 import scenes
from tipsv2.checkpoints.weights import read_model
from tipsv2.network.dense import features_after, vision_features
from train.__main__ import main
from train.cli.arguments import parse
from train.data.kept import keep as keeping
from train.data.kept import sources
from train.data.kept.batches import KeptBatches
from train.data.kept.crops import cut, cut_labels, patch_shares, positions, square
from train.data.kept.folder import begin, open_kept
from train.data.kept.keep import Settings, keep
from train.data.kept.sets import open_sets
from train.data.kept.soft import scores_of, soft_names
from train.data.views import Window
from train.foundations.efficientnet_lite import open_classifier


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return kept_trees.save_all(tmp_path_factory.mktemp("foundations"))


@pytest.fixture(scope="module")
def source(folders, tmp_path_factory):
    return kept_trees.keep_all(folders, tmp_path_factory.mktemp("kept"))


def labelled_settings(folders, **changes):
    base = {"blocks": 2, "size": 56, "crops": 2}
    return Settings(f"folder:{folders['labelled']}", str(folders["base"]), **base | changes)


# crops


def test_a_crop_is_square_inside_and_as_small_as_asked():
    rng = np.random.default_rng(0)
    windows = [square((80, 60), 0.4, rng) for _ in range(200)]
    sides = []
    for window in windows:
        left, top, right, bottom = window.box
        assert left >= 0 and top >= 0 and right <= 80 and bottom <= 60
        assert right - left == pytest.approx(bottom - top)
        sides.append(right - left)
    assert 24 <= min(sides) < 27 and 57 < max(sides) <= 60
    assert 60 < sum(window.mirrored for window in windows) < 140


def test_labels_and_pixels_are_cut_alike():
    """A picture that is its own label map: the crop of one is the crop of the other."""
    labels = np.zeros((60, 80), np.int64)
    labels[:30, :40], labels[30:, 40:] = 50, 200
    picture = Image.fromarray(labels.astype(np.uint8))
    for mirrored in (False, True):
        window = Window((10, 5, 60, 55), mirrored)
        pixels = np.asarray(cut(picture, window, 70)).astype(int)
        found = cut_labels(labels, window, 70).numpy()
        assert (np.abs(pixels - found) < 60).mean() > 0.97 and len(np.unique(found)) == 3


def test_shares_of_patches_are_counted():
    labels = torch.full((28, 28), -1)
    labels[:14, :10], labels[14:, 14:] = 3, 1
    most, share = patch_shares(labels)
    assert most.tolist() == [3, -1, -1, 1]
    assert share.tolist() == pytest.approx([10 / 14, 1, 1, 1])


def test_soft_names_are_the_classifiers_where_the_patches_are():
    """Scores that grow to the right and down: every patch has those of its own place in the picture."""
    x = (torch.arange(30) + 0.5) / 30 * 120
    y = (torch.arange(20) + 0.5) / 20 * 80
    scores = torch.stack([x.expand(20, 30), y[:, None].expand(20, 30)]) / 10
    for mirrored in (False, True):
        window = Window((20, 10, 76, 66), mirrored)
        classes, chance = soft_names(scores, [window], (120, 80), 4, known=1, temperature=2.0, prior=3.0)
        for row in range(4):
            for column in range(4):
                at = 3 - column if mirrored else column
                values = torch.tensor([(20 + 14 * (at + 0.5)) / 10, (10 + 14 * (row + 0.5)) / 10 + 3])
                expected = (values / 2).softmax(0)
                assert classes[0, 4 * row + column, 0] == expected.argmax()
                assert chance[0, 4 * row + column, 0] == pytest.approx(expected.max().item(), abs=1e-3)
                assert chance[0, 4 * row + column, 2:].max() == 0  # there are two classes
    assert positions(Window((0, 0, 120, 80), False), (120, 80), 2)[0, 0].tolist() == [-0.5, -0.5]


# what a kept folder holds


def test_kept_tokens_are_those_of_a_full_pass(folders, source):
    """Block for block, and the features after the rest of the blocks are the whole tower's, to fp16's precision."""
    vision = read_model(folders["base"], torch.float32).vision_model.eval()
    kept = open_sets(source)[0].kept
    settings = labelled_settings(folders)
    pictures = pictures_of(settings)
    for row in (0, 4):
        turn, number = divmod(row, 3)
        rng = np.random.default_rng([0, number, turn])
        picture = pictures.show(number, 56).picture
        crop = keeping.coloured(cut(picture, square(picture.size, 0.4, rng), 56), rng)
        pixels = torch.from_numpy(np.array(crop)).permute(2, 0, 1)[None].float() / 255
        with torch.no_grad():
            hidden = vision(pixels, output_hidden_states=True).hidden_states[2]
            found = torch.from_numpy(kept.arrays["hidden"][[row]]).float()
            assert torch.allclose(found, hidden, atol=2e-3, rtol=2e-3)
            ours = features_after(vision, found, 2, (4, 4))
            theirs = vision_features(vision, pixels)
        for a, b in zip(ours, theirs, strict=True):
            assert a.shape == b.shape and F.cosine_similarity(a, b, dim=-1).min() > 1 - 1e-5


def pictures_of(settings):
    return sources.open_pictures(settings.source)


def test_labels_captions_and_soft_names_are_kept(folders, source):
    first, second = (each.kept for each in open_sets(source))
    assert first.names == ("sky", "grass", "dog") and first.rows == 6 and not first.has("soft")
    assert first.arrays["hidden"].shape == (6, 18, 48) and first.arrays["labels"].shape == (6, 16)
    assert set(np.unique(first.arrays["labels"])) <= {-1, 0, 1, 2}
    assert (first.arrays["known"] == -1).all() and second.arrays["known"].tolist() == [0, 1, 2]
    for labels, words in zip(first.arrays["labels"], first.captions, strict=True):
        for k, name in enumerate(first.names):
            if (labels == k).sum() > 1:
                assert name in words["web"]
    assert second.names == () and not second.has("labels") and second.captions == [{}] * 3
    chance = second.arrays["chance"].astype(float)
    assert second.arrays["soft"].shape == (3, 9, 8) and (chance[..., 0] >= chance[..., 1]).all()
    assert np.allclose(chance.sum(-1), 1, atol=5e-3) and (chance[..., 6:] == 0).all()  # it knows six classes
    network = open_classifier(folders["lite"])
    for row in range(3):  # the classifier by itself, at the picture's one crop
        picture = pictures_of(Settings(str(folders["named"]), "")).show(row, 42).picture
        window = square(picture.size, 0.4, np.random.default_rng([0, row, 0]))
        scores = scores_of(network, picture, 64)
        assert scores.shape == (6, 3, 2)
        classes, likely = soft_names(scores, [window], picture.size, 3, row, 0.7, 2.0)
        assert np.array_equal(classes[0], second.arrays["soft"][row])
        assert np.allclose(likely[0], chance[row], atol=1e-3)


def test_keeping_is_the_same_again_and_goes_on_after_a_stop(folders, tmp_path, monkeypatch):
    whole = keep(labelled_settings(folders), tmp_path / "whole", show=False)
    monkeypatch.setattr(keeping, "BATCH", 2)
    monkeypatch.setattr(keeping, "SAVE_SECONDS", 0.0)
    real, seen = keeping.hidden_tokens, []

    def lost(vision, pixels, blocks):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(len(pixels))
        return real(vision, pixels, blocks)

    monkeypatch.setattr(keeping, "hidden_tokens", lost)
    with pytest.raises(KeyboardInterrupt):
        keep(labelled_settings(folders), tmp_path / "stopped", show=False)
    part = open_kept(tmp_path / "stopped")
    assert part.rows == 4 and len(part.arrays["hidden"]) == 4 and len(part.captions) == 4  # usable as it is
    monkeypatch.setattr(keeping, "hidden_tokens", real)
    keep(labelled_settings(folders), tmp_path / "stopped", show=False)
    one, two = open_kept(whole), open_kept(tmp_path / "stopped")
    assert two.rows == 6 and one.captions == two.captions
    for name, array in one.arrays.items():
        assert np.allclose(array.astype(float), two.arrays[name].astype(float), atol=2e-3), name
    with pytest.raises(ValueError, match="was kept otherwise .size was 56, now 70."):
        keep(labelled_settings(folders, size=70), whole, show=False)


def test_pictures_can_be_left_out(folders, tmp_path):
    keep(labelled_settings(folders, crops=1, leave_out="1::2"), tmp_path / "less", show=False)
    assert open_kept(tmp_path / "less").rows == 2
    for wrong in ("x", "::"):
        with pytest.raises(ValueError, match="--leave-out"):
            keep(labelled_settings(folders, leave_out=wrong), tmp_path / "none", show=False)


def test_scenes_are_kept_whole(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "STYLES", ("noto",))  # the others take seconds to read
    keep(Settings("scenes", str(folders["base"]), blocks=1, size=56, limit=2), tmp_path / "scenes", show=False)
    kept = open_kept(tmp_path / "scenes")
    assert kept.rows == 2 and kept.names == scenes.names() and set(kept.captions[0]) >= {"web", "detailed"}


# mistakes


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"size": 50}, "--size 50: it must be a multiple of the patch size, 14 pixels"),
        ({"blocks": 3}, "--blocks 3: the tower has 3 blocks, keep 1 to 2 of them"),
        ({"crop_min": 0.0}, "--crop-min 0.0: it must lie above 0 and up to 1"),
        ({"classifier_temperature": 0.0}, "--temperature 0.0: it must be above 0"),
        ({"classifier": "nowhere/at/all"}, "cannot be opened"),
        ({"source": "/no/such/folder"}, "there is no folder"),
        ({"source": "scenes", "leave_out": "2::5"}, "--leave-out: scenes are drawn, none of them is left out"),
        ({"source": "scenes", "classes": "names.jsonl"}, "number in a file's name is, and those of scenes are not"),
        ({"classes": "names.jsonl"}, "number in a file's name is, and those of folder:.* are not read: leave it out"),
    ],
)
def test_mistakes_are_sentences_before_anything_is_written(folders, tmp_path, changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        keep(Settings(**{**vars(labelled_settings(folders)), **changes}), tmp_path / "out", show=False)
    assert not (tmp_path / "out").exists()


def test_the_command_keeps_and_says_how_to_go_on(folders, tmp_path, capsys):
    flags = ["--vision", str(folders["base"]), "--blocks", "2", "--size", "42", "--out", str(tmp_path / "kept")]
    assert main(["keep", str(folders["named"]), *flags, "--classes", str(folders["names.jsonl"])]) == 0
    said = capsys.readouterr().out
    assert "3 crops in" in said
    given = parse(said.split("python -m train ")[1].split(), "")
    assert given.kept == f"{tmp_path / 'kept'}:8" and given.base == str(folders["base"])
    (folders["named"] / "zebra.png").write_bytes((folders["named"] / "000_n0_dog.png").read_bytes())
    again = [*flags[:-1], str(tmp_path / "other")]
    assert main(["keep", str(folders["named"]), *again, "--classes", str(folders["names.jsonl"])]) == 2
    assert "does not begin with the number of one of 6 classes" in capsys.readouterr().err
    (folders["named"] / "zebra.png").unlink()


def damage_arrays(folder):
    (folder / "labels.npy").write_bytes(b"nothing")


def damage_meta(folder):
    (folder / "meta.json").write_text("{")


def empty_meta(folder):
    (folder / "meta.json").write_text("{}")


def lose_tokens(folder):
    (folder / "hidden.npy").unlink()


def damage_captions(folder):
    (folder / "captions.jsonl").write_text("{")


def cut_arrays(folder):
    array = np.load(folder / "hidden.npy")
    np.save(folder / "hidden.npy", array[:2])


@pytest.mark.parametrize("damage", [damage_arrays, damage_meta, empty_meta, lose_tokens, damage_captions, cut_arrays])
def test_a_damaged_folder_is_a_sentence(folders, source, tmp_path, damage):
    shutil.copytree(open_sets(source)[0].kept.folder, tmp_path / "kept")
    damage(tmp_path / "kept")
    recipe = kept_trees.recipe(folders, f"kept:{tmp_path / 'kept'}:2", "soft_names.weight=0", "soft_names.groups=0")
    with pytest.raises(ValueError, match="make it again with python -m train keep"):
        KeptBatches(recipe)


@pytest.mark.parametrize("file, text", [("meta.json", "{"), ("progress.json", "{}"), ("names.json", "[")])
def test_keep_does_not_go_on_with_a_damaged_folder(tmp_path, file, text):
    meta = {"vision": "a", "blocks": 1, "size": 14, "frozen": "0"}
    assert begin(tmp_path / "kept", meta, [], {"known": (2,)}) == 0
    assert begin(tmp_path / "kept", meta, [], {"known": (2,)}) == 0  # the same again
    (tmp_path / "kept" / file).write_text(text)
    with pytest.raises(ValueError, match="is damaged: delete .* and make it again"):
        begin(tmp_path / "kept", meta, [], {"known": (2,)})


def test_addresses_of_sets(source):
    first, second = open_sets(source)
    assert (first.crops, first.weight, second.crops, second.weight) == (4, 1.0, 2, 0.5)
    folder = first.kept.folder
    for wrong in (f"kept:{folder}", f"kept:{folder}:0", f"kept:{folder}:2:0"):
        with pytest.raises(ValueError, match="--kept"):
            open_sets(wrong)
    with pytest.raises(ValueError, match="holds nothing kept"):
        open_sets(f"kept:{folder.parent}:2")
    with pytest.raises(ValueError, match="two folders called"):
        open_sets(f"kept:{folder}:2,{folder}:2")


def test_sets_of_different_frozen_parts_do_not_go_together(source, tmp_path):
    first, second = (each.kept.folder for each in open_sets(source))
    shutil.copytree(second, tmp_path / "other")
    meta = json.loads((second / "meta.json").read_text())
    (tmp_path / "other" / "meta.json").write_text(json.dumps(meta | {"frozen": "0"}))
    with pytest.raises(ValueError, match="different frozen parts"):
        open_sets(f"kept:{first}:2,{tmp_path / 'other'}:2")


def test_a_full_disk_is_a_sentence(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(OSError, match="would take .* and the disk has 0.0 GB"):
        keep(labelled_settings(folders), tmp_path / "out", show=False)
    assert not (tmp_path / "out").exists()
