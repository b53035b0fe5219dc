"""tipsv2.convert against the official PyTorch implementation's own numbers (tests/data/tiny_*_expected.npz).

python -m pytest tests/test_convert.py
"""

import shutil

import numpy as np
import pytest
import torch
from conftest import DATA
from transformers import Tipsv2Model

from tipsv2.catalogue import ModelError
from tipsv2.convert import config_of, convert, from_official, read_npz
from tipsv2.dense import vision_features
from tipsv2.encoder import load

KINDS = ("tiny_mlp", "tiny_swiglu")
TOLERANCE = 1e-5


@pytest.fixture(scope="module", params=KINDS)
def golden(request):
    """(model made from the official files, what the official code computes with them)."""
    model = from_official(DATA / f"{request.param}_vision.npz", DATA / f"{request.param}_text.npz", heads=4)
    return model, read_npz(DATA / f"{request.param}_expected.npz")


@pytest.mark.parametrize("shape", ["square", "wide", "tall"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_image_features_equal_the_official_ones(golden, shape, attention):
    model, expected = golden
    model.set_attn_implementation(attention)
    pixels = torch.from_numpy(expected[f"{shape}.image"])
    with torch.no_grad():
        cls, caption_cls, patches, values = vision_features(model.vision_model, pixels)
    height, width = pixels.shape[2] // 14, pixels.shape[3] // 14
    assert patches.shape == values.shape == (2, height, width, 48)
    for name, found in (("cls1", cls[:, None]), ("cls2", caption_cls[:, None])):
        assert np.abs(found.numpy() - expected[f"{shape}.{name}"]).max() < TOLERANCE
    for name, found in (("patches", patches), ("values", values)):
        assert np.abs(found.flatten(1, 2).numpy() - expected[f"{shape}.{name}"]).max() < TOLERANCE


def test_masked_pass_equals_the_official_one(golden):
    model, expected = golden
    with torch.no_grad():
        cls, caption_cls, patches, _ = vision_features(
            model.vision_model, torch.from_numpy(expected["masked.image"]), torch.from_numpy(expected["masked.mask"])
        )
    found = {"cls1": cls[:, None], "cls2": caption_cls[:, None], "patches": patches.flatten(1, 2)}
    for name, value in found.items():
        assert np.abs(value.numpy() - expected[f"masked.{name}"]).max() < TOLERANCE


def test_text_embedding_equals_the_official_one(golden):
    model, expected = golden
    with torch.no_grad():
        pooled = model.text_model(
            input_ids=torch.from_numpy(expected["text.ids"]),
            attention_mask=torch.from_numpy(1 - expected["text.paddings"]).long(),
        ).pooler_output
    assert np.abs(pooled.numpy() - expected["text.embedding"]).max() < TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_the_folder_opens_with_plain_transformers_and_here(tmp_path, tiny_folder, kind):
    files = DATA / f"{kind}_vision.npz", DATA / f"{kind}_text.npz"
    out = convert(*files, tmp_path / "out", heads=4)
    assert not list(out.glob("tokenizer*"))
    model, report = Tipsv2Model.from_pretrained(out, output_loading_info=True)
    assert not (report["missing_keys"] or report["unexpected_keys"] or report["mismatched_keys"])
    before = from_official(*files, heads=4).state_dict()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    stored = float(read_npz(files[1])["temperature"])
    assert float(model.temperature.detach()) == model.config.temperature_init_value == pytest.approx(stored)
    # With a tokenizer the folder is an encoder; the fixture's has more tokens than the golden text tower.
    with pytest.raises(ModelError, match="do not fit"):
        load(convert(*files, tmp_path / "with", heads=4, tokenizer=tiny_folder))
    with pytest.raises(ModelError, match="no tokenizer files"):
        convert(*files, tmp_path / "without", heads=4, tokenizer=tmp_path)


def changed(tmp_path, part: str, change) -> list:
    """The golden pair with the arrays of one part changed in place by `change`."""
    paths = {"vision": DATA / "tiny_mlp_vision.npz", "text": DATA / "tiny_mlp_text.npz"}
    arrays = read_npz(paths[part])
    change(arrays)
    paths[part] = tmp_path / f"{part}.npz"
    np.savez(paths[part], **arrays)
    return [paths["vision"], paths["text"]]


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("vision", lambda a: a.pop("blocks.1.ls2.gamma"), "vision_model.encoder.layer.1.layer_scale2.lambda1"),
        ("vision", lambda a: a.pop("mask_token"), "embeddings.mask_token"),
        ("text", lambda a: a.pop("ln_final.bias"), "text_model.final_layer_norm.bias"),
        ("text", lambda a: a.pop("temperature"), "temperature"),
        ("vision", lambda a: a.update({"head.weight": np.zeros(3)}), "vision head.weight"),
        ("vision", lambda a: a.update({"blocks.0.attn.rope": np.zeros(3)}), "vision blocks.0.attn.rope"),
        ("vision", lambda a: a.update({"blocks.0.mlp.w3.bias": np.zeros(48)}), "mlp.down_proj.bias"),
        ("text", lambda a: a.update({"positional_embedding": np.zeros((64, 48))}), "text positional_embedding"),
        ("vision", lambda a: a.update({"norm.weight": np.zeros(47)}), "layernorm.weight [47] for [48]"),
        ("vision", lambda a: a.update({"blocks.0.attn.qkv.bias": np.zeros(143)}), "blocks.0.attn.qkv.bias"),
        ("vision", lambda a: a.update({"pos_embed": np.zeros((1, 16, 48))}), "pos_embed"),
        ("vision", lambda a: a.pop("cls_token"), "cls_token"),
    ],
)
def test_every_key_must_be_used_and_every_parameter_set(tmp_path, part, change, words):
    with pytest.raises(ModelError) as error:
        from_official(*changed(tmp_path, part, change), heads=4)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_nothing_is_written_when_it_does_not_fit(tmp_path):
    with pytest.raises(ModelError):
        convert(*changed(tmp_path, "text", lambda a: a.pop("ln_final.bias")), tmp_path / "out", heads=4)
    assert not (tmp_path / "out").exists()


