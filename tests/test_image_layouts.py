"""The layouts of captions, classes and instances: what is wrong in a tree is one sentence.

python -m pytest tests/test_image_layouts.py
"""

import json

import layout_trees as trees
import pytest

from tipsv2.evaluation.layouts import all_layouts, open_data
from tipsv2.evaluation.layouts.uned import unzipped
from tipsv2.evaluation.tasks import knn

BUILT = {
    "coco": ("retrieval", trees.coco),
    "coco-karpathy": ("retrieval", lambda root: trees.karpathy(root, "coco", "val2014")),
    "flickr30k": ("retrieval", lambda root: trees.karpathy(root, "flickr30k", "flickr30k-images")),
    "docci": ("retrieval", trees.docci),
    "imagenet": ("classification", trees.imagenet),
    "imagenet-kaggle": ("classification", lambda root: trees.imagenet(root, kaggle=True)),
    "uned": ("instances", trees.uned),
}


def wrong(layout, root, says, part=None):
    """Opening it raises one sentence that says so."""
    with pytest.raises(ValueError, match=says) as caught:
        open_data(BUILT[layout][0], f"{layout}:{root}", part)
    assert "\n" not in str(caught.value).split("Expected below it:")[0]


def change(path, edit):
    """Edit the JSON in a file."""
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_every_image_layout_has_a_miniature():
    tasks = {"retrieval", "classification", "knn", "probe", "instances"}
    assert set(BUILT) == {name for name, layout in all_layouts().items() if tasks & set(layout.tasks)}


@pytest.mark.parametrize("layout", BUILT)
def test_trees(layout, tmp_path):
    """Recognised by its marks alone; without one of them, or in an empty folder, its tree and source are told."""
    task, build = BUILT[layout]
    root = build(tmp_path / "data")
    split = open_data(task, str(root))
    assert split.layout == layout and len({sample.name for sample in split.samples}) == len(split.samples)
    wrong(layout, root, "there is no part 'night': choose", "night")
    (tmp_path / "empty").mkdir()
    mark = all_layouts()[layout].marks[0]
    wrong(layout, tmp_path / "empty", f"lacks {mark}, which .* Expected below it:\n  .*\n(?s:.*)Get it from https://")
    with pytest.raises(ValueError, match=f"{layout} has no depth"):
        open_data("depth", f"{layout}:{root}")


def test_captions_that_do_not_fit_their_images(tmp_path):
    root = trees.coco(tmp_path / "coco")
    notes = root / "annotations/captions_val2017.json"
    (root / "val2017/000000000003.jpg").rename(root / "val2017/000000000003.png")
    wrong("coco", root, r"names the image 000000000003\.jpg, which .*val2017' lacks: there is 000000000003\.png\.$")
    (root / "val2017/000000000003.png").unlink()
    wrong("coco", root, r"000000000003\.jpg.* lacks: unpack all of its images there\.$")
    trees.coco(root)
    change(notes, lambda content: content["annotations"].clear())
    wrong("coco", root, r"captions_val2017\.json' has no caption for the image 000000000000\.jpg")
    change(notes, lambda content: content.pop("annotations"))
    wrong("coco", root, "captions_val2017.json' has an entry without 'annotations': is it the file of another data set")
    change(notes, lambda content: content.update(annotations=[], images=[]))
    wrong("coco", root, "holds no sample of COCO 2017 captions .val.: the split is empty")
    notes.write_text('{"images": [')
    wrong("coco", root, r"captions_val2017\.json' is not JSON \(line 1: .*\): download it again\.$")
    notes.write_bytes(b"\xff\xfe\x00")
    wrong("coco", root, "is not text in UTF-8")


def test_lines_of_descriptions(tmp_path):
    root = trees.docci(tmp_path)
    path = root / "docci_descriptions.jsonlines"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], lines[2][:20]]))
    wrong("docci", root, "docci_descriptions.jsonlines', line 3, is not JSON")
    path.write_text("\n".join(line for line in lines if '"train"' in line))
    wrong("docci", root, "there is no part 'test': choose train")
    path.write_text(lines[0].replace("a red card", " "))
    wrong("docci", root, "no caption for the image test_00000.jpg")


def test_flickrs_folder_has_many_names(tmp_path):
    assert len(open_data("retrieval", str(trees.karpathy(tmp_path / "a", "flickr30k", "images"))).samples) == 10
    wrong("flickr30k", trees.karpathy(tmp_path / "b", "flickr30k", "photos"), "none of the folders flickr30k-images, ")


