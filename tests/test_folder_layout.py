"""Own labelled pictures in evaluate, compare and the probe: scores by hand, flags, and what the record says."""

import json
from types import SimpleNamespace

import labelled_folders as made
import numpy as np
import pytest
import torch
from miniatures import build

from tipsv2.__main__ import main
from tipsv2.evaluation.layouts import HELD_OUT, open_data
from tipsv2.evaluation.segmentation.zero_shot import evaluate


class Levels:
    """Reads the class of a patch from its grey level in `labelled_folders.picture`; its final features say the next."""

    patch_size, num_layers, device, dtype = 14, 2, torch.device("cpu"), torch.float32
    precision = "float32"
    info, digest = SimpleNamespace(name="levels", location="nowhere", resolution=28), "0"
    words = {"sky": 0, "grass": 1, "dog": 2, "hound": 2, "turf": 0}

    def encode_text(self, texts, templates="none", keep=False):
        return torch.eye(3)[[self.words[text] for text in texts]]

    def encode_pixels(self, pixels, only=None, layer=None):
        levels = torch.nn.functional.avg_pool2d(pixels[:, 0], 14) * 255
        classes = ((levels - 40) / 80).round().long()
        return {"patches": torch.eye(3)[(classes + 1) % 3], "values": torch.eye(3)[classes]}


def mean_of_pictures(turn=0):
    """Mean over pictures of the mIoU among the names in each, of `Levels`, written as plainly as can be."""
    means = []
    for number in range(3):
        truth, blocks = made.truth(number), (np.maximum(made.BLOCKS[number], 0) + turn) % 3
        present = sorted(set(truth.ravel().tolist()) - {-1})
        maps = torch.stack([torch.from_numpy((blocks == k).astype(np.float32)) for k in present])
        fine = torch.nn.functional.interpolate(maps[None], made.SIZE, mode="bilinear")[0]
        guess = np.array(present)[fine.argmax(0).numpy()]
        guess[truth < 0] = -1
        pairs = [(guess == k, truth == k) for k in present]
        means.append(np.mean([(found & right).sum() / (found | right).sum() for found, right in pairs]))
    return round(float(np.mean(means)), 4)


@pytest.mark.parametrize("kind", [made.numbers, made.colors, made.panoptic])
def test_figures_by_hand(kind, tmp_path):
    root = kind(tmp_path)
    (root / "synonyms.tsv").write_text("dog\thound\ngrass\tturf\n")
    numbers = evaluate(Levels(), f"folder:{root}", progress=False)
    assert json.loads(json.dumps(numbers)) == numbers
    assert (numbers["layout"], numbers["images"], numbers["classes"]) == ("folder", 3, 3)
    assert numbers["unlabelled"] == round(2 / 18, 4) and numbers["miou"] > 0.95
    values, final, chance = numbers["values"], numbers["final"], numbers["chance"]
    # Unlabelled blocks look like sky; nothing is judged there, and where they are the sky's peak may lie outside it.
    assert numbers["miou"] == values["miou_all"] and final["miou_all"] < 0.05
    assert values["miou_pictures"] == mean_of_pictures() > 0.95 and final["miou_pictures"] == mean_of_pictures(1)
    # Names with two blocks or more: a sky 2, grass 2; b sky 4, grass 2; c dog 2, grass 3 - all found, in reading order.
    assert values["peak_inside"] == 1 and chance["peak_inside"] == round((2 + 2 + 4 + 2 + 2 + 3) / 36, 4)
    # a's sky: 2 blocks inside against 4 outside, of which the unlabelled one looks alike: (3 + 0.5) / 4.
    assert values["auroc"] == round((3.5 / 4 + 1 + 1 + 1 + 1 + 1) / 6, 4) and chance["auroc"] == 0.5
    # "turf" stands where the sky is: in a 2 sky and one unlabelled of 4 others, in b 4 of 4, in c one unlabelled of 3.
    turf = [0.5 - 0.5 * 3 / 4, 0.0, 0.5 - 0.5 / 3]
    assert values["auroc_synonyms"] == round((sum(turf) + 1) / 4, 4) and values["auroc_their_names"] == 1
    assert final["auroc"] < 0.5


def test_presence_by_hand(tmp_path):
    numbers = evaluate(Levels(), f"folder:{made.numbers(tmp_path)}", progress=False)
    # a has all names and is left out. b: sky and grass are there with peaks 1, the dog is not, 0. c: grass and dog are
    # there; the sky is not, but an unlabelled block looks like it: ties, 0.5.
    assert numbers["values"]["presence_per_picture"] == (1 + 0.5) / 2
    # The sky: there in a and b, not in c, all peaks 1. The dog: there in a and c, 1, not in b, 0. Grass is everywhere.
    assert numbers["values"]["presence_per_name"] == (0.5 + 1) / 2


def test_slide_has_no_figures_of_patches(tmp_path):
    root = made.numbers(tmp_path)
    numbers = evaluate(Levels(), f"folder:{root}", progress=False, protocol="slide", features="values")
    assert set(numbers["values"]) == {"miou_present", "miou_all", "miou_pictures"}
    assert "final" not in numbers