def test_heads_are_asked_for_unless_the_width_is_known():
    files = DATA / "tiny_mlp_vision.npz", DATA / "tiny_mlp_text.npz"
    with pytest.raises(ModelError, match="attention heads of width 48"):
        from_official(*files)
    with pytest.raises(ModelError, match="attention heads"):
        from_official(*files, heads=5)


@pytest.mark.parametrize(
    ("width", "hidden", "swiglu", "heads"),
    [(768, 3072, False, 12), (1024, 4096, False, 16), (1152, 4304, False, 16), (1536, 4096, True, 24)],
)
def test_released_sizes(width, hidden, swiglu, heads):
    """Heads and feed-forward sizes of the released models come out of their shapes (papers: TIPSv2, table of sizes)."""
    feed_forward = (
        {"blocks.0.mlp.w12.weight": (2 * hidden, width), "blocks.0.mlp.w3.weight": (width, hidden)}
        if swiglu
        else {"blocks.0.mlp.fc1.weight": (hidden, width)}
    )
    shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1025, width),
        "register_tokens": (1, 1, width),
        "patch_embed.proj.weight": (width, 3, 14, 14),
        **feed_forward,
    }
    text_shapes = {
        "token_embedding.weight": (32000, width),
        "transformer.resblocks.0.mlp.c_fc.weight": (4 * width, width),
        "temperature": (),
    }

    def empty(shapes):
        return {key: np.broadcast_to(np.float32(0.005), shape) for key, shape in shapes.items()}

    config = config_of(empty(shapes), empty(text_shapes))
    vision = config.vision_config
    assert (vision.num_attention_heads, vision.image_size, vision.use_swiglu_ffn) == (heads, 448, swiglu)
    vision.num_hidden_layers = 1
    with torch.device("meta"):
        mlp = Tipsv2Model(config).vision_model.encoder.layer[0].mlp
    assert (mlp.down_proj.in_features if swiglu else mlp.fc1.out_features) == hidden


def test_pickles_are_never_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    np.savez(tmp_path / "trap.npz", cls_token=np.array([Trap()], dtype=object))
    shutil.copy(DATA / "tiny_mlp_text.npz", tmp_path / "text.npz")
    with pytest.raises(ModelError, match=r"trap.npz"):
        from_official(tmp_path / "trap.npz", tmp_path / "text.npz", heads=4)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"not a zip"])
def test_unreadable_files(tmp_path, content):
    (tmp_path / "broken.npz").write_bytes(content)
    with pytest.raises(ModelError, match=r"broken.npz"):
        read_npz(tmp_path / "broken.npz")
    with pytest.raises(ModelError, match="no file"):
        read_npz(tmp_path / "absent.npz")
    np.save(tmp_path / "single.npy", np.zeros(3))
    with pytest.raises(ModelError, match=r"single.npy"):
        read_npz(tmp_path / "single.npy")
