"""A vision tower that starts from DINOv2: equal to transformers' own Dinov2Model, whose code is the oracle.

python -m pytest tests/test_from_dinov2.py
"""

import json
from pathlib import Path

import pytest
import torch
import transformers
from conftest import make_model, make_tokenizer
from transformers import BertConfig, BertModel, Tipsv2Model, Tipsv2TextConfig, Tipsv2VisionModel, ViTConfig, ViTModel
from unimodal import DEVIATION, MEAN, randomise

import tipsv2
from tipsv2.network.dense import vision_features
from train.network import tuning
from train.network.from_dinov2 import assemble, turned, vision_tower
from train.objectives.view import ROLES, look
from train.recipe import recipes
from train.recipe.overrides import override
from train.run import checkpoint

SIZES = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "patch_size": 14, "image_size": 70}
CHECKPOINTS = {  # class, what its configuration has besides
    "small": ("Dinov2", {}),
    "giant": ("Dinov2", {"use_swiglu_ffn": True}),
    "no-mask-token": ("Dinov2", {"use_mask_token": False, "qkv_bias": False}),
    "registers": ("Dinov2WithRegisters", {"num_register_tokens": 3}),
    "giant-registers": ("Dinov2WithRegisters", {"num_register_tokens": 4, "use_swiglu_ffn": True}),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Random checkpoints as folders, with an image processor's settings of their own."""
    torch.manual_seed(2)
    top = tmp_path_factory.mktemp("dinov2")
    for name, (kind, sizes) in CHECKPOINTS.items():
        config = getattr(transformers, f"{kind}Config")(**SIZES, **sizes)
        randomise(getattr(transformers, f"{kind}Model")(config)).save_pretrained(top / name)
        settings = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
        settings |= {"image_mean": MEAN, "image_std": DEVIATION, "image_processor_type": "BitImageProcessor"}
        (top / name / "preprocessor_config.json").write_text(json.dumps(settings))
    return top


def original(source, pixels, mean=MEAN, deviation=DEVIATION, **options):
    """Every token [B, T, D] of the checkpoint itself, a folder or opened, for pixels in [0, 1]."""
    source = transformers.AutoModel.from_pretrained(source) if isinstance(source, Path) else source
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (mean, deviation))
    with torch.no_grad():
        return source((pixels - mean) / deviation, **options).last_hidden_state