def test_a_stopped_evaluation_goes_on_and_other_words_need_another_folder(tmp_path):
    root, out = made.numbers(tmp_path / "data"), tmp_path / "out"
    first = evaluate(Levels(), f"folder:{root}", out=out, progress=False)
    again = evaluate(Levels(), f"folder:{root}", out=out, progress=False)
    assert {**first, "seconds": 0} == {**again, "seconds": 0}
    (root / "synonyms.tsv").write_text("dog\thound\n")
    with pytest.raises(ValueError, match="another synonyms: choose another --out"):
        evaluate(Levels(), f"folder:{root}", out=out, progress=False)


def test_parts_for_a_probe(tmp_path):
    alone = made.numbers(tmp_path / "alone", stems=[f"p{k:02}" for k in range(11)])
    judged = [each.name for each in open_data("segmentation", f"folder:{alone}", HELD_OUT).samples]
    learned = [each.name for each in open_data("segmentation", f"folder:{alone}", "train").samples]
    assert judged == ["p00", "p05", "p10"] and not set(judged) & set(learned) and len(learned) == 8
    assert len(open_data("segmentation", f"folder:{alone}").samples) == 11
    parted = made.numbers(made.numbers(tmp_path / "parted", "train", stems="qr"), "val")
    assert [each.name for each in open_data("segmentation", f"folder:{parted}", HELD_OUT).samples] == list("abc")
    assert [each.name for each in open_data("segmentation", f"folder:{parted}", "train").samples] == list("qr")
    ade = build(tmp_path / "ade", "ade20k")
    assert open_data("segmentation", f"ade20k:{ade}", HELD_OUT).part == "val"  # which have one part to judge


def test_a_bare_root_is_theirs_only_if_its_files_are(tmp_path):
    own = made.numbers(tmp_path / "own")
    assert open_data("segmentation", str(own)).layout == "folder"
    alike = build(tmp_path / "alike", "ade20k")  # its pictures are called p0.jpg and so on
    with pytest.raises(ValueError, match="has the folders of ADE20K-150, but files of other names: say which"):
        open_data("segmentation", str(alike))
    assert open_data("segmentation", f"ade20k:{alike}").layout == "ade20k"  # whoever says so knows


def command(capsys, *arguments):
    code = main([*map(str, arguments)])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_flags_in_the_place_of_data(tmp_path, tiny_folder, capsys):
    root, names = made.numbers(tmp_path / "data"), tmp_path / "names.txt"
    names.write_text("nothing\nsky\ngrass\ndog\n")
    for file in (root / "labels").iterdir():
        codes = np.asarray(made.Image.open(file))
        made.save(file, np.select([codes == 3, codes == 7, codes == 250], [4, 5, 6], 3).astype(np.uint8))
    evaluation = ["evaluate", "segmentation", "--model", tiny_folder, "--templates", "none", "--json"]
    flags = ["--images", root / "images", "--labels", root / "labels", "--names", names, "--first", 3]
    code, out, err = command(capsys, *evaluation, *flags, "--void", 3, "--device", "cpu")
    numbers = json.loads(out)
    assert code == 0 and numbers["classes"] == 3 and numbers["unlabelled"] == round(2 / 18, 4)
    assert numbers["data"].endswith(f"names={names},first=3,void=3") and numbers["layout"] == "folder"
    assert "folder, part all, 3 images" in err
    again = json.loads(command(capsys, *evaluation, "--data", numbers["data"], "--device", "cpu")[1])
    assert {**numbers, "seconds": 0} == {**again, "seconds": 0}
    assert command(capsys, *evaluation, *flags[:2])[0] == 2
    code, _, err = command(capsys, *evaluation, "--data", "scenes:val", "--void", 3)
    assert code == 2 and "--void belongs to own labelled pictures" in err


def test_values_without_a_name_are_said_once_before_the_model(tmp_path, capsys):
    root = made.numbers(tmp_path)
    text = (root / "classes.tsv").read_text()
    (root / "classes.tsv").write_text(text.replace("0\t\n", ""))
    _, _, err = command(capsys, "evaluate", "segmentation", "--data", f"folder:{root}", "--model", "tipsv2-l14")
    assert err.count("count as unlabelled") == 1 and "0: 11.1 %" in err


@pytest.mark.slow
def test_compare_and_probe(tmp_path, tiny_folder, capsys):
    root = made.numbers(tmp_path / "data", stems=[f"p{k}" for k in range(6)])
    flags = ["--data", f"folder:{root}", "--device", "cpu", "--json", "--resolution", 28]
    code, out, err = command(capsys, "compare", "--models", tiny_folder, tiny_folder, *flags, "--templates", "none")
    numbers = json.loads(out)
    assert code == 0 and set(numbers["miou"]) == {f"{k}, {c}" for k in ("final", "values") for c in ("present", "all")}
    row = numbers["figures"]["values auroc"]
    assert row["A"] == row["B"] and row["difference"] == 0 and row["chance"] == 0.5
    assert set(numbers["figures"]) >= {"final miou_pictures", "values presence_per_name", "final peak_inside"}
    code, out, err = command(capsys, "evaluate", "segmentation_probe", "--model", tiny_folder, "--epochs", 1, *flags)
    numbers = json.loads(out)
    assert code == 0 and (numbers["layout"], numbers["part"]) == ("folder", "every 5th")
    assert (numbers["images"], numbers["train_images"]) == (2, 4)
