"""Zero-shot segmentation on the benchmarks' trees: miniatures with hand-computed scores, and what is wrong in one."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from miniatures import ACCURACY, MIOU, TREES, Wishful, build
from PIL import Image

from tipsv2.__main__ import main
from tipsv2.evaluation.layouts import all_layouts, open_data
from tipsv2.evaluation.layouts.coco_stuff import OBJECT_RAW, STUFF_RAW
from tipsv2.evaluation.segmentation.zero_shot import evaluate
from tipsv2.evaluation.shared.partial import Partial
from tipsv2.prompts import CLASS_LISTS


@pytest.mark.parametrize("protocol", ["whole", "slide"])
@pytest.mark.parametrize("layout", TREES)
def test_miniature_equals_hand_computed_numbers(tmp_path, layout, protocol):
    root = build(tmp_path, layout)
    numbers = evaluate(Wishful(layout, root), f"{layout}:{root}", progress=False, protocol=protocol)
    assert json.loads(json.dumps(numbers)) == numbers
    assert numbers["miou"] == pytest.approx(MIOU, abs=1e-4) and numbers["pixel_accuracy"] == pytest.approx(
        ACCURACY, abs=1e-4
    )
    assert (numbers["images"], numbers["layout"], numbers["protocol"]) == (10, layout, protocol)
    iou = {name: row["iou"] for name, row in numbers["per_class"].items()}
    names = all_layouts()[layout].open("segmentation", root, "val").classes
    first, second, third = (names[k] for k in TREES[layout][0])
    assert {name: iou[name] for name in iou if iou[name] is not None} == {first: 0.8, second: 0.9, third: 0.0}
    assert numbers["miou_low"] < MIOU < numbers["miou_high"]


def test_every_layout_has_a_miniature_and_as_many_classes_as_its_name_says(tmp_path):
    assert {name for name, layout in all_layouts().items() if "segmentation" in layout.tasks} == {
        *TREES,
        "folder",  # of own pictures, see tests/test_folder_layout.py
    }
    sizes = dict(
        ade20k=150, voc20=20, voc21=21, context59=59, context60=60, cocostuff=171, cocoobject=81, cityscapes=19
    )
    for layout, size in sizes.items():
        split = open_data("segmentation", f"{layout}:{build(tmp_path / layout, layout)}")
        assert len(split.classes) == len(set(split.classes)) == size
        assert (split.background is not None) == (layout in ("voc21", "context60", "cocoobject"))


def test_coco_numbers_are_the_categories_less_one():
    # COCO's own numbers of some categories (cocodataset.org, labels of COCO-Stuff): they have gaps.
    categories = {"person": 1, "stop sign": 13, "toothbrush": 90, "banner": 92, "bridge": 95, "wood": 182}
    for name, number in categories.items():
        place = CLASS_LISTS["cocostuff171"].index(name)
        assert STUFF_RAW[number - 1] == place and OBJECT_RAW[number - 1] == (place + 1 if number <= 90 else 0)
    assert STUFF_RAW[255] == -1 and OBJECT_RAW[255] == 0 and STUFF_RAW[11] == OBJECT_RAW[11] == -2  # no street signs
    assert sorted(set(STUFF_RAW)) == list(range(-2, 171)) and sorted(set(OBJECT_RAW)) == [-2, *range(81)]


def test_converted_label_files(tmp_path):
    root = build(tmp_path / "a", "cocostuff")
    for index in range(10):
        file = root / f"annotations/val2017/p{index}.png"
        numbers = np.asarray(Image.open(file))
        changed = np.where(numbers == 12, 11, np.where(numbers == 181, 170, numbers))
        Image.fromarray(changed).save(file.with_name(f"p{index}_labelTrainIds.png"))
        Image.fromarray(np.full_like(numbers, 99)).save(file)  # not read any more
    assert evaluate(Wishful("cocostuff", root), f"cocostuff:{root}", progress=False)["miou"] == round(MIOU, 4)
    root = build(tmp_path / "b", "cityscapes")
    for file in sorted((root / "gtFine/val/ulm").iterdir()):
        numbers = np.asarray(Image.open(file))
        changed = np.select([numbers == 7, numbers == 8, numbers == 33], [0, 1, 18], 255).astype(np.uint8)
        Image.fromarray(changed).save(str(file).replace("labelIds", "labelTrainIds"))
        file.unlink()
    assert evaluate(Wishful("cityscapes", root), f"cityscapes:{root}", progress=False)["miou"] == round(MIOU, 4)


def test_background_by_words_and_by_threshold(tmp_path):
    root = build(tmp_path, "voc21")
    encoder = Wishful("voc21", root)
    data = f"voc21:{root}"
    encoder.classes = (*encoder.classes, "wall")  # grey level 21
    for index in range(3):
        Image.new("L", (32, 16), 21).save(root / f"JPEGImages/p{index}.jpg", quality=100)
    none = evaluate(encoder, data, progress=False)
    words = evaluate(encoder, data, progress=False, background=["background", "wall"])
    assert none["background"] == ["background"] and words["background"] == ["background", "wall"]
    # 3 pictures are all wall. As background: its truth 10, guess 5 + 6, both 8; second: truth 9, guess 5 + 2, both 6.
    assert words["per_class"]["background"]["iou"] == round(8 / 13, 4)
    assert words["per_class"]["aeroplane"]["iou"] == round(6 / 10, 4)
    # By threshold nothing resembles a wall or the background (cosine 0): they are background, the same numbers.
    number = evaluate(encoder, data, progress=False, background=0.5)
    assert number["per_class"] == words["per_class"] and number["background"] == 0.5
    with pytest.raises(ValueError, match="at least one word"):
        evaluate(encoder, data, progress=False, background=[])


def test_a_bare_root_is_recognised_or_asks_which(tmp_path):
    ade, voc = build(tmp_path / "ade", "ade20k"), build(tmp_path / "voc", "voc21")
    with pytest.raises(ValueError, match="has the folders of PASCAL VOC-20, but files of other names: say which"):
        open_data("segmentation", str(voc))
    for root, names in ((ade, "ADE_val_{:08}"), (voc, "2007_{:06}")):  # as theirs are called
        for file in [path for path in root.rglob("p?.*") if path.suffix != ".txt"]:
            file.rename(file.with_name(names.format(int(file.stem[1:])) + file.suffix))
        for lists in root.glob("ImageSets/*/*.txt"):
            lists.write_text("".join(names.format(k) + "\n" for k in range(10)))
    assert open_data("segmentation", str(ade)).layout == "ade20k"
    with pytest.raises(ValueError, match="could be voc20, voc21: say which"):
        open_data("segmentation", str(voc))


def test_pictures_of_any_format_and_other_files(tmp_path):
    root = build(tmp_path, "ade20k")
    folder = root / "images/validation"
    for index, ending in enumerate(("JPG", "png", "jpeg")):
        grey = Image.open(folder / f"p{index}.jpg")
        (folder / f"p{index}.jpg").unlink()
        grey.save(folder / f"p{index}.{ending}", **({} if ending == "png" else {"quality": 100, "format": "JPEG"}))
    (folder / "._p3.jpg").write_bytes(b"")
    (folder / "index.txt").write_text("")
    assert evaluate(Wishful("ade20k", root), f"ade20k:{root}", progress=False)["miou"] == round(MIOU, 4)


def spoil(root, what):
    images, labels = root / "images/validation", root / "annotations/validation"
    if what == "tree":
        shutil.rmtree(labels)
    elif what == "label":
        (labels / "p3.png").unlink()
    elif what == "number":
        Image.new("L", (32, 16), 151).save(labels / "p3.png")
    elif what == "size":
        Image.new("L", (31, 16), 1).save(labels / "p3.png")
    elif what == "empty":
        for file in [*images.iterdir(), *labels.iterdir()]:
            file.unlink()
    elif what == "twice":
        Image.new("L", (32, 16)).save(images / "p3.png")
    elif what == "colours":
        Image.new("RGB", (32, 16), (9, 80, 7)).save(labels / "p3.png")
    elif what == "cut":
        (labels / "p3.png").write_bytes((labels / "p3.png").read_bytes()[:50])


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("tree", "lacks annotations/validation, which ADE20K-150 has"),
        ("label", r"1 of 10 pictures have no label file, such as .*p3\.png"),
        ("number", r"p3\.png holds the number 151, which is no class here"),
        ("size", "p3: the picture is 32 x 16 pixels and its label map 31 x 16"),
        ("empty", "the split is empty"),
        ("twice", r"holds both p3\.jpg and p3\.png"),
        ("colours", r"p3\.png holds colours"),
        ("cut", r"p3\.png.* truncated or damaged"),
    ],
)
def test_sentences(tmp_path, what, words):
    root = build(tmp_path, "ade20k")
    encoder = Wishful("ade20k", root)
    spoil(root, what)
    with pytest.raises(ValueError, match=words) as error:
        evaluate(encoder, f"ade20k:{root}", progress=False)
    if what == "tree":
        assert "ADE_val_" in str(error.value) and "Get it from http" in str(error.value)
    else:
        assert "\n" not in str(error.value)


def test_other_parts_are_named(tmp_path):
    root = build(tmp_path, "voc20")
    for part, words in (("test", "no part 'test': choose train or val"), ("train", r"there is no list .*train\.txt")):
        with pytest.raises(ValueError, match=words):
            open_data("segmentation", f"voc20:{root}", part)
    (root / "ImageSets/Segmentation/val.txt").write_text("p0\nq\n")
    with pytest.raises(ValueError, match=r"lacks pictures that val\.txt lists: q"):
        open_data("segmentation", f"voc20:{root}")


class Stops(Wishful):
    """Stopped by Ctrl-C after some pictures."""

    def encode_pixels(self, pixels, only=None, layer=None):
        if self.seen >= 4:
            raise KeyboardInterrupt
        return super().encode_pixels(pixels)


def test_a_stopped_evaluation_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("tipsv2.evaluation.segmentation.zero_shot.BATCH_SIZES", {"whole": 2})
    root = build(tmp_path / "data", "ade20k")
    options = dict(data=f"ade20k:{root}", out=tmp_path / "out", progress=False)
    with pytest.raises(KeyboardInterrupt):
        evaluate(Stops("ade20k", root), **options)
    encoder = Wishful("ade20k", root)
    encoder.digest = "1"
    with pytest.raises(ValueError, match="another encoder: choose another --out"):
        evaluate(encoder, **options)
    second = Wishful("ade20k", root)
    numbers = evaluate(second, **options)
    shown = 2 * 4  # the best and the worst are looked at once more
    assert second.seen == 6 + shown and numbers["miou"] == round(MIOU, 4)
    with pytest.raises(ValueError, match="another data: choose another --out"):  # a twin, with the same names
        evaluate(second, **options | {"data": f"ade20k:{build(tmp_path / 'twin', 'ade20k')}"})


def test_full_disk_is_one_sentence_and_keeps_what_was_written(tmp_path, monkeypatch):
    root = build(tmp_path / "data", "ade20k")
    encoder = Wishful("ade20k", root)
    monkeypatch.setattr("tipsv2.evaluation.segmentation.zero_shot.Partial", partial(Partial, chunk=4))
    written = Path.write_bytes

    def full(self, content):
        if self.name.startswith(".000001.safetensors"):
            written(self, content[:10])
            raise OSError(28, "No space left on device")
        return written(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    out = tmp_path / "out"
    with pytest.raises(
        OSError, match=r"000001\.safetensors could not be written \(No space left on device\).* 4 samples"
    ):
        evaluate(encoder, f"ade20k:{root}", out=out, progress=False)
    assert sorted(path.name for path in (out / "partial").iterdir()) == ["000000.safetensors", "settings.json"]
    monkeypatch.setattr(Path, "write_bytes", written)
    assert evaluate(encoder, f"ade20k:{root}", out=out, progress=False)["miou"] == round(MIOU, 4)


def test_command_writes_record_and_pictures(tmp_path, tiny_folder, capsys):
    root, out = build(tmp_path / "data", "voc21"), tmp_path / "deep" / "out"
    arguments = ["evaluate", "segmentation", "--data", f"voc21:{root}", "--model", str(tiny_folder), "--device", "cpu"]
    arguments += ["--templates", "none", "--limit", "9", "--protocol", "slide", "--background", "sky, wall", "--json"]
    assert main([*arguments, "--out", str(out)]) == 0
    numbers = json.loads(capsys.readouterr().out)
    record = json.loads((out / "record.json").read_text("utf-8"))
    assert {name: record[name] for name in numbers} == numbers and numbers["background"] == ["sky", "wall"]
    assert {"command", "date", "versions", "encoders"} <= set(record) and record["versions"][
        "torch"
    ] == torch.__version__
    assert len(numbers["fingerprint"]) == len(record["encoders"][0]["weights"]) == 16
    names = sorted(path.name for path in out.iterdir())
    assert names[-1].startswith("worst_4_p") and len([n for n in names if n.startswith(("best_", "worst_"))]) == 8
    for name in ("class_iou.png", "confusion.png", names[-1]):
        assert min(Image.open(out / name).size) >= 16
    assert main(arguments) == 0  # without --out nothing is written, and the numbers are the same
    again = json.loads(capsys.readouterr().out)
    assert {**again, "seconds": 0} == {**numbers, "seconds": 0}


def test_command_checks_the_data_before_the_model(tmp_path, capsys):
    assert main(["evaluate", "segmentation", "--data", f"ade20k:{tmp_path}", "--model", "tipsv2-l14"]) == 2
    assert "lacks images/validation" in capsys.readouterr().err


@pytest.mark.parametrize("name", all_layouts())
def test_the_documentation_shows_every_tree(name):
    layout, text = all_layouts()[name], (Path(__file__).parents[1] / "docs" / "evaluate.md").read_text("utf-8")
    assert f"### {name}: {layout.title}" in text and layout.tree.rstrip() in text and layout.source in text
