"""The released repositories, imitated at the size of a test: what they hold now, what they held at first, what is
wrong with a copy. Offline, by path and through a Hub cache, in the library and in the app.

python -m pytest tests/test_released.py
"""

import json
import logging
import shutil
from pathlib import Path

import httpx2
import pytest
import torch
from conftest import make_model
from safetensors.torch import load_file, save_file
from test_catalogue import SHA, hub, hub_cache, lay_out, sentence, serve  # noqa: F401 (two are fixtures)
from test_pieces import train
from transformers import AutoModel, Tipsv2Model

from demos.backend.studio import Studio
from demos.ui.loading import Loading
from tipsv2.__main__ import main
from tipsv2.analysis.depth import load_dpt
from tipsv2.checkpoints import bundled
from tipsv2.checkpoints.catalogue import ModelError, find, is_cached
from tipsv2.checkpoints.weights import read_model, read_tokenizer
from tipsv2.evaluation import verify
from tipsv2.images import open_image, to_tensor
from tipsv2.network.encoder import load
from tipsv2.sharing.convert import to_folder, to_official
from tipsv2.sharing.push import prepare
from train.run import checkpoint

ROOT = Path(__file__).parent.parent
CODE = {"AutoConfig": "configuration_tips.TIPSv2Config", "AutoModel": "modeling_tips.TIPSv2Model"}


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """(tokenizer.model, sentencepiece's own processor of it)."""
    path = tmp_path_factory.mktemp("pieces") / "tokenizer.model"
    return path, train(path)


