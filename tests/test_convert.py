"""tipsv2.sharing.convert against the official PyTorch implementation's own numbers
(tests/data/tiny_*_expected.npz), both ways.

python -m pytest tests/test_convert.py
"""

import json
import resource
import shutil

import numpy as np
import pytest
import torch
from conftest import DATA
from transformers import Tipsv2Model

from tipsv2.__main__ import main
from tipsv2.checkpoints.catalogue import ModelError
from tipsv2.checkpoints.official import config_of, official, read_npz, state_dict
from tipsv2.network.dense import vision_features
from tipsv2.network.encoder import load
from tipsv2.sharing.convert import check_fit, from_official, to_folder, to_official

KINDS = ("tiny_mlp", "tiny_swiglu")
TOLERANCE = 1e-5


def pair(kind: str) -> tuple:
    return DATA / f"{kind}_vision.npz", DATA / f"{kind}_text.npz"


@pytest.fixture(scope="module", params=[(kind, turns) for kind in KINDS for turns in (0, 1)], ids=str)
def golden(request, tmp_path_factory):
    """(model, what the official code computes with its weights): made from the official files, or from files that
    were made from a folder that was made from them.
    """
    kind, turns = request.param
    files = pair(kind)
    if turns:
        place = tmp_path_factory.mktemp(kind)
        to_folder(*files, place / "folder", heads=4)
        files = to_official(Tipsv2Model.from_pretrained(place / "folder"), place / "again").written
    return from_official(*files, heads=4), read_npz(DATA / f"{kind}_expected.npz")


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
    out = tmp_path / "out"
    done = to_folder(*pair(kind), out, heads=4)
    assert done.written == (out,) and not list(out.glob("tokenizer*"))
    model, report = Tipsv2Model.from_pretrained(out, output_loading_info=True)
    assert not (report["missing_keys"] or report["unexpected_keys"] or report["mismatched_keys"])
    before = from_official(*pair(kind), heads=4).state_dict()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    stored = float(read_npz(pair(kind)[1])["temperature"])
    assert float(model.temperature.detach()) == model.config.temperature_init_value == stored
    with pytest.raises(ModelError, match="do not fit"):  # the fixture's has more tokens than the golden text tower
        to_folder(*pair(kind), tmp_path / "with", heads=4, tokenizer=tiny_folder)
    with pytest.raises(ModelError, match="no tokenizer files"):
        to_folder(*pair(kind), tmp_path / "without", heads=4, tokenizer=tmp_path)
    assert not (tmp_path / "with").exists() and not (tmp_path / "without").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_files_to_folder_to_files_keeps_every_bit(tmp_path, kind):
    done = to_folder(*pair(kind), tmp_path / "folder", heads=4)
    back = to_official(Tipsv2Model.from_pretrained(tmp_path / "folder"), tmp_path / "back")
    assert [path.name for path in back.written] == ["back_vision.npz", "back_text.npz"]
    for before, after in zip(map(read_npz, pair(kind)), map(read_npz, back.written), strict=True):
        assert list(before) == list(after)
        for key, array in before.items():
            assert (array.dtype, array.shape) == (after[key].dtype, after[key].shape)
            assert array.tobytes() == after[key].tobytes(), key
    counts = [len(read_npz(path)) for path in pair(kind)]
    assert [done.vision_keys, done.text_keys] == [back.vision_keys, back.text_keys] == counts
    assert done.parameters == len(Tipsv2Model.from_pretrained(tmp_path / "folder").state_dict())


def test_folder_to_files_to_folder_keeps_every_bit(tmp_path, capsys):
    """The bundled encoder through the command line, tokenizer included: it is the same encoder afterwards."""
    assert main(["convert", "opentips-nano", str(tmp_path / "nano")]) == 0
    printed = capsys.readouterr().out
    assert "vision 92 of 92 keys, text 28 of 28 keys" in printed and "--heads 3" in printed
    files = [str(tmp_path / f"nano_{part}.npz") for part in ("vision", "text")]
    bundled = DATA.parents[1] / "assets" / "models" / "opentips-nano"
    assert main(["convert", *files, str(tmp_path / "out"), "--heads", "3", "--tokenizer", str(bundled)]) == 0
    for name in ("config.json", "preprocessor_config.json"):
        first, second = (json.loads((folder / name).read_text()) for folder in (bundled, tmp_path / "out"))
        for config in (first, second):
            config.pop("temperature_init_value", None)  # what training started from; the learned one is in the weights
            for tower in ("vision_config", "text_config"):
                config.get(tower, {}).pop("dtype", None)
        assert first == second
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (bundled / "tokenizer.json").read_bytes()
    before, after = (load(name, "cpu", "float32", fast=False) for name in ("opentips-nano", tmp_path / "out"))
    state = after.model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in before.model.state_dict().items())
    assert torch.equal(before.encode_text(["a gear"]), after.encode_text(["a gear"]))


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
        to_folder(*changed(tmp_path, "text", lambda a: a.pop("ln_final.bias")), tmp_path / "out", heads=4)
    assert [path.name for path in tmp_path.iterdir()] == ["text.npz"]