def seen(tower, pixels, **options):
    with torch.no_grad():
        return tower(pixels, **options).last_hidden_state


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_it_gives_what_dinov2_gives(folders, name):
    """At the table's own size, and at any square or oblong one that is asked for; with hidden patches, too."""
    source = transformers.AutoModel.from_pretrained(folders / name)
    for size in (0, 42, 112, (42, 70), (98, 28)):
        height, width = (size or 70, size or 70) if isinstance(size, int) else size
        pixels = torch.rand(2, 3, height, width)
        tower = turned(source, size=size, mean=MEAN, deviation=DEVIATION)
        assert isinstance(tower, Tipsv2VisionModel) and tower.config.image_size == max(height, width)
        assert tower.config.num_register_tokens == {"registers": 3, "giant-registers": 4}.get(name, 0)
        expected = original(source, pixels)
        assert (seen(tower, pixels) - expected).abs().max() < 1e-4 < expected.std()
        if name != "no-mask-token":
            masked = torch.rand(2, height * width // 196) < 0.4
            expected = original(source, pixels, bool_masked_pos=masked)
            assert (seen(tower, pixels, bool_masked_pos=masked) - expected).abs().max() < 1e-4
            assert (seen(tower, pixels) - expected).abs().max() > 0.01


def test_pixels_are_normalised_as_imagenets_where_the_checkpoint_does_not_say(folders, tmp_path):
    folder = tmp_path / "bare"
    transformers.Dinov2Model.from_pretrained(folders / "small").save_pretrained(folder)
    pixels = torch.rand(1, 3, 70, 70)
    expected = original(folder, pixels, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert (seen(vision_tower(str(folder)), pixels) - expected).abs().max() < 1e-4


def test_a_second_cls_of_its_own_starts_as_the_first(folders):
    """The two give the same, and it is an additional token and nothing else: hidden from attention it changes nothing,
    seen it does.
    """
    tower, pixels = vision_tower(str(folders / "small"), "own"), torch.rand(1, 3, 70, 70)
    expected = original(folders / "small", pixels)
    cls, caption_cls, patches, _ = vision_features(tower, pixels)
    assert torch.allclose(cls, caption_cls, atol=1e-5) and patches.shape == (1, 5, 5, 24)
    hidden = torch.ones(1, 27, dtype=torch.long)
    hidden[:, 1] = 0
    found = seen(tower, pixels, attention_mask=hidden)
    assert (found[:, [0, *range(2, 27)]] - expected).abs().max() < 1e-4
    assert (found[:, 1] - expected[:, 0]).abs().max() < 1e-4
    assert (patches.flatten(1, 2) - expected[:, 1:]).abs().max() > 1e-3
    tower.embeddings.register_tokens.data[..., 0] += 1
    cls, caption_cls, *_ = vision_features(tower, pixels)
    assert (cls - caption_cls).abs().max() > 0.01  # they can come apart


@pytest.fixture(scope="module")
def encoder_folder(folders, tmp_path_factory):
    """A shared CLS, a random text tower and a tokenizer, as one encoder."""
    tokenizer = make_tokenizer()
    torch.manual_seed(4)
    text = Tipsv2TextConfig(
        vocab_size=len(tokenizer), hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2
    )
    model = assemble(vision_tower(str(folders / "small"), size=56), text, 0.02)
    return checkpoint.export(tmp_path_factory.mktemp("assembled") / "encoder", model, tokenizer)


def test_an_assembled_encoder_opens_here_and_with_plain_transformers(folders, encoder_folder):
    model, report = Tipsv2Model.from_pretrained(encoder_folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert model.temperature.item() == pytest.approx(0.02)
    pixels = torch.rand(1, 3, 56, 56)
    expected = original(folders / "small", pixels)
    assert (seen(model.vision_model, pixels) - expected).abs().max() < 1e-4
    encoder = tipsv2.load(encoder_folder, "cpu", "float32")
    found = encoder.encode_pixels(pixels)
    assert (found["cls"] - expected[:, 0]).abs().max() < 1e-4
    assert torch.equal(found["cls"], found["caption_cls"])  # both are one
    assert (found["patches"].flatten(1, 2) - expected[:, 1:]).abs().max() < 1e-4
    assert found["values"].shape == (1, 4, 4, 24) and encoder.encode_text(["a dog"]).shape == (1, 24)


def test_fine_tuning_starts_from_an_assembled_encoder_and_leaves_the_rest_of_it(encoder_folder):
    fields = ["tuning.part=last", "tuning.layers=1", "tuning.towers=vision"]
    recipe = override(recipes.get("finetune"), [f"tuning.base={encoder_folder}", *fields])
    recipe, model, tokenizer = tuning.open_base(recipe)
    assert recipe.stages[0].size == 56
    words = tokenizer(["a dog", "a cat"], return_tensors="pt", padding=True)
    batch = {"image": torch.rand(2, 3, 56, 56), "masked": torch.rand(2, 16) < 0.5}
    for role in ROLES:
        batch |= {f"{role}_ids": words["input_ids"], f"{role}_mask": words["attention_mask"]}
    view = look(model, batch)
    assert torch.equal(view.cls, view.caption_cls) and view.patches.shape == (2, 16, 24)
    view.patches.square().mean().backward()
    learned = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    last = {name for name, _ in model.named_parameters() if name.startswith("vision_model.encoder.layer.2.")}
    norm = {"vision_model.layernorm.weight", "vision_model.layernorm.bias"}
    assert learned == {name for name in last if "lambda1" not in name} | norm


def test_a_text_tower_keeps_its_weights(folders):
    text = make_model(64).text_model
    with pytest.raises(ValueError, match="48 wide and the vision tower 24: choose two of the same width"):
        assemble(vision_tower(str(folders / "small")), text)
    vision = make_model(64, seed=1).vision_model
    model = assemble(vision, text)
    for tower, own in ((model.text_model, text), (model.vision_model, vision)):
        assert all(torch.equal(value, own.state_dict()[key]) for key, value in tower.state_dict().items())


def test_what_is_no_dinov2_is_one_sentence(folders, tmp_path):
    tiny = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    ViTModel(ViTConfig(**tiny, image_size=28, patch_size=14)).save_pretrained(tmp_path / "vit")
    BertModel(BertConfig(**tiny, vocab_size=10)).save_pretrained(tmp_path / "bert")
    for name, words in {
        str(tmp_path / "vit"): "is a vit model: the vision tower can start from a DINOv2",
        str(tmp_path / "bert"): "is a bert model, not a vision model",
        str(tmp_path / "nowhere"): "there is no such folder",
    }.items():
        with pytest.raises(ValueError, match=words) as caught:
            vision_tower(name)
        assert str(caught.value).startswith("--vision=") and "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="size=30: height and width must be multiples of the patch, 14 px"):
        vision_tower(str(folders / "small"), size=30)
    with pytest.raises(ValueError, match="second_cls='copy' is unknown: choose shared or own"):
        vision_tower(str(folders / "small"), "copy")
