"""tipsv2.analysis.depth and tipsv2.analysis.depth_picture: against transformers' own forward pass on a tiny random
model, and closed forms.

python -m pytest tests/test_dpt.py
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file

from tipsv2.__main__ import main
from tipsv2.analysis.depth import ADE20K, MAX_PATCHES, load_dpt
from tipsv2.checkpoints import catalogue
from tipsv2.checkpoints.catalogue import ModelError
from tipsv2.network.encoder import load

ROOT = Path(__file__).parent.parent
CLASSES = 5
NETWORKS = {
    "depth": "Tipsv2DptForDepthEstimation",
    "normals": "Tipsv2DptForNormalEstimation",
    "segmentation": "Tipsv2DptForSemanticSegmentation",
}


def make_dpt(network: str = "Tipsv2DptForDensePrediction", classes: int = CLASSES, seed: int = 0, **vision):
    """A random model with the releases' anatomy: width 48, four blocks, four levels; 56 pixels."""
    import transformers

    backbone = transformers.Tipsv2VisionConfig(
        hidden_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        out_indices=[1, 2, 3, 4],
        apply_layernorm=True,
        reshape_hidden_states=False,
        **dict(image_size=56) | vision,
    )
    config = transformers.Tipsv2DptConfig(
        backbone_config=backbone, neck_hidden_sizes=[6, 12, 24, 48], fusion_hidden_size=16, num_labels=classes
    )
    torch.manual_seed(seed)
    model = getattr(transformers, network)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.fixture(scope="module")
def plain():
    """The model as transformers built it; `folder` holds the same."""
    return make_dpt()


@pytest.fixture(scope="module")
def folder(plain, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dpt") / "tiny-dpt"
    plain.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def image() -> Image.Image:
    """70 x 45 pixels: blobs, so that neighbours resemble each other."""
    noise = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((70, 45), Image.Resampling.BICUBIC)


def plain_outputs(model, image, size):
    """transformers' forward pass on the image resized to size (H, W)."""
    pixels = np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR), np.float32) / 255
    with torch.no_grad():
        return model(torch.from_numpy(pixels).permute(2, 0, 1)[None])


def enlarge(maps, size):
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)[0]


