"""Own labelled pictures: every kind is read as the same label maps, and what is wrong is one sentence at once."""

import json
import shutil

import labelled_folders as made
import numpy as np
import pytest
from PIL import Image

from tipsv2.labelled import open_labelled, parts_of
from tipsv2.labelled.captions import caption, with_article
from tipsv2.labelled.classes import read_synonyms
from tipsv2.labelled.panoptic import plain_name
from tipsv2.labelled.place import Address, absolute, read_address


def assert_as_made(found):
    assert found.classes == made.NAMES and [each.name for each in found.pictures] == list(made.STEMS)
    for number, each in enumerate(found.pictures):
        labels = found.read(each.labels)
        assert labels.dtype == np.int64 and np.array_equal(labels, made.truth(number))
    assert found.unlabelled == pytest.approx(2 / 18)


@pytest.mark.parametrize("kind", [made.numbers, made.colors, made.panoptic])
def test_every_kind_is_the_same_label_maps(kind, tmp_path):
    found = open_labelled(f"folder:{kind(tmp_path)}")
    assert_as_made(found)
    assert found.notes == () and found.part == ("val" if kind is made.panoptic else "all")


def test_sixteen_bits_and_a_palette_of_the_pictures_own(tmp_path):
    wide = made.numbers(tmp_path / "wide", dtype=np.uint16)
    text = (wide / "classes.tsv").read_text().replace("250", "40000")
    (wide / "classes.tsv").write_text(text)
    for file in (wide / "labels").iterdir():
        codes = np.asarray(Image.open(file))
        Image.fromarray(np.where(codes == 250, 40000, codes).astype(np.uint16)).save(file)
    assert_as_made(open_labelled(f"folder:{wide}"))
    indexed = made.numbers(tmp_path / "indexed")
    for file in (indexed / "labels").iterdir():
        labels = Image.open(file)
        labels.putpalette([channel for k in range(256) for channel in (k, 255 - k, 7)])
        labels.save(file)
    assert_as_made(open_labelled(f"folder:{indexed}"))


def test_names_by_number_and_values_that_are_void(tmp_path):
    root = made.numbers(tmp_path)
    (root / "classes.tsv").unlink()
    for file in (root / "labels").iterdir():
        codes = np.asarray(Image.open(file))
        Image.fromarray(np.select([codes == 3, codes == 7, codes == 250], [5, 6, 7], 11).astype(np.uint8)).save(file)
    (tmp_path / "names.txt").write_text("sky\ngrass\ndog\n\n")
    data = f"folder:{root},names={tmp_path / 'names.txt'},first=5"
    assert_as_made(open_labelled(f"{data},void=11"))
    (note,) = open_labelled(data).notes
    assert "11.1 % of the pixels have values that" in note and "(11: 11.1 %): they count as unlabelled" in note
    dogless = open_labelled(f"{data},void=11,void=7")
    assert dogless.classes == ("sky", "grass") and dogless.unlabelled == pytest.approx(5 / 18)
    with pytest.raises(ValueError, match=r"88\.9 % of the pixels .* \(6: 38\.9 %, 5: 33\.3 %, 7: 16\.7 %"):
        open_labelled(f"folder:{root},names={tmp_path / 'names.txt'},first=9,void=0")
    (tmp_path / "gap.txt").write_text("sky\n\ngrass\ndog\n")
    with pytest.raises(ValueError, match=r"gap\.txt', line 2, is empty"):
        open_labelled(data.replace("names.txt", "gap.txt"))
    with pytest.raises(ValueError, match=r"none\.txt' cannot be read \(No such file"):
        open_labelled(data.replace("names.txt", "none.txt"))
    apart = f"folder:,images={root / 'images'},labels={root / 'labels'},names={tmp_path / 'names.txt'},first=5,void=11"
    assert_as_made(open_labelled(apart))


