"""tipsv2.network.encoder against plain transformers, and every way a model folder can be wrong.

python -m pytest tests/test_encoder.py
"""

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_model
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, Tipsv2Model

from tipsv2.checkpoints.catalogue import ModelError, num_parameters
from tipsv2.images import ImageError, to_tensor
from tipsv2.network import encoder as encoder_module
from tipsv2.network.encoder import load, native_bf16
from tipsv2.prompts import TEMPLATES

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def plain(tiny_folder):
    """The same weights in plain transformers, eager attention, and their tokenizer."""
    return Tipsv2Model.from_pretrained(tiny_folder, attn_implementation="eager").eval(), AutoTokenizer.from_pretrained(
        tiny_folder
    )


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height))


@pytest.fixture
def broken(tiny_folder, tmp_path) -> Path:
    """A copy of the tiny folder, to be broken."""
    return shutil.copytree(tiny_folder, tmp_path / "broken")


# Images


@pytest.mark.parametrize(
    ("size", "resolution", "grid"), [((56, 56), None, (4, 4)), ((90, 120), 70, (5, 7)), ((300, 30), 28, (8, 2))]
)
def test_encode_image_equals_plain_transformers(tiny_encoder, plain, size, resolution, grid):
    image = picture(*size)
    found = tiny_encoder.encode_image(image, resolution)
    with torch.no_grad():
        out = plain[0].get_image_features(to_tensor(image, (grid[0] * 14, grid[1] * 14))[None])
    sequence = out.last_hidden_state[0]
    assert found.size == size and found.patches.shape == found.values.shape == (*grid, 48)
    assert (found.cls - out.pooler_output[0]).abs().max() < 1e-5
    assert (found.caption_cls - sequence[1]).abs().max() < 1e-5
    assert (found.patches.flatten(0, 1) - sequence[2:]).abs().max() < 1e-5
    for value in (found.cls, found.caption_cls, found.patches, found.values):
        assert value.dtype == torch.float32 and value.device.type == "cpu" and not value.requires_grad


def test_encode_images_keeps_the_order_and_equals_one_by_one(tiny_encoder):
    sizes = [(56, 56), (56, 84), (60, 60), (56, 56), (84, 56), (56, 84), (56, 56)]
    images = [picture(*size, seed) for seed, size in enumerate(sizes)]
    alone = [tiny_encoder.encode_image(image) for image in images]
    for batch_size in (1, 2, 16):
        together = tiny_encoder.encode_images(images, batch_size=batch_size)
        for a, b, size in zip(together, alone, sizes, strict=True):
            assert a.size == b.size == size
            assert (a.values - b.values).abs().max() < 1e-5 and (a.cls - b.cls).abs().max() < 1e-5
    assert tiny_encoder.encode_images([]) == []


def test_equal_sizes_go_through_together(tiny_encoder, monkeypatch):
    batches = []
    forward = tiny_encoder.model.vision_model.embeddings.forward

    def spy(pixels, **options):
        batches.append(tuple(pixels.shape))
        return forward(pixels, **options)

    monkeypatch.setattr(tiny_encoder.model.vision_model.embeddings, "forward", spy)
    tiny_encoder.encode_images([picture(56, 56), picture(56, 84), picture(120, 120)] * 2, batch_size=3)
    assert sorted(batches) == [(1, 3, 56, 56), (2, 3, 56, 84), (3, 3, 56, 56)]


def test_encode_pixels(tiny_encoder, plain):
    pixels = torch.rand(2, 3, 42, 56)
    masked = torch.rand(2, 12) < 0.5
    found = tiny_encoder.encode_pixels(pixels, masked)
    with torch.no_grad():
        sequence = plain[0].vision_model(pixels, bool_masked_pos=masked).last_hidden_state
    assert set(found) == {"cls", "caption_cls", "patches", "values"}
    assert (found["patches"].flatten(1, 2) - sequence[:, 2:]).abs().max() < 1e-5
    assert (found["cls"] - sequence[:, 0]).abs().max() < 1e-5
    # Usable as a teacher's target in a loss with gradients.
    student = torch.zeros_like(found["values"], requires_grad=True)
    ((student - found["values"]) * found["values"]).sum().backward()