def sentence(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text and text.endswith((".", "?")), text
    return text


def test_predict_equals_the_plain_forward_pass(plain, folder, image):
    found = load_dpt(folder, device="cpu").predict(image)
    # 45 rows become 56 pixels, 70 columns 87: the nearest even number of patches is 6, that is 84 pixels.
    expected = plain_outputs(plain, image, (56, 84))
    assert found.grid == (4, 6)
    depth = enlarge(expected.predicted_depth[None], (45, 70))[0].numpy()
    assert found.depth.dtype == np.float32 and found.depth.shape == (45, 70)
    assert np.allclose(found.depth, depth, atol=1e-5) and np.ptp(depth) > 0.05
    unit = expected.normals / expected.normals.norm(dim=1, keepdim=True)
    normals = enlarge(unit, (45, 70)).permute(1, 2, 0).numpy()
    normals = normals / np.linalg.norm(normals, axis=2, keepdims=True)
    assert found.normals.dtype == np.float32 and found.normals.shape == (45, 70, 3)
    assert np.allclose(found.normals, normals, atol=1e-5) and np.ptp(normals) > 0.1
    logits = enlarge(expected.segmentation_logits, (45, 70))
    top = logits.topk(2, dim=0).values
    clear = (top[0] - top[1] > 1e-4).numpy()
    assert found.labels.dtype == np.int16 and found.labels.shape == (45, 70)
    assert (found.labels == logits.argmax(dim=0).numpy())[clear].all() and clear.mean() > 0.95
    assert len(np.unique(found.labels)) > 1
    shares = found.shares()
    assert list(shares.values()) == sorted(shares.values(), reverse=True) and sum(shares.values()) == pytest.approx(1)
    for name, share in shares.items():
        assert share == np.mean(found.labels == found.classes.index(name)) and share > 0


def test_resolution_and_any_image(plain, folder, image, tmp_path):
    model = load_dpt(folder, device="cpu")
    image.save(tmp_path / "image.png")
    found = model.predict(tmp_path / "image.png", resolution=30)  # 28 x 56: an odd 1 x 3 patches would be nearer
    assert found.grid == (2, 4)
    expected = plain_outputs(plain, image, (28, 56))
    assert np.allclose(found.depth, enlarge(expected.predicted_depth[None], (45, 70))[0].numpy(), atol=1e-5)
    tiny = model.predict(np.zeros((1, 2), np.uint8))
    assert tiny.depth.shape == tiny.labels.shape == (1, 2) and tiny.normals.shape == (1, 2, 3)
    with pytest.raises(ValueError, match="resolution"):
        model.predict(image, resolution=0)
    with pytest.raises(ValueError, match="nowhere.png"):
        model.predict("nowhere.png")


def test_the_patches_have_a_limit(folder):
    model = load_dpt(folder, device="cpu")
    for width, height in ((4000, 3000), (3000, 3000), (500, 9000)):
        rows, columns = model._fit(width, height, 4096)
        assert rows % 28 == columns % 28 == 0
        assert 0.85 * MAX_PATCHES < rows * columns / 196 <= MAX_PATCHES
        assert columns / rows == pytest.approx(np.clip(width / height, 1 / 4, 4), rel=0.05)
    assert model._fit(640, 480, 448) == (448, 588)  # 597 would be no multiple of 28


def test_the_exact_level(plain, folder):
    model = load_dpt(folder, device="cpu")
    pixels = torch.rand(2, 3, 28, 56, generator=torch.Generator().manual_seed(0))
    found = model.predict_pixels(pixels)
    with torch.no_grad():
        expected = plain(pixels)
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "depth": (2, 16, 32),
        "normals": (2, 3, 16, 32),
        "logits": (2, CLASSES, 16, 32),
    }
    assert torch.allclose(found["depth"], expected.predicted_depth, atol=1e-5)
    assert torch.allclose(found["logits"], expected.segmentation_logits, atol=1e-4)
    assert torch.allclose(found["normals"].norm(dim=1), torch.ones(2, 16, 32), atol=1e-5)
    assert model.predict_pixels(torch.zeros(1, 3, 42, 14))["depth"].shape == (1, 32, 16)  # odd counts as one more
    for shape in ((1, 3, 28, 30), (3, 28, 28), (1, 3, 0, 28)):
        with pytest.raises(ValueError, match="patch size 14"):
            model.predict_pixels(torch.zeros(shape))


def test_closed_forms(folder, tmp_path, image):
    """With the last layers' weights at zero, what they predict is their bias, everywhere."""
    weights = load_file(folder / "model.safetensors")
    for name in ("depth_head.depth_head", "normals_head.normals_head", "segmentation_head.segmentation_head"):
        weights[f"{name}.weight"].zero_()
        weights[f"{name}.bias"].zero_()
    weights["normals_head.normals_head.bias"][:] = torch.tensor([0.0, -3.0, 4.0])
    weights["segmentation_head.segmentation_head.bias"][3] = 1.0
    copy = shutil.copytree(folder, tmp_path / "zero")
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    found = load_dpt(copy).predict(image)
    assert np.allclose(found.depth, (0.001 + 10) / 2, atol=1e-4)  # all bins alike: the middle of the range
    assert np.allclose(found.normals, [0, -0.6, 0.8], atol=1e-6)
    assert (found.labels == 3).all() and found.shares() == {"class 3": 1.0}
    weights["depth_head.depth_head.bias"][51] = 1e6  # one bin alone: 0.001 + 51/255 of the range
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    assert np.allclose(load_dpt(copy).predict(image).depth, 0.001 + 0.2 * 9.999, atol=1e-4)


@pytest.mark.parametrize("head", NETWORKS)
def test_one_head(head, tmp_path, image):
    model = make_dpt(NETWORKS[head], seed=1)
    model.save_pretrained(tmp_path / "one")
    dpt = load_dpt(tmp_path / "one", device="cpu")
    assert dpt.heads == (head,) and type(dpt.model) is type(model)
    found = dpt.predict(image)
    given = {"depth": found.depth, "normals": found.normals, "segmentation": found.labels}
    assert [name for name, value in given.items() if value is not None] == [head]
    assert len(found.classes) == (CLASSES if head == "segmentation" else 0)
    assert bool(found.shares()) == (head == "segmentation")
    expected = plain_outputs(model, image, (56, 84))
    if head == "depth":
        assert np.allclose(found.depth, enlarge(expected.predicted_depth[None], (45, 70))[0].numpy(), atol=1e-5)
    elif head == "normals":
        assert np.allclose(np.linalg.norm(found.normals, axis=2), 1, atol=1e-5)
    else:
        assert (found.labels == enlarge(expected.logits, (45, 70)).argmax(dim=0).numpy()).mean() > 0.99