@pytest.fixture(scope="module")
def released(tmp_path_factory, pieces):
    """As google/tipsv2-b14 since July 2026: float32 under the release's keys, no temperature, tokenizer.model alone,
    processor_config.json, and auto_map in the configuration all the same.
    """
    folder = tmp_path_factory.mktemp("released") / "tipsv2-b14"
    make_model(len(pieces[1])).save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    assert any(key.startswith("vision_encoder.blocks.") for key in weights)
    del weights["temperature"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    change(folder / "config.json", auto_map=CODE)
    shutil.copyfile(pieces[0], folder / "tokenizer.model")
    settings = {
        "tokenizer_class": "Tipsv2Tokenizer",
        "model_max_length": 64,
        "auto_map": {"AutoTokenizer": ["t.T", None]},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "processor_config.json").write_text('{"processor_class": "Tipsv2Processor"}')
    (folder / "modeling_tips.py").write_text("raise SystemExit('code out of the folder ran')")
    return folder


@pytest.fixture
def first_form(released, tmp_path):
    """As from April to June 2026: a flat configuration, opened by code beside it."""
    folder = shutil.copytree(released, tmp_path / "first" / "tipsv2-b14")
    flat = {"model_type": "tipsv2", "embed_dim": 48, "img_size": 56, "vocab_size": 700, "auto_map": CODE}
    (folder / "config.json").write_text(json.dumps(flat))
    return folder


def change(file: Path, **entries):
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


def test_everything_it_takes_is_among_the_requirements():
    names = {line.split(">=")[0] for line in (ROOT / "requirements.txt").read_text().splitlines()}
    assert {"sentencepiece", "protobuf", "transformers"} <= names


def test_tokenizer_model_alone_is_enough(released, pieces, hub_cache):  # noqa: F811
    by_path = load(released, dtype="float32")
    lay_out(hub_cache, released)
    cached = load("google/tipsv2-b14", dtype="float32")
    assert load("auto").info.name == "tipsv2-b14"
    for encoder in (by_path, cached):
        for text in ("a photo of a BANANA.", "café 東京", "🐕 x̂"):
            assert encoder.tokenizer(text)["input_ids"] == pieces[1].encode(text.lower())
        assert encoder.tokenizer.pad_token_id == 0
    assert torch.equal(by_path.encode_text(["a gear"]), cached.encode_text(["a gear"]))


def test_without_sentencepiece_it_is_a_sentence_and_the_default_falls_back(released, hub_cache, monkeypatch, caplog):  # noqa: F811
    monkeypatch.setattr("transformers.utils.is_sentencepiece_available", lambda: False)
    with pytest.raises(ModelError, match="pip install sentencepiece protobuf"):
        load(released)
    lay_out(hub_cache, released)
    with caplog.at_level(logging.WARNING):
        assert load("auto").info.name == bundled.default()
    assert "pip install sentencepiece" in caplog.text and "bundled encoder" in caplog.text
    with pytest.raises(ModelError, match="pip install sentencepiece"):
        load("tipsv2-b14")  # what was asked for by name is never replaced


def test_the_page_opens_with_the_bundled_encoder_instead(released, hub_cache, recwarn):  # noqa: F811
    snapshot = lay_out(hub_cache, released)
    (snapshot / "tokenizer.model").write_bytes(b"none")
    loading = Loading(Studio("auto", device="cpu"))
    assert loading.studio.first == "tipsv2-b14"
    menu, model, failed = loading.load("tipsv2-b14", None)
    assert (menu, model, failed) == (
        bundled.default(),
        bundled.default(),
        None,
    ) and loading.studio.first == bundled.default()
    assert "tokenizer.model is damaged" in str(recwarn[-1].message) and "bundled" in str(recwarn[-1].message)
    assert loading.studio.encoder().info.name == bundled.default()
    menu, model, failed = loading.load("tipsv2-b14", bundled.default())  # chosen in the menu
    assert (menu, model) == (bundled.default(), bundled.default()) and "tokenizer.model is damaged" in failed
    named = Loading(Studio("tipsv2-b14", device="cpu"))
    assert named.load("tipsv2-b14", None)[1] is None


def test_a_damaged_copy_in_the_cache_says_what_to_delete(released, hub_cache):  # noqa: F811
    snapshot = lay_out(hub_cache, released)
    (snapshot / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(ModelError) as error:
        load("tipsv2-b14")
    assert f"delete '{snapshot.parent.parent}', and it is downloaded anew" in sentence(error)


def test_the_first_form_is_told_apart_and_downloaded_anew(first_form, released, hub_cache, hub):  # noqa: F811
    snapshot = lay_out(hub_cache, first_form)
    info = find("tipsv2-b14")
    assert not is_cached(info) and find("auto").name == bundled.default()
    with pytest.raises(ModelError) as error:
        load(info.name)
    assert "first form" in sentence(error) and bundled.default() in sentence(error) and "again" not in str(error.value)
    with pytest.raises(ModelError, match="first form.*get the model anew from the Hub"):
        load(first_form)
    requests = hub(serve(first_form))  # the Hub's own files may be older than this project thinks
    with pytest.raises(ModelError, match="The Hub has google/tipsv2-b14 only in its first form"):
        load(info.name, progress=False)
    asked = len(requests)

    def refreshed(request: httpx2.Request) -> httpx2.Response:
        answer = serve(released)(request)
        if "X-Repo-Commit" in answer.headers:
            answer.headers["X-Repo-Commit"] = SHA[::-1]
            answer.headers["ETag"] = f'"new-{Path(request.url.path).name}"'
        elif request.url.path.startswith("/api/models/google/tipsv2-b14") and "/tree/" not in request.url.path:
            return httpx2.Response(200, json=answer.json() | {"sha": SHA[::-1]})
        return answer

    requests = hub(refreshed)
    assert load(info.name, progress=False, dtype="float32").info.width == 48
    assert is_cached(info) and snapshot.is_dir() and asked and requests
    assert not any(request.url.path.endswith(".py") for request in requests)


def test_heads_alone_are_the_first_form(hub_cache, tmp_path):  # noqa: F811
    folder = tmp_path / "heads"
    folder.mkdir()
    flat = {"model_type": "tipsv2_dpt", "channels": 256, "auto_map": {"AutoModel": "modeling_dpt.TIPSv2DPTModel"}}
    (folder / "config.json").write_text(json.dumps(flat))
    save_file({"depth_head.project.weight": torch.zeros(2)}, folder / "model.safetensors")
    lay_out(hub_cache, folder, "google/tipsv2-b14-dpt")
    assert not is_cached(find("tipsv2-b14-dpt"))
    with pytest.raises(ModelError, match="first form") as error:
        load_dpt("tipsv2-b14-dpt")
    assert "give the folder of a copy" in sentence(error)


def test_code_never_leaves_with_a_checkpoint(released, tmp_path):
    model = read_model(released, torch.float32)
    tokenizer = read_tokenizer(released, model.config.text_config.vocab_size)
    exported = checkpoint.export(tmp_path / "exported", model, tokenizer)
    assert AutoModel.from_pretrained(exported, trust_remote_code=True).config.model_type == "tipsv2"
    assert load(exported).tokenizer("a gear")["input_ids"] == tokenizer("a gear")["input_ids"]
    shutil.copytree(released, tmp_path / "mine")
    (tmp_path / "mine" / "modeling_tips.py").unlink()
    files, _ = prepare(str(tmp_path / "mine"), "owner/mine", "mit")
    pushed = {name: content for name, content in files.items() if isinstance(content, bytes)}
    assert {"config.json", "tokenizer_config.json"} <= set(pushed) and "tokenizer.model" in files
    assert json.loads(pushed["config.json"])["vision_config"]["hidden_size"] == 48
    to_official(model, tmp_path / "official")
    pair = (tmp_path / "official_vision.npz", tmp_path / "official_text.npz")
    to_folder(*pair, tmp_path / "converted", heads=4, tokenizer=released)
    written = [*exported.glob("*.json"), *(tmp_path / "converted").glob("*.json")]
    assert not any(
        "auto_map" in text for text in [*map(Path.read_text, written), *(c.decode() for c in pushed.values())]
    )


DEEP = "[" * 10_000 + "]" * 10_000


@pytest.mark.parametrize(
    ("part", "entries", "said"),
    [
        ("text_config", {"vocab_size": 10**9}, "text_config.vocab_size is 1000000000"),
        ("vision_config", {"num_hidden_layers": 100_000}, "vision_config.num_hidden_layers is 100000"),
        ("vision_config", {"hidden_size": -48}, "vision_config.hidden_size is -48"),
        ("text_config", {"num_attention_heads": 0}, "num_attention_heads is 0"),
        ("text_config", {"intermediate_size": 1e3}, "intermediate_size is 1000.0"),
        ("vision_config", {"image_size": [56, 84]}, "images of 56 x 84 px, and only square ones"),
        ("vision_config", {"image_size": 10**7}, "image_size is 10000000"),
        ("vision_config", {"mlp_ratio": float("nan")}, "mlp_ratio is nan"),
        ("vision_config", {"num_hidden_layers": True}, "num_hidden_layers is True"),
        ("text_config", {"vocab_size": 2_000_000}, "describes .* parameters and the weights beside it have"),
        ("vision_config", [], "vision_config is no object"),
        (None, DEEP, "not a readable model configuration"),
        (None, '{"model_type": "tipsv2", "vision_config": ' + DEEP + "}", "not a readable model configuration"),
    ],
)
def test_absurd_configurations_are_refused_before_anything_is_made(
    released, tmp_path, monkeypatch, part, entries, said
):
    folder = shutil.copytree(released, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    if part:
        config[part] = config[part] | entries if entries else entries
    (folder / "config.json").write_text(json.dumps(config) if part else entries)
    monkeypatch.setattr(Tipsv2Model, "from_pretrained", None)
    with pytest.raises(ModelError, match=said) as error:
        load(folder)
    assert len(sentence(error)) < 500
    assert find(folder).source == "folder"  # a menu lists it all the same


def test_released_configurations_are_not_absurd():
    """g/14 and So400m as transformers' defaults and the papers give them."""
    from tipsv2.checkpoints.model_files import _check_sizes

    for width, layers, heads, ratio in ((768, 12, 12, 4), (1152, 27, 16, 4304 / 1152), (1536, 40, 24, 4)):
        vision = dict(hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, mlp_ratio=ratio)
        _check_sizes(Path("config.json"), {"vision_config": vision | {"image_size": 448, "patch_size": 14}})


# verify


@pytest.fixture
def published(released, monkeypatch):
    """The numbers of the imitation, by plain transformers with prompts of 64 tokens, as if they were published."""
    picture = ROOT / "assets" / "examples" / "scene_1.png"
    model, tokenizer = Tipsv2Model.from_pretrained(released).eval(), read_tokenizer(released, 700)
    tokens = tokenizer(list(verify.TEXTS), padding="max_length", max_length=64, return_tensors="pt")
    monkeypatch.setattr(verify, "SIDE", 56)
    pixels = to_tensor(open_image(picture), (56, 56))[None]
    with torch.no_grad():
        out = model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"], pixel_values=pixels)
    numbers = {
        "logits": out.logits_per_image[0],
        "text": out.text_embeds[0, :5],
        "image": out.image_embeds[0, :5],
        "patch": out.vision_model_output.last_hidden_state[0, 2, :5],
    }
    monkeypatch.setattr(verify, "PUBLISHED", {name: tuple(map(float, row)) for name, row in numbers.items()})
    monkeypatch.setattr(verify, "PICTURE_SIZE", open_image(picture).size)
    for name, value in (("WIDTH", 48), ("LAYERS", 3), ("WORDS", model.config.text_config.vocab_size)):
        monkeypatch.setattr(verify, name, value)
    return picture


def test_verify_says_that_the_numbers_are_right_and_which_are_not(released, published, tmp_path, capsys):
    assert main(["verify", str(released), "--image", str(published), "--device", "cpu"]) == 0
    assert "gives the published numbers; largest differences: logits" in capsys.readouterr().out
    folder = shutil.copytree(released, tmp_path / "changed")
    weights = load_file(folder / "model.safetensors")
    key = next(key for key in weights if key.startswith("text_encoder.") and key.endswith("ln_final.bias"))
    save_file(weights | {key: weights[key] + 0.3}, folder / "model.safetensors", {"format": "pt"})
    assert main(["verify", str(folder), "--image", str(published), "--device", "cpu"]) == 2
    assert "differs from the published numbers in logits and text; largest" in capsys.readouterr().err


def test_verify_takes_b14_and_its_picture_only(released, published, monkeypatch, capsys):
    monkeypatch.setattr(verify, "PICTURE_SIZE", (640, 480))
    assert main(["verify", str(released), "--image", str(published)]) == 2
    assert "not the picture that the numbers are of, which has 640 x 480" in capsys.readouterr().err
    monkeypatch.setattr(verify, "WIDTH", 768)
    with pytest.raises(ModelError, match="not of the size of google/tipsv2-b14"):
        verify.verify(load(released, device="cpu"), published)
    monkeypatch.setattr(verify, "PICTURE", "http://127.0.0.1:9/none.jpg")
    with pytest.raises(ModelError, match="cannot be fetched .* --image FILE"):
        verify.fetch_picture()


@pytest.mark.skipif(not is_cached(find("tipsv2-b14")), reason="google/tipsv2-b14 is not on this machine")
def test_the_real_one_gives_the_published_numbers(capsys):
    try:
        picture = verify.fetch_picture()
    except ModelError as error:
        pytest.skip(str(error))
    assert verify.verify(load("tipsv2-b14", dtype="float32"), picture.getvalue()).agrees