def test_image_errors_come_through(tiny_encoder):
    with pytest.raises(ImageError, match="no file"):
        tiny_encoder.encode_image("nowhere.png")
    with pytest.raises(ValueError, match="resolution"):
        tiny_encoder.encode_image(picture(20, 20), resolution=0)
    with pytest.raises(ValueError, match="multiples"):
        tiny_encoder.encode_pixels(torch.zeros(1, 3, 57, 56))


# Text


def test_encode_text_equals_plain_transformers(tiny_encoder, plain):
    model, tokenizer = plain
    texts = ["a dog", "The RED car on grass", "cat", "ein Hund, две собаки", "狗", "😀"]
    inputs = tokenizer(texts, padding="max_length", max_length=64, truncation=True, return_tensors="pt")
    with torch.no_grad():
        expected = model.get_text_features(**inputs).pooler_output
    expected = expected / expected.norm(dim=-1, keepdim=True)
    found = tiny_encoder.encode_text(texts)
    assert found.dtype == torch.float32 and (found - expected).abs().max() < 1e-5
    assert expected[0].dot(expected[1]) < 0.999  # the fixture does tell texts apart


def test_padding_does_not_matter(tiny_encoder):
    """Alone, with longer ones, and (above) padded to 64: the same embedding."""
    alone = load(tiny_encoder.info.location, dtype="float32").encode_text(["dog"])
    fresh = load(tiny_encoder.info.location, dtype="float32").encode_text(["dog", "a photo of a dog on grass " * 3])
    assert (alone[0] - fresh[0]).abs().max() < 1e-5


@pytest.mark.parametrize("templates", ["tips9", "clip80", ["a {} and a {}", "{}"]])
def test_templates_are_averaged_on_the_sphere(tiny_encoder, templates):
    frames = TEMPLATES[templates] if isinstance(templates, str) else templates
    found = tiny_encoder.encode_text(["dog", "red car"], templates)
    for row, text in zip(found, ["dog", "red car"], strict=True):
        single = torch.stack([tiny_encoder.encode_text([frame.replace("{}", text)])[0] for frame in frames])
        mean = single.mean(dim=0)
        assert (row - mean / mean.norm()).abs().max() < 1e-5


def test_braces_in_a_text_are_just_text(tiny_encoder):
    found = tiny_encoder.encode_text(["{0} {x} {}"], ["photo of {}."])
    assert torch.equal(found, tiny_encoder.encode_text(["photo of {0} {x} {}."]))


@pytest.mark.parametrize(
    "text", ["x" * 10_000, "dog " * 3000, "😀😀", "狗", "كلب", "\u200b", "\ud83d", "a\0b", "\n dog \t"]
)
def test_unusual_texts(tiny_encoder, text):
    row = tiny_encoder.encode_text([text])[0]
    assert torch.isfinite(row).all() and abs(row.norm() - 1) < 1e-5


def test_long_texts_are_cut_at_64_tokens(tiny_encoder):
    long = "dog " * 64
    assert torch.equal(*tiny_encoder.encode_text([long.strip(), long + "cat sky"]))
    assert not torch.equal(*tiny_encoder.encode_text([long.strip(), "dog " * 63]))


@pytest.mark.parametrize("texts", ["a dog", ["dog", ""], [" \n\t\u3000"], [None], [3], ["a", b"dog"]])
def test_bad_texts(tiny_encoder, texts):
    with pytest.raises(ValueError) as error:
        tiny_encoder.encode_text(texts)
    assert "\n" not in str(error.value) and str(error.value).endswith(".")


@pytest.mark.parametrize("templates", ["clip", "a photo of a {}", [], ["photo"], [3]])
def test_bad_templates(tiny_encoder, templates):
    with pytest.raises(ValueError, match="emplate"):
        tiny_encoder.encode_text(["dog"], templates)


def test_no_texts_give_no_rows(tiny_encoder):
    assert tiny_encoder.encode_text([]).shape == (0, 48)