def test_parts_and_their_lists(tmp_path):
    made.numbers(tmp_path, "train", stems="pq")
    made.numbers(tmp_path, "val")
    assert set(parts_of(f"folder:{tmp_path}")) == {"train", "val"}
    assert_as_made(open_labelled(f"folder:{tmp_path}"))  # val is measured where nobody says
    assert_as_made(open_labelled(f"folder:{tmp_path / 'val'}"))  # with the list above it
    assert [each.name for each in open_labelled(f"folder:{tmp_path}", "train").pictures] == ["p", "q"]
    with pytest.raises(ValueError, match=r"no part 'test': choose (val or train|train or val)"):
        open_labelled(f"folder:{tmp_path},part=test")
    inner = tmp_path / "inner"
    for kind in ("images", "labels"):
        for part in ("train", "val"):
            shutil.copytree(tmp_path / part / kind, inner / kind / part)
    shutil.copy(tmp_path / "classes.tsv", inner)
    assert_as_made(open_labelled(f"folder:{inner}"))


def test_label_maps_with_an_ending_of_their_own(tmp_path):
    root = made.numbers(tmp_path)
    for file in sorted((root / "labels").iterdir()):
        file.rename(file.with_name(f"{file.stem}_L.png"))
    assert_as_made(open_labelled(f"folder:{root}"))


def test_coco_json_may_be_given_by_itself(tmp_path):
    root = made.panoptic(tmp_path)
    data = f"folder:,images={root / 'val2017'},labels={root / 'annotations/panoptic_val2017.json'}"
    assert_as_made(open_labelled(data))
    assert [plain_name(name) for name in ("wall-other-merged", "floor-wood", "door-stuff", "cell phone")] == [
        "wall", "floor wood", "door", "cell phone",
    ]  # fmt: skip


@pytest.mark.parametrize("line", ["10 200 30 sky", "sky,10,200,30", "#0AC81E\tsky", "10\t200\t30\t sky "])
def test_palettes_as_people_write_them(line, tmp_path):
    root = made.colors(tmp_path)
    rest = (root / "palette.tsv").read_text().splitlines()[2:]
    (root / "palette.tsv").write_text("\n".join([line, *rest]))
    assert_as_made(open_labelled(f"folder:{root}"))


def test_soft_edges_of_colours_are_unlabelled(tmp_path):
    root = made.colors(tmp_path)
    colors = np.array(Image.open(root / "labels/b.png"))
    colors[0, :8] = (10, 100, 30)
    Image.fromarray(colors).save(root / "labels/b.png")
    found = open_labelled(f"folder:{root}")
    assert (found.read(root / "labels/b.png")[0, :9] == [-1] * 8 + [0]).all()
    assert "0.2 % of the pixels have colours" in found.notes[0] and "#0a641e" in found.notes[0]