def test_nothing_is_overwritten(tmp_path):
    model = from_official(*pair("tiny_mlp"), heads=4)
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "x_text.npz").write_text("mine")
    for write in (lambda: to_folder(*pair("tiny_mlp"), tmp_path, heads=4), lambda: to_official(model, tmp_path / "x")):
        with pytest.raises(OSError, match="exists already"):
            write()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.txt", "x_text.npz"]


@pytest.mark.parametrize("way", ["folder", "files"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, way):
    """A limit on the size of files stands in for it: the system refuses the write in the same place."""
    model, before = from_official(*pair("tiny_mlp"), heads=4), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match="could not be written.*make room") as error:
            if way == "folder":
                to_folder(*pair("tiny_mlp"), tmp_path / "out", heads=4)
            else:
                to_official(model, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "out" in str(error.value) and "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: setattr(m.config.vision_config, "layer_norm_eps", 1e-5), "vision_config.layer_norm_eps is 1e-05"),
        (lambda m: setattr(m.config.text_config, "hidden_act", "gelu"), "text_config.hidden_act is gelu"),
        (lambda m: m.vision_model.register_buffer("extra", torch.zeros(2)), "vision_model.extra"),
    ],
)
def test_a_model_the_official_code_cannot_run_is_refused(tmp_path, change, words):
    model = from_official(*pair("tiny_mlp"), heads=4)
    change(model)
    with pytest.raises(ModelError) as error:
        to_official(model, tmp_path / "out")
    assert words in str(error.value) and not list(tmp_path.iterdir())


def test_heads_are_asked_for_unless_the_width_is_known():
    with pytest.raises(ModelError, match="attention heads of width 48"):
        from_official(*pair("tiny_mlp"))
    with pytest.raises(ModelError, match="attention heads"):
        from_official(*pair("tiny_mlp"), heads=5)


SIZES = {  # width, depth, heads, vision MLP, text depth, text MLP: github.com/google-deepmind/tips, both towers' code
    "S": (384, 12, 6, 1536, 12, 1536),
    "B": (768, 12, 12, 3072, 12, 3072),
    "L": (1024, 24, 16, 4096, 12, 4096),
    "So400m": (1152, 27, 16, 4304, 27, 4304),
    "g": (1536, 40, 24, 4096, 12, 6144),
}
# Millions, the README there, which says 1.1B of the largest; without positions, whose table differs between releases.
PARAMETERS = {
    "S": (21.6, 33.6),
    "B": (85.7, 109.6),
    "L": (303.2, 183.9),
    "So400m": (412.4, 448.3),
    "g": (1134.4, 389.1),
}