def test_the_text_cache_saves_work_and_is_bounded(tiny_folder, monkeypatch):
    monkeypatch.setattr(encoder_module, "TEXT_CACHE_SIZE", 3)
    encoder = load(tiny_folder, dtype="float32")
    seen = []
    forward = encoder.model.text_model.forward
    monkeypatch.setattr(
        encoder.model.text_model,
        "forward",
        lambda **inputs: (seen.append(len(inputs["input_ids"])), forward(**inputs))[1],
    )
    first = encoder.encode_text(["dog", "cat", "dog"])
    assert seen == [2] and torch.equal(first[0], first[2])
    first.zero_()  # a caller's own copy
    again = encoder.encode_text(["cat", "dog"])
    assert seen == [2] and (again.norm(dim=1) - 1).abs().max() < 1e-5
    encoder.encode_text(["dog"], "tips9")  # a different entry
    assert seen == [2, 9]
    encoder.encode_text(["sky"])  # pushes out "cat", the least recently used
    encoder.encode_text(["dog"])
    assert seen == [2, 9, 1]
    encoder.encode_text(["cat"])
    assert seen == [2, 9, 1, 1]
    encoder.encode_text([f"dog {number}" for number in range(10)])  # more than the cache holds
    assert len(encoder._texts) == 3


def test_threads_share_one_encoder(tiny_folder):
    encoder = load(tiny_folder, dtype="float32")
    expected = load(tiny_folder, dtype="float32").encode_text([f"dog {number % 7}" for number in range(20)])
    results = []
    threads = [
        threading.Thread(
            target=lambda: results.append(torch.cat([encoder.encode_text([f"dog {n % 7}"]) for n in range(20)]))
        )
        for _ in range(4)
    ]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(results) == 4 and all((result - expected).abs().max() < 1e-5 for result in results)


# Loading


def test_attributes(tiny_encoder, tiny_folder):
    assert (tiny_encoder.patch_size, tiny_encoder.dtype, tiny_encoder.device.type) == (14, torch.float32, "cpu")
    assert tiny_encoder.temperature == pytest.approx(0.02, rel=1e-6)
    assert tiny_encoder.info.resolution == 56 and tiny_encoder.info.location == str(tiny_folder)
    assert not tiny_encoder.model.training and tiny_encoder.model.config.vision_config._attn_implementation == "sdpa"
    assert tiny_encoder.nbytes == 4 * num_parameters(tiny_folder)
    assert "cpu" in repr(tiny_encoder) and "float32" in repr(tiny_encoder)


def test_dtype_auto_follows_the_hardware(tiny_folder):
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    expected = "amx_bf16" in flags or "avx512_bf16" in flags
    assert native_bf16(torch.device("cpu")) == expected
    assert load(tiny_folder, device="cpu").dtype == (torch.bfloat16 if expected else torch.float32)


def test_bfloat16_stays_close_and_gives_float32(tiny_folder, tiny_encoder):
    low = load(tiny_folder, device="cpu", dtype="bfloat16")
    assert low.temperature == tiny_encoder.temperature  # not rounded to eight bits
    image = picture(80, 56)
    for name in ("cls", "caption_cls", "patches", "values"):
        a, b = getattr(low.encode_image(image), name), getattr(tiny_encoder.encode_image(image), name)
        assert a.dtype == torch.float32 and torch.cosine_similarity(a, b, dim=-1).min() > 0.999
    texts = ["dog", "a cat on grass"]
    assert low.encode_text(texts).dtype == torch.float32
    assert torch.cosine_similarity(low.encode_text(texts), tiny_encoder.encode_text(texts)).min() > 0.999


def test_loading_is_silent_and_leaves_transformers_as_it_was(tiny_folder, capfd):
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load(tiny_folder)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.parametrize(("option", "value"), [("device", "tpu0"), ("device", "cuda:99"), ("dtype", "float8")])
def test_bad_devices_and_dtypes(tiny_folder, option, value):
    with pytest.raises(ModelError, match=value):
        load(tiny_folder, **{option: value})


def change_weights(folder: Path, change) -> None:
    """Keys are the released ones: transformers renames on loading and back on saving."""
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_missing_temperature_comes_from_the_configuration(broken):
    change_weights(broken, lambda weights: weights.pop("temperature"))
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"temperature_init_value": 0.0125}))
    assert load(broken).temperature == pytest.approx(0.0125)