def test_class_names(tmp_path):
    root = trees.imagenet(tmp_path / "data")
    names = lambda task="classification": open_data(task, f"imagenet:{root}").classes  # noqa: E731
    assert names() == ("red", "green", "blue", "cyan", "pink")
    listed = root / "LOC_synset_mapping.txt"
    twice = listed.read_text().replace("n00000002 green, another name", "n00000002 red, the colour of grass")
    listed.write_text(twice)
    assert names()[:3] == ("red, another name", "red, the colour of grass", "blue")
    listed.write_text(twice.replace("n00000005", "n00000006"))
    wrong("imagenet", root, r"LOC_synset_mapping\.txt' and the folders of images do not match: n00000005 is not in ")
    listed.write_text(twice + "\nn00000008 teal\nn00000009 gold")
    wrong("imagenet", root, r"n00000008 and 1 more is not in the folders of images")
    own = root / "classnames.txt"  # wins over the other list
    own.write_text("one\ntwo\nthree\nfour\nfive\n")
    assert names() == ("one", "two", "three", "four", "five")
    own.write_text("\n".join(f"{folder} the {name} one" for folder, name in reversed(trees.CLASSES.items())))
    assert names()[0] == "the red one"
    own.write_text("one\ntwo\n")
    wrong("imagenet", root, "classnames.txt' names 2 classes, but there are 5 folders of images")
    own.unlink()
    listed.unlink()
    wrong("imagenet", root, "has folders such as n00000001, but no classnames.txt or LOC_synset_mapping.txt")
    assert names("knn")[0] == "n00000001"  # neighbours need no names
    for part in ("train", "val"):
        for folder in trees.CLASSES:
            (root / part / folder).rename(root / part / f"{trees.CLASSES[folder]}_card")
    assert names() == ("blue card", "cyan card", "green card", "pink card", "red card")


def test_folders_of_classes(tmp_path):
    root = trees.imagenet(tmp_path)
    order = [sample.truth() for sample in open_data("knn", f"imagenet:{root}").samples]
    assert order == [0, 1, 2, 3, 4] * 2  # so that the first so many are of all classes
    trees.paint(root / "val/n00000001/more.WebP", "red")  # endings may be mixed
    (root / "val/n00000001/notes.txt").write_text("not an image")
    assert len(open_data("knn", f"imagenet:{root}").samples) == 11
    (root / "val/n00000007").mkdir()
    wrong("imagenet", root, "n00000007' holds no image .*: remove it")
    (root / "val/n00000007").rmdir()
    (root / "LOC_synset_mapping.txt").unlink()
    (root / "train/n00000005").rename(root / "train/n00000007")
    with pytest.raises(ValueError, match="train has 5 classes and val 5, which must be the same; they differ in"):
        knn.open_both("knn", f"imagenet:{root}", 28)
    for name in ("train", "val"):
        (root / name).rename(root / f"old_{name}")
    (root / "val").mkdir()
    wrong("imagenet", root, "val' has no folders: it needs one per class")
    with pytest.raises(ValueError, match="there is no part 'train': choose val"):
        open_data("knn", f"imagenet:{root}", "train")


def test_kaggles_solutions(tmp_path):
    root = trees.imagenet(tmp_path, kaggle=True)
    path = root / "LOC_val_solution.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, "ILSVRC2012_val_00000099,n00000001 0 0 1 1"]))
    wrong("imagenet-kaggle", root, r"names the image ILSVRC2012_val_00000099\.JPEG, which .* lacks")
    path.write_text("\n".join([*lines, "ILSVRC2012_val_00000099"]))
    wrong("imagenet-kaggle", root, "needs the columns ImageId and PredictionString in every row")


def test_lists_of_instances(tmp_path):
    root = trees.uned(tmp_path)
    queries, index = open_data("instances", f"uned:{root}"), open_data("instances", f"uned:{root}", "index")
    assert queries.samples[6].truth() == (3, 4) and [queries.classes[n] for n in (3, 4)] == ["met/3", "met/4"]
    assert [sample.name for sample in index.samples[:6]] == [sample.name for sample in queries.samples[:6]]
    assert index.samples[6].name == "met/#U7535/0.jpg" == unzipped("met/\u7535/0.jpg")
    cars = root / "info_files/cars/test.json"
    change(cars, lambda rows: rows[1].pop("class_id"))
    wrong("uned", root, "cars/test.json' has an entry without 'class_id'")
    cars.write_text('{"path": 1}')
    wrong("uned", root, "cars/test.json' is not a list of images")
    trees.uned(root)
    (root / "info_files/met/index.json").unlink()
    for part in ("test", "index"):  # else its two queries would be looked for among themselves
        wrong("uned", root, r"info_files/met/index\.json' is missing", part)
    trees.uned(root)
    (root / "images/cars/car_ims/4.jpg").unlink()
    wrong("uned", root, r"cars/test\.json' names the image cars/car_ims/4\.jpg, which .*images' lacks")
    for domain in ("cars", "met"):
        (root / "info_files" / domain / "test.json").unlink()
    wrong("uned", root, "the split is empty")