def test_the_folder_is_laid_out_as_the_releases_are(folder, tmp_path, image):
    """Names as in google/tipsv2-b14-dpt (transformers' conversion_mapping reads them), whatever class it says it is."""
    names = {name.split(".")[0] for name in load_file(folder / "model.safetensors")}
    assert names == {"vision_encoder", "depth_head", "normals_head", "segmentation_head"}
    copy = shutil.copytree(folder, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    config |= {"architectures": ["TIPSv2DPTModel"], "auto_map": {"AutoModel": "modeling_dpt.TIPSv2DPTModel"}}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "modeling_dpt.py").write_text("raise SystemExit('ran')")
    other = load_dpt(copy, device="cpu")
    assert other.heads == ("depth", "normals", "segmentation")
    assert np.array_equal(other.predict(image).depth, load_dpt(folder, device="cpu").predict(image).depth)


def test_attention_is_not_materialised(folder):
    assert load_dpt(folder).model.backbone.config._attn_implementation == "sdpa"


def test_class_names(folder, tmp_path):
    assert load_dpt(folder).classes == tuple(f"class {index}" for index in range(CLASSES))
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {str(index): name for index, name in enumerate(("wall", "door", "sea", "bed", "door"))}
    copy = shutil.copytree(folder, tmp_path / "named")
    (copy / "config.json").write_text(json.dumps(config))
    assert load_dpt(copy).classes == ("wall", "door (1)", "sea", "bed", "door (4)")  # shares() needs them apart
    make_dpt("Tipsv2DptForSemanticSegmentation", classes=150).save_pretrained(tmp_path / "ade")
    assert load_dpt(tmp_path / "ade").classes == ADE20K


def test_ade20k_classes():
    """150 names; the pixel frequency order of sceneparsing's table starts like this, and these are its numbers - 1."""
    assert len(ADE20K) == len(set(ADE20K)) == 150
    assert ADE20K[:5] == ("wall", "building", "sky", "floor", "tree") and ADE20K[-1] == "flag"
    numbers = {"person": 12, "car": 20, "sofa": 23, "bookcase": 62, "airplane": 90, "animal": 126, "bicycle": 127}
    assert {name: ADE20K.index(name) for name in numbers} == numbers


def test_bfloat16_is_near_and_float16_is_refused(folder, image):
    full, half = load_dpt(folder, device="cpu"), load_dpt(folder, device="cpu", dtype="bfloat16")
    assert (full.dtype, half.dtype) == (torch.float32, torch.bfloat16) and "bfloat16" in repr(half)
    depth = half.predict(image).depth
    assert depth.dtype == np.float32 and np.allclose(depth, full.predict(image).depth, rtol=0.1)
    for dtype in ("float16", torch.float16):
        with pytest.raises(ModelError, match="65504"):
            load_dpt(folder, dtype=dtype)
    with pytest.raises(ModelError, match="Unknown dtype 'int8'"):
        load_dpt(folder, dtype="int8")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tipsv2-b14", "take tipsv2-b14-dpt"),
        ("google/tipsv2-g14", "take tipsv2-g14-dpt"),
        ("opentips-nano", "take tipsv2-b14-dpt"),
        ("tipsv2-l14-dtp", "did you mean tipsv2-l14-dpt"),
        ("nowhere/at/all", "no model or folder"),
        ("google/tipsv2-b14-dpt", "folder of a copy"),  # conftest sets HF_HUB_OFFLINE
    ],
)
def test_names_that_cannot_be_loaded(name, words, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError) as error:
        load_dpt(name)
    assert words in sentence(error)