def test_a_stored_temperature_wins_over_the_configuration(broken):
    change_weights(broken, lambda weights: weights.update(temperature=torch.tensor(0.0071)))
    assert load(broken, dtype="bfloat16").temperature == pytest.approx(0.0071, rel=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop("vision_encoder.norm.bias"), "1 missing (vision_model.layernorm.bias)"),
        (lambda w: w.pop("vision_encoder.blocks.1.attn.qkv.bias"), "3 missing (vision_model.encoder.layer.1.attention"),
        (lambda w: w.update(stranger=torch.zeros(2)), "1 foreign (stranger)"),
        (lambda w: w.update({"vision_encoder.norm.bias": torch.zeros(7)}), "1 of the wrong shape"),
        (lambda w: [w.pop(key) for key in list(w) if key.startswith("text_encoder")], "missing (text_model"),
    ],
)
def test_anything_but_full_coverage_is_refused(broken, change, words):
    change_weights(broken, change)
    with pytest.raises(ModelError) as error:
        load(broken)
    assert words in str(error.value) and "%" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\x10\0\0\0\0\0\0\0garbage", b"x" * 100])
def test_damaged_weights(broken, content):
    (broken / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError) as error:
        load(broken)
    assert "cannot be read" in str(error.value) and "\n" not in str(error.value)


def test_truncated_weights(broken):
    data = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelError, match="cannot be read"):
        load(broken)


@pytest.mark.parametrize("change", [{"vision_config": {"hidden_size": "wide"}}, {"text_config": {"hidden_size": 50}}])
def test_impossible_configurations(broken, change):
    config = json.loads((broken / "config.json").read_text())
    for part, values in change.items():
        config[part].update(values)
    (broken / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError) as error:
        load(broken)
    assert "\n" not in str(error.value)


def test_damaged_tokenizer(broken):
    (broken / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="tokenizer"):
        load(broken)


def test_a_tokenizer_larger_than_the_model(broken):
    make_model(100).save_pretrained(broken)
    with pytest.raises(ModelError, match="do not fit"):
        load(broken)


def test_without_a_second_cls_both_are_the_first(broken, tiny_encoder):
    make_model(len(tiny_encoder.tokenizer), num_register_tokens=0).save_pretrained(broken)
    found = load(broken).encode_image(picture(60, 60))
    assert torch.equal(found.cls, found.caption_cls)


def test_a_configuration_may_give_the_image_size_as_two(broken):
    config = json.loads((broken / "config.json").read_text())
    config["vision_config"]["image_size"] = [56, 56]
    (broken / "config.json").write_text(json.dumps(config))
    assert load(broken, dtype="float32").encode_image(picture(60, 60)).patches.shape == (4, 4, 48)
    config["vision_config"]["patch_size"] = [14, 14]
    (broken / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="square"):
        load(broken)


def test_code_in_the_folder_never_runs(broken):
    for name in ("modeling_trap.py", "tokenization_trap.py"):
        (broken / name).write_text("raise SystemExit('code out of the folder ran')")
    for name, entries in (
        ("config.json", {"AutoConfig": "modeling_trap.C", "AutoModel": "modeling_trap.M"}),
        ("tokenizer_config.json", {"AutoTokenizer": ["tokenization_trap.T", None]}),
    ):
        content = json.loads((broken / name).read_text())
        (broken / name).write_text(json.dumps(content | {"auto_map": entries}))
    assert load(broken, dtype="float32").encode_text(["dog"]).shape == (1, 48)


def test_importing_is_light():
    """tipsv2 and what the command line needs for --help load neither torch nor transformers, matplotlib or the Hub."""
    code = (
        "import sys, tipsv2, tipsv2.__main__, tipsv2.checkpoints.catalogue, tipsv2.images\n"
        "import tipsv2.analysis.render, tipsv2.analysis.metrics\n"
        "heavy = {'torch', 'transformers', 'matplotlib', 'sklearn', 'skimage', 'huggingface_hub'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_public_names_resolve():
    import tipsv2

    assert {name for name in tipsv2.__all__ if getattr(tipsv2, name) is None} == set()
    assert len(tipsv2.__all__) <= 12 and set(tipsv2.__all__) <= set(dir(tipsv2))
    with pytest.raises(AttributeError, match="nothing"):
        tipsv2.nothing  # noqa: B018