def released(size: str, side: int) -> tuple[dict, dict]:
    """The official keys and shapes of a released size, written from the official modules; no memory behind them."""
    width, depth, _, hidden, text_depth, text_hidden = SIZES[size]
    vision = {
        "cls_token": (1, 1, width), "pos_embed": (1, side * side + 1, width), "register_tokens": (1, 1, width),
        "mask_token": (1, width), "patch_embed.proj.weight": (width, 3, 14, 14), "patch_embed.proj.bias": (width,),
        "norm.weight": (width,), "norm.bias": (width,),
    }  # fmt: skip
    linears = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
    if size == "g":
        linears |= {"mlp.w12": (2 * hidden, width), "mlp.w3": (width, hidden)}
    else:
        linears |= {"mlp.fc1": (hidden, width), "mlp.fc2": (width, hidden)}
    for block in range(depth):
        vision |= {
            f"blocks.{block}.{name}.{end}": (width,) for name in ("norm1", "norm2") for end in ("weight", "bias")
        }
        vision |= {f"blocks.{block}.{name}.gamma": (width,) for name in ("ls1", "ls2")}
        for name, shape in linears.items():
            vision |= {f"blocks.{block}.{name}.weight": shape, f"blocks.{block}.{name}.bias": shape[:1]}
    text = {"token_embedding.weight": (32000, width), "temperature": (), "ln_final.weight": (width,),
            "ln_final.bias": (width,)}  # fmt: skip
    for block in range(text_depth):
        at = f"transformer.resblocks.{block}"
        text |= {f"{at}.{name}.{end}": (width,) for name in ("ln_1", "ln_2") for end in ("weight", "bias")}
        text |= {f"{at}.attn.in_proj_weight": (3 * width, width), f"{at}.attn.in_proj_bias": (3 * width,)}
        for name, shape in {"attn.out_proj": (width, width), "mlp.c_fc": (text_hidden, width),
                            "mlp.c_proj": (width, text_hidden)}.items():  # fmt: skip
            text |= {f"{at}.{name}.weight": shape, f"{at}.{name}.bias": shape[:1]}
    one = np.full(1, 0.005, np.float32)
    vision, text = (
        {key: np.lib.stride_tricks.as_strided(one, shape, (0,) * len(shape)) for key, shape in part.items()}
        for part in (vision, text)
    )
    return vision, text


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("side", [16, 32])
def test_released_sizes_fit_both_ways(size, side):
    """TIPS (positions 16 x 16) and TIPSv2 (32 x 32): every key has its place and every parameter its key."""
    vision, text = released(size, side)
    count = (
        sum(a.size for key, a in vision.items() if key != "pos_embed") / 1e6,
        sum(a.size for a in text.values()) / 1e6,
    )
    assert count == pytest.approx(PARAMETERS[size], abs=0.6)
    config, state = config_of(vision, text), state_dict(vision, text)
    check_fit(state, config, size)
    own = config.vision_config
    assert (own.num_attention_heads, own.image_size, own.use_swiglu_ffn) == (SIZES[size][2], side * 14, size == "g")
    with torch.device("meta"):
        model = Tipsv2Model(config)
    for part, arrays in (("vision", vision), ("text", text)):
        assert {k: tuple(v.shape) for k, v in official(model.state_dict(), part)} == {
            k: v.shape for k, v in arrays.items()
        }
    with pytest.raises(ModelError, match="do not make a whole model.*vision_model.encoder.layer.11"):
        check_fit({key: value for key, value in state.items() if ".layer.11." not in key}, config, "The files")


def test_two_files_of_different_models(tmp_path):
    arrays = read_npz(pair("tiny_mlp")[1])
    arrays["token_embedding.weight"] = np.zeros((96, 32), np.float32)
    np.savez(tmp_path / "text.npz", **arrays)
    with pytest.raises(ModelError, match="48 wide and the text .npz 32"):
        from_official(pair("tiny_mlp")[0], tmp_path / "text.npz", heads=4)
    with pytest.raises(ModelError, match="vision first, then text"):
        from_official(*reversed(pair("tiny_mlp")), heads=4)


def test_pickles_are_never_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    np.savez(tmp_path / "trap.npz", cls_token=np.array([Trap()], dtype=object))
    shutil.copy(DATA / "tiny_mlp_text.npz", tmp_path / "text.npz")
    with pytest.raises(ModelError, match=r"trap.npz"):
        from_official(tmp_path / "trap.npz", tmp_path / "text.npz", heads=4)
    assert not (tmp_path / "sprung").exists()


WHOLE = (DATA / "tiny_mlp_vision.npz").read_bytes()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 broken",
        b"not a zip",
        WHOLE[:100],
        WHOLE[: len(WHOLE) // 2],
        WHOLE[:-1],
        WHOLE[:20_000] + bytes(5000) + WHOLE[25_000:],
    ],
)
def test_unreadable_files(tmp_path, content):
    (tmp_path / "broken.npz").write_bytes(content)
    with pytest.raises(ModelError, match=r"broken.npz"):
        read_npz(tmp_path / "broken.npz")
    with pytest.raises(ModelError, match="no file"):
        read_npz(tmp_path / "absent.npz")
    np.save(tmp_path / "single.npy", np.zeros(3))
    with pytest.raises(ModelError, match=r"single.npy"):
        read_npz(tmp_path / "single.npy")