def spoil(root, what):
    """One thing wrong in a folder of numbers (or colours, or COCO's JSON); returns its address."""
    labels, classes = root / "labels", root / "classes.tsv"
    if what == "size":
        made.save(labels / "b.png", np.full((21, 14), 3, np.uint8))
    elif what == "label":
        (labels / "b.png").unlink()
    elif what == "values":
        made.save(labels / "b.png", np.full(made.SIZE, 9, np.uint8))
        made.save(labels / "c.png", np.full(made.SIZE, 8, np.uint8))
    elif what == "coloured":
        made.save(labels / "b.png", np.full((*made.SIZE, 3), (9, 8, 7), np.uint8))
    elif what == "jpeg":
        Image.open(labels / "b.png").save(labels / "b.jpg")
        (labels / "b.png").unlink()
    elif what == "cut":
        (labels / "b.png").write_bytes((labels / "b.png").read_bytes()[:60])
    elif what == "picture":
        (root / "images/b.png").write_bytes(b"not a picture")
    elif what == "value twice":
        classes.write_text(classes.read_text() + "3\tcat\n")
    elif what == "name twice":
        classes.write_text(classes.read_text() + "4\tSky\n")
    elif what == "line":
        classes.write_text("value\tname\n3\tsky\ngrass 7\n")
    elif what == "no list":
        classes.unlink()
    elif what == "no class":
        classes.write_text("value\tname\n")
    elif what == "both lists":
        (root / "palette.tsv").write_text("1 2 3 sky\n")
    elif what == "encoding":
        classes.write_bytes("3\tsky\n7\tgräs\n".encode("cp1252"))
    elif what == "no labels":
        shutil.rmtree(labels)
    elif what == "empty":
        for file in (root / "images").iterdir():
            file.unlink()
    elif what == "other classes":
        classes.write_text("99\tcat\n" + "".join(f"{value}\t\n" for value in (0, *made.VALUES)))
    return f"folder:{root}"


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("size", r"1 of 3 label maps have another size .*b\.png' \(14 x 21, the picture 28 x 42\)"),
        ("label", r"1 of 3 pictures of .* have no label map in .*, such as b\.png"),
        ("values", r"66\.7 % of the pixels .* gives no name \((9: 33\.3 %, 8|8: 33\.3 %, 9): 33\.3 %"),
        ("coloured", r"b\.png' holds colours, not numbers: say what they are in a palette\.tsv"),
        ("jpeg", r"b\.jpg' cannot be used: JPEG pictures change labels"),
        ("cut", r"b\.png' cannot be used: .*truncated or damaged"),
        ("picture", r"'b' of .*images' cannot be used: 'b\.png' is not a picture"),
        ("value twice", r"line 6: the value 3 is both 'sky' and 'cat'"),
        ("name twice", r"names 'Sky' twice"),
        ("line", r"line 3, is 'grass 7': write VALUE<tab>NAME"),
        ("no list", r"has neither classes\.tsv .* nor palette\.tsv"),
        ("no class", r"names no class"),
        ("both lists", r"has both classes\.tsv and palette\.tsv"),
        ("encoding", r"is not text in UTF-8"),
        ("no labels", r"lacks images/ or labels/"),
        ("empty", r"holds no picture"),
        ("other classes", r"none of the label maps, such as .*a\.png', holds a pixel of a class"),
    ],
)
def test_sentences(what, words, tmp_path):
    with pytest.raises(ValueError, match=words) as error:
        open_labelled(spoil(made.numbers(tmp_path), what))
    if what != "no labels":  # which shows the tree that is expected
        assert "\n" not in str(error.value)


def test_sentences_about_palettes(tmp_path):
    root = made.colors(tmp_path)
    palette = root / "palette.tsv"
    whole = palette.read_text()
    for text, words in (
        (
            whole.replace("10 200 31\tgrass", ""),
            r"does not cover the label maps: 38\.9 % .* \(#0ac81f: 38\.9 %; most in",
        ),
        (f"{whole}\n10 200 30 cat", "the colour #0ac81e is both 'sky' and 'cat'"),
        (f"{whole}\n1 2 grey", r"line 6, is '1 2 grey': write R G B NAME"),
        (f"{whole}\n1 2 300 grey", r"line 6: the colour \(1, 2, 300\) has more than 255"),
    ):
        palette.write_text(text)
        with pytest.raises(ValueError, match=words):
            open_labelled(f"folder:{root}")


def test_sentences_about_cocos_json(tmp_path):
    root = made.panoptic(tmp_path)
    file = root / "annotations/panoptic_val2017.json"
    whole = json.loads(file.read_text())

    def said(content):
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        with pytest.raises(ValueError) as error:
            open_labelled(f"folder:{root}")
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "is not JSON" in said(json.dumps(whole)[:-5])
    assert "without 'segments_info'" in said(whole | {"annotations": [{"file_name": "a.png", "image_id": 0}]})
    assert "the category 198, which it does not list" in said(whole | {"categories": whole["categories"][:2]})
    twice = [*whole["categories"], {"id": 5, "name": "Dog"}]
    assert "names 'Dog' twice" in said(whole | {"categories": twice})
    (root / "val2017/b.png").unlink()
    assert "names 1 pictures that" in said(whole)


