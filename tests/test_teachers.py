"""Unimodal teachers of any kind, and the words that a student inherits from one."""

import json

import pytest
import torch
import torch.nn.functional as F
import transformers
import unimodal
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertConfig, BertModel, Tipsv2Model
from unimodal import CAPTIONS, DEVIATION, MEAN, TINY, VISION, setting

import tipsv2
from train.data.batches import Batches
from train.network.inherited_words import pieces_matrix
from train.network.teachers import TextTeacher, VisionTeacher
from train.network.tokenizer import train_tokenizer
from train.run.loop import fit


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tiny_folder):
    return unimodal.save(tmp_path_factory.mktemp("teachers"), tiny_folder)


# teachers


@pytest.mark.parametrize("name", [*VISION, "tipsv2"])
def test_a_vision_teacher_gives_its_own_patches_of_the_clean_image_on_the_students_grid(folders, name):
    """Matched: the teacher is shown a size that gives it the student's grid, normalised as its processor says."""
    teacher, images = VisionTeacher(str(folders[name])), torch.rand(2, 3, 56, 56)
    found = teacher.look(images, 4)
    side = 4 * {"vit": 8, "siglip": 16}.get(name, 14)
    pixels = images if side == 56 else F.interpolate(images, (side, side), mode="bilinear", antialias=True)
    if name == "tipsv2":
        model, first = Tipsv2Model.from_pretrained(folders[name]).vision_model.eval(), 2
        with torch.no_grad():
            tokens = model(pixels).last_hidden_state
    else:
        for channel in range(3):
            pixels = pixels.clone()
            pixels[:, channel] = ((2 if name == "vit" else 1) * pixels[:, channel] - MEAN[channel]) / DEVIATION[channel]
        model = getattr(transformers, f"{VISION[name][0]}Model").from_pretrained(folders[name]).eval()
        first = {"registers": 4, "siglip": 0}.get(name, 1)
        options = {"interpolate_pos_encoding": True} if name in ("vit", "siglip") else {}
        with torch.no_grad():
            tokens = model(pixels, **options).last_hidden_state
    assert found.shape == (2, 16, model.config.hidden_size)
    assert torch.allclose(found, tokens[:, first:], atol=1e-5)
    assert not found.requires_grad and not any(p.requires_grad for p in teacher.model.parameters())


def test_another_grid_is_interpolated(folders):
    """The teacher sees 8 x 8 patches, the student has 4 x 4: a triangle of twice the step, written out by hand."""
    teacher, images = VisionTeacher(str(folders["dinov2"])), torch.rand(1, 3, 56, 56)
    fine = teacher.look(images, 8).view(8, 8, -1)  # the same grid for a student of 8 x 8 patches
    weights = torch.zeros(4, 8)
    for i in range(4):
        for k in range(8):
            weights[i, k] = max(0.0, 1 - abs((k + 0.5) - 2 * (i + 0.5)) / 2)
    weights = weights / weights.sum(1, keepdim=True)
    expected = torch.einsum("ik,jl,klw->ijw", weights, weights, fine)
    assert torch.allclose(teacher.look(images, 4, size=112).view(4, 4, -1), expected, atol=1e-5)
    with pytest.raises(ValueError, match="teacher_size=100 is no multiple"):
        teacher.look(images, 4, size=100)


def test_a_text_teacher_gives_a_feature_per_token(folders):
    teacher = TextTeacher(str(folders["words"]))
    tokens = teacher.tokenizer(["a dog", "a red car at the left"], padding=True, return_tensors="pt")
    ids, mask = tokens["input_ids"], tokens["attention_mask"]
    assert ids[0, :2].tolist() == [1, ids[1, 1]] and mask[0].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]  # padded on the right
    model = BertModel.from_pretrained(folders["words"]).eval()
    with torch.no_grad():
        alone = model(ids[:1, :4]).last_hidden_state
    assert torch.allclose(teacher.read(ids, mask)[:1, :4], alone, atol=1e-5)
    assert torch.equal(teacher.matrix, model.embeddings.word_embeddings.weight)
    decoder = TextTeacher(str(folders["gpt"]))
    assert decoder.read(ids, mask).shape == (2, 8, 24) and decoder.matrix.shape == (len(tokens_of(folders)), 24)
    tower = TextTeacher(str(folders["tipsv2"]))
    assert tower.model.main_input_name == "input_ids" and tower.width == 48


def tokens_of(folders):
    return AutoTokenizer.from_pretrained(folders["words"])