def test_an_encoder_is_no_dpt_model_nor_the_other_way_round(tiny_folder, folder):
    with pytest.raises(ModelError) as error:
        load_dpt(tiny_folder)
    assert "type 'tipsv2', not 'tipsv2_dpt'" in sentence(error) and "DPT heads" in sentence(error)
    with pytest.raises(ModelError) as error:
        load(folder)
    assert "type 'tipsv2_dpt', not 'tipsv2'" in sentence(error)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop("segmentation_head.segmentation_head.bias"), "1 missing (segmentation_decoder.head.bias)"),
        (lambda w: w.update(stray=torch.zeros(2)), "1 foreign (stray)"),
        (lambda w: w.update({"depth_head.project.bias": torch.zeros(3)}), "1 of the wrong shape (depth_decoder"),
        (lambda w: [w.pop(k) for k in [*w] if k.startswith("vision_encoder")], "missing (backbone."),
        (lambda w: [w.pop(k) for k in [*w] if k.startswith("normals_head")], "missing (normals_decoder."),
    ],
)
def test_every_weight_is_accounted_for(folder, tmp_path, change, words):
    copy = shutil.copytree(folder, tmp_path / "model")
    weights = load_file(copy / "model.safetensors")
    change(weights)
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError) as error:
        load_dpt(copy)
    assert words in sentence(error) and "cover" in sentence(error)


def test_damaged_folders(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "model")
    (copy / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be read") as error:
        load_dpt(copy)
    sentence(error)
    (copy / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no model\.safetensors"):
        load_dpt(copy)


def test_a_folder_needs_no_tokenizer_and_is_cached(folder):
    assert catalogue.is_cached(catalogue.find(folder)) and not (folder / "tokenizer.json").exists()
    info = load_dpt(folder).info
    assert (info.width, info.resolution) == (48, 56)


# The command


def test_depth_command(folder, image, tmp_path, capsys):
    image.save(tmp_path / "image.png")
    out = tmp_path / "deep" / "out.png"
    arrays = tmp_path / "arrays.npz"
    arguments = ["depth", str(tmp_path / "image.png"), "--model", str(folder), "--device", "cpu"]
    assert main([*arguments, "--out", str(out), "--arrays", str(arrays)]) == 0
    expected = load_dpt(folder, device="cpu").predict(image)
    with np.load(arrays, allow_pickle=False) as stored:
        assert np.allclose(stored["depth"], expected.depth) and np.allclose(stored["normals"], expected.normals)
        assert np.array_equal(stored["labels"], expected.labels) and stored["classes"].tolist() == [*expected.classes]
    picture = np.asarray(Image.open(out))
    assert picture.shape[0] >= 45 and picture.shape[1] > 4 * 70  # four panels, a bar and a legend
    assert np.array_equal(picture[:45, :70], np.asarray(image))
    printed = capsys.readouterr()
    assert f"depth  {expected.depth.min():.2f} m to {expected.depth.max():.2f} m" in printed.out
    assert all(name in printed.out for name in expected.shares()) and "Dpt(tiny-dpt" in printed.err


def test_panels_of_one_head_and_of_a_large_image(tmp_path):
    make_dpt("Tipsv2DptForNormalEstimation").save_pretrained(tmp_path / "normals")
    from tipsv2.analysis.depth_picture import LONGEST, panels

    pixels = np.zeros((300, 1500, 3), np.uint8)
    found = load_dpt(tmp_path / "normals", device="cpu").predict(pixels)
    made = panels(pixels, found)
    assert list(made) == ["image", "normals"]
    assert made["normals"].shape == (LONGEST // 5, LONGEST, 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.png"], "no file 'nowhere.png'"),
        (["{image}", "--model", "opentips-nano"], "take tipsv2-b14-dpt"),
        (["{image}", "--model", "{folder}", "--colormap", "nope"], "colormap 'nope'"),
        (["{image}", "--model", "{folder}", "--resolution", "-1"], "resolution"),
        (["{image}", "--model", "{folder}", "--out", "{image}/x.png"], "image.png"),
    ],
)
def test_sentences(folder, image, tmp_path, capsys, arguments, words):
    image.save(tmp_path / "image.png")
    places = {"image": tmp_path / "image.png", "folder": folder}
    assert main(["depth", *(argument.format(**places) for argument in arguments)]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("tipsv2: ") and words in last


def test_the_command_adds_nothing_heavy():
    code = (
        "import sys, tipsv2.analysis.depth_picture\n"
        "assert not {'torch', 'transformers', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