def test_an_address_is_read_and_written_back():
    text = "folder:/data/a, b/street,names=/x/names.txt,first=0,void=11,void=255,part=val"
    found = read_address(text)
    assert str(found) == text and str(found.root) == "/data/a, b/street" and found.void == (11, 255)
    assert read_address(str(Address(images=found.root, labels=found.names))) == Address(None, found.root, found.names)
    assert absolute("folder:street,names=n.txt").count("/street,names=/") == 1
    for wrong, words in (
        ("folder:", "names no folder"),
        ("folder:,images=a", "names no folder"),
        ("folder:a,images=b", "the images or the labels only"),
        ("folder:a,first=one", "first=one .* must be a number"),
        ("folder:a,names=b,palette=c", "both a list of names and a palette"),
        ("folder:/no/such/place", "there is no folder '/no/such/place'"),
    ):
        with pytest.raises(ValueError, match=words):
            parts_of(wrong)


def test_what_changes_is_looked_at_again(tmp_path):
    root = made.numbers(tmp_path)
    assert_as_made(open_labelled(f"folder:{root}"))
    made.save(root / "labels/a.png", np.full((9, 9), 3, np.uint8))
    with pytest.raises(ValueError, match="another size"):
        open_labelled(f"folder:{root}")


def test_a_turned_photograph_is_compared_upright(tmp_path):
    root = made.numbers(tmp_path)
    lying = Image.fromarray(made.picture(0)).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[274] = 6
    lying.save(root / "images/a.jpg", exif=exif)
    (root / "images/a.png").unlink()
    assert_as_made(open_labelled(f"folder:{root}"))


def test_synonyms(tmp_path):
    root = made.numbers(tmp_path)
    (root / "synonyms.tsv").write_text("name\tword\ndog\thound\nDog\tpuppy\ncat\tkitten\n")
    found = open_labelled(f"folder:{root}")
    assert found.synonyms == ((2, "hound"), (2, "puppy"))
    assert "synonyms.tsv has words for cat" in found.notes[0]
    (root / "synonyms.tsv").write_text("name\tword\ndog hound\n")
    with pytest.raises(ValueError, match=r"line 2, is 'dog hound': write NAME<tab>another word"):
        open_labelled(f"folder:{root}")
    (root / "synonyms.tsv").write_bytes("dog\thündchen\n".encode("cp1252"))
    with pytest.raises(ValueError, match=r"synonyms\.tsv' is not text in UTF-8"):
        open_labelled(f"folder:{root}")
    (root / "synonyms.tsv").write_text("\ufeffdog\t a  hound\tnot read\n\nname\tword\n")
    assert read_synonyms(root / "synonyms.tsv") == [("dog", "a hound"), ("name", "word")]  # titles stand at the top
    (root / "synonyms.tsv").write_text("\thound\n")
    with pytest.raises(ValueError, match="line 1, is 'hound': write NAME<tab>"):
        read_synonyms(root / "synonyms.tsv")


def test_captions_from_label_maps():
    names = ("dog", "grass", "apple", "skis", "bus", "floor wood")
    labels = np.repeat([[1, 1, 1, 0, 0, 2]], 4, axis=0)
    assert caption(labels, names) == "a photo of grass, a dog and an apple"
    assert caption(np.full((4, 4), -1), names) == ""
    few = np.full((100, 100), 4)
    few[0, :40] = 0  # under half a percent
    assert caption(few, names) == "a photo of a bus"
    few[:] = -1
    few[0, :40] = 0
    assert caption(few, names) == "a photo of a dog"  # better than nothing
    assert [with_article(name) for name in names[3:]] == ["skis", "a bus", "floor wood"]