def test_what_is_no_teacher_is_refused_in_a_sentence(folders, tmp_path):
    def refused(kind, name, hint):
        with pytest.raises(ValueError, match=hint) as error:
            kind(str(name))
        assert "\n" not in str(error.value) and f"sfclip.{kind.__name__[:-7].lower()}_teacher" in str(error.value)

    refused(VisionTeacher, tmp_path / "nowhere", "no such folder")
    refused(VisionTeacher, folders["bert"], "is a bert model, not a vision model")
    refused(TextTeacher, folders["vit"], "is a vit model, not a text model")
    refused(TextTeacher, "nobody/nothing", "is no folder here and cannot be opened")
    (tmp_path / "empty").mkdir()
    refused(TextTeacher, tmp_path / "empty", "cannot be opened")
    bert = BertConfig(vocab_size=50, **TINY)
    BertModel(bert).save_pretrained(tmp_path / "silent")
    refused(TextTeacher, tmp_path / "silent", "has no tokenizer")
    swin = transformers.SwinConfig(
        image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 1], window_size=2
    )
    transformers.SwinModel(swin).save_pretrained(tmp_path / "swin")
    (tmp_path / "swin" / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False}))
    with pytest.raises(ValueError, match="its grid cannot be matched"):
        VisionTeacher(str(tmp_path / "swin")).look(torch.rand(1, 3, 56, 56), 8)
    vit = transformers.ViTConfig(image_size=32, patch_size=8, **TINY)
    transformers.ViTModel(vit).save_pretrained(tmp_path / "bare")
    refused(VisionTeacher, tmp_path / "bare", "no preprocessor_config.json")
    state = load_file(folders["vit"] / "model.safetensors")
    (tmp_path / "holes").mkdir()
    for file in ("config.json", "preprocessor_config.json"):
        (tmp_path / "holes" / file).write_text((folders["vit"] / file).read_text())
    kept = {k: v for k, v in state.items() if "layernorm_before" not in k}
    save_file(kept, tmp_path / "holes" / "model.safetensors", metadata={"format": "pt"})
    refused(VisionTeacher, tmp_path / "holes", "lacks 4 weights")


# words


def test_the_teachers_words_are_inherited_and_stay(folders):
    recipe, objective, tokenizer, teachers = setting(folders)
    embedding, linear = objective.model.text_model.embeddings.token_embedding
    ratio = embedding.weight / teachers.text.matrix
    assert torch.allclose(ratio, ratio[0, 0].expand_as(ratio), rtol=1e-4)
    entering = embedding.weight * 48**0.5  # the tower's own factor
    assert entering.square().mean().sqrt().item() == pytest.approx(1.4, rel=1e-4)
    before = embedding.weight.clone(), linear.weight.clone()
    loss, _ = objective(Batches(recipe, tokenizer)[0], recipe.stages[0])
    loss.backward()
    torch.optim.SGD([p for p in objective.parameters() if p.requires_grad], lr=1.0).step()
    assert torch.equal(embedding.weight, before[0]) and not torch.equal(linear.weight, before[1])
    _, trained, _, _ = setting(folders, "sfclip.matrix=trained", "tower.width=24")  # the teacher's width: no map
    plain = trained.model.text_model.embeddings.token_embedding
    assert type(plain) is torch.nn.Embedding and plain.weight.requires_grad


def test_own_tokens_start_as_the_mean_of_the_teachers_pieces(folders):
    own, teacher = train_tokenizer(CAPTIONS, 400), TextTeacher(str(folders["bert"]))
    found = pieces_matrix(own, teacher.tokenizer, teacher.matrix, 402)
    seen = 0
    for token, index in own.get_vocab().items():
        text = token.replace("▁", " ").strip()
        if token.startswith("<") or not text:
            continue
        pieces = teacher.tokenizer.tokenize(text)
        rows = [teacher.matrix[teacher.tokenizer.convert_tokens_to_ids(piece)] for piece in pieces]
        assert torch.allclose(found[index], sum(rows) / len(rows), atol=1e-5), token
        seen += len(pieces) > 1
    assert seen > 3  # tokens of several pieces, such as "under"
    mean = sum(teacher.matrix) / len(teacher.matrix)
    for index in (own.pad_token_id, own.get_vocab()["<0xE7>"], 401):
        assert torch.allclose(found[index], mean, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("words", ["teacher", "pieces"])
def test_a_run_leaves_a_model_that_plain_transformers_opens(folders, tmp_path, words):
    """The inherited matrix and its map are one token embedding then, and the tokenizer is the one trained with."""
    recipe, objective, tokenizer, _ = setting(folders, "sfclip.text_target=sentence", words=words)
    folder = fit(recipe, objective, tokenizer, tmp_path / "run", show=False)
    model, report = Tipsv2Model.from_pretrained(folder, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    again, texts = AutoTokenizer.from_pretrained(folder), ["a dog", "a red car at the left", "hund"]
    tokens = again(texts, padding=True, return_tensors="pt")
    assert tokens["input_ids"].tolist() == tokenizer(texts, padding=True)["input_ids"]
    assert again.pad_token_id == model.config.text_config.pad_token_id
    assert isinstance(objective.model.text_model.embeddings.token_embedding, torch.nn.Sequential)  # still trainable
    with torch.no_grad():
        exported = model.eval().get_text_features(**tokens_for(tokens)).pooler_output
        trained = objective.model.eval().get_text_features(**tokens_for(tokens)).pooler_output
    assert torch.allclose(exported, trained, atol=1e-6)
    encoder = tipsv2.load(folder, device="cpu", dtype="float32")
    assert torch.allclose(encoder.encode_text(texts), F.normalize(trained, dim=-1), atol=1e-6)


def tokens_for(tokens):
    return {key: tokens[key] for key in ("input_ids", "attention_mask")}
