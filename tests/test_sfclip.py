"""Masked distillation after SF-CLIP: teachers of any kind, what is hidden, the term, inherited words, whole runs."""

import json
import os
import signal
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
import transformers
from conftest import make_tokenizer
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, BertConfig, BertModel, PreTrainedTokenizerFast, Tipsv2Model

import tipsv2
from train import checkpoint, losses, recipes, settings
from train.__main__ import main
from train.data.batches import Batches
from train.loop import Stopped, fit
from train.masking import random_words
from train.objectives import Objective
from train.objectives.towers import build
from train.teachers import TextTeacher, VisionTeacher, open_teachers
from train.tokenizer import train_tokenizer
from train.words import inherit, pieces_matrix

MEAN, DEVIATION = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]
TINY = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
VISION = {  # class, configuration: what a ViT may have before and after its patches
    "dinov2": ("Dinov2", {"patch_size": 14, "image_size": 28}),
    "registers": ("Dinov2WithRegisters", {"patch_size": 14, "image_size": 28, "num_register_tokens": 3}),
    "vit": ("ViT", {"patch_size": 8, "image_size": 32}),
    "siglip": ("SiglipVision", {"patch_size": 16, "image_size": 32}),
}
CAPTIONS = ["a dog on the grass, under the sky", "two cats in the snow", "a red car at the left"] * 20
SMOKE = ["precision=fp32", "sample_every=1000", "save_every=1000", "stages.0.steps=6", "stages.1.steps=2", "trackers="]
PLAIN = [f"stages.{k}.{name}=0" for k in (0, 1) for name in ("patch_weight", "local_crops", "mask_ratio")]


def randomise(model):
    """Weights large enough that every token's features differ."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def word_tokenizer():
    """Another kind of tokenizer than ours: whole words, [CLS] and [SEP] around a text, padding is 3 and on the left."""
    known = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", *sorted({w for t in CAPTIONS for w in t.replace(",", "").split()})]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*known, ",", "hund"])}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    around = [("[CLS]", 1), ("[SEP]", 2)]
    inner.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair=None, special_tokens=around)
    names = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, padding_side="left", **names)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tiny_folder):
    """Teachers as `save_pretrained` writes them, by name."""
    top = tmp_path_factory.mktemp("teachers")
    settings_of_pixels = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
    settings_of_pixels |= {"image_mean": MEAN, "image_std": DEVIATION, "image_processor_type": "ViTImageProcessor"}
    torch.manual_seed(5)
    for name, (kind, sizes) in VISION.items():
        config = getattr(transformers, f"{kind}Config")(**TINY, **sizes)
        randomise(getattr(transformers, f"{kind}Model")(config)).save_pretrained(top / name)
        doubled = {"rescale_factor": 2 / 255} if name == "vit" else {}
        (top / name / "preprocessor_config.json").write_text(json.dumps(settings_of_pixels | doubled))
    tokenizer = make_tokenizer()
    bert = BertConfig(vocab_size=len(tokenizer) + 3, max_position_embeddings=64, **TINY)
    randomise(BertModel(bert)).save_pretrained(top / "bert")
    tokenizer.save_pretrained(top / "bert")
    tokenizer = word_tokenizer()
    bert = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, pad_token_id=3, **TINY)
    randomise(BertModel(bert)).save_pretrained(top / "words")
    tokenizer.save_pretrained(top / "words")
    decoder = transformers.GPT2Config(vocab_size=len(tokenizer), n_embd=24, n_layer=1, n_head=2, n_positions=64)
    randomise(transformers.GPT2Model(decoder)).save_pretrained(top / "gpt")
    tokenizer.save_pretrained(top / "gpt")
    found = {path.name: path for path in top.iterdir()}
    (tiny_folder / "preprocessor_config.json").write_text(json.dumps(settings_of_pixels | {"do_normalize": False}))
    return found | {"tipsv2": tiny_folder}


def setting(folders, *fields, words="teacher"):
    """Recipe, objective, tokenizer and teachers of a smoke-sized run, as train.run puts them together."""
    given = [f"sfclip.vision_teacher={folders['dinov2']}", f"sfclip.text_teacher={folders['words']}"]
    weights = ["sfclip.vision_weight=1", "sfclip.text_weight=1", "sfclip.share=0.5", f"sfclip.words={words}"]
    recipe = settings.override(recipes.get("smoke"), [*SMOKE, *PLAIN, *given, *weights, *fields])
    torch.manual_seed(recipe.seed)
    teachers = open_teachers(recipe.sfclip)
    if words == "teacher":
        tokenizer, vocabulary = teachers.text.tokenizer, len(teachers.text.matrix)
    else:
        tokenizer, vocabulary = train_tokenizer(CAPTIONS, 400), 400
    model = build(recipe, vocabulary)
    if words != "own":
        inherit(model, recipe, tokenizer, teachers.text)
    return recipe, Objective(recipe, model, None, teachers), tokenizer, teachers


# the loss


@pytest.mark.parametrize("form", ["cosine", "smooth_l1"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_loss_and_its_gradient_are_the_loops(form, dtype):
    torch.manual_seed(0)
    student, teacher = torch.randn(3, 5, 7).to(dtype), (4 * torch.randn(3, 5, 7) + 1).to(dtype)
    chosen = torch.rand(3, 5) < 0.5
    ours = student.clone().requires_grad_()
    value = losses.masked_distillation(ours, teacher, chosen, form)
    value.backward()
    exact = student.double().requires_grad_()
    total, count = 0, 0
    for i in range(3):
        for n in range(5):
            if not chosen[i, n]:
                continue
            s, t = exact[i, n], teacher[i, n].double()
            if form == "cosine":
                total = total + 1 - (s * t).sum() / ((s * s).sum().sqrt() * (t * t).sum().sqrt())
            else:
                white = (t - t.mean()) / (((t - t.mean()) ** 2).mean() + 1e-5).sqrt()
                for a, b in zip(s, white, strict=True):
                    gap = (a - b).abs()
                    total = total + (gap**2 / 4 if gap < 2 else gap - 1) / 7
            count += 1
    (total / count).backward()
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx((total / count).item(), rel=1e-5)
    tolerance = 1e-6 if dtype == torch.float32 else 2e-3  # a gradient comes back in the input's own precision
    assert torch.allclose(ours.grad.double(), exact.grad, atol=tolerance)


def test_the_loss_of_nothing_is_nothing_and_a_perfect_student_pays_nothing():
    teacher = 3 * torch.randn(2, 4, 6) + 1
    assert losses.masked_distillation(torch.randn(2, 4, 6), teacher, torch.zeros(2, 4)).item() == 0
    everywhere = torch.ones(2, 4)
    assert losses.masked_distillation(7 * teacher, teacher, everywhere).item() == pytest.approx(0, abs=1e-6)
    white = F.layer_norm(teacher, (6,))
    assert losses.masked_distillation(white, teacher, everywhere, "smooth_l1").item() == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="cosine or smooth_l1"):
        losses.masked_distillation(teacher, teacher, everywhere, "l2")


def test_hidden_words_are_words_and_as_many_as_asked_for():
    words = torch.zeros(4, 10, dtype=torch.bool)
    words[0, 1:9], words[1, 1:3], words[2, 4] = True, True, True  # the last caption has none
    hidden = random_words(words, 0.3, torch.Generator().manual_seed(0))
    assert hidden.sum(1).tolist() == [2, 1, 1, 0] and not (hidden & ~words).any()
    assert torch.equal(hidden, random_words(words, 0.3, torch.Generator().manual_seed(0)))
    often = sum(random_words(words, 0.5, torch.Generator().manual_seed(i))[0] for i in range(400))
    assert often[1:9].min() > 150 and often[1:9].max() < 250  # each of eight, half of the time
    assert not random_words(words, 0.0).any()
    with pytest.raises(ValueError, match="outside 0 to 1"):
        random_words(words, 1.5)


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


# the term


@pytest.mark.parametrize("tokens", ["masked", "all"])
def test_the_vision_term_is_the_masked_students_part_against_the_clean_teacher(folders, tokens):
    recipe, objective, tokenizer, teachers = setting(folders, f"sfclip.tokens={tokens}", "sfclip.text_weight=0")
    batch, stage = Batches(recipe, tokenizer)[0], recipe.stages[0]
    assert batch["sfclip_part"].sum() == 4 and batch["sfclip_masked"].float().mean().item() == 0.5
    _, terms = objective(batch, stage)
    total, count, head = 0.0, 0, objective.terms["sfclip"].vision_head
    for i in range(8):
        if batch["sfclip_part"][i]:
            hidden = batch["sfclip_masked"][i : i + 1]
            seen = objective.model.vision_model(batch["image"][i : i + 1], bool_masked_pos=hidden)
            student, target = head(seen.last_hidden_state[0, 2:]), teachers.vision.look(batch["image"][i : i + 1], 4)[0]
            for n in range(16):
                if tokens == "all" or hidden[0, n]:
                    total += 1 - F.cosine_similarity(student[n], target[n], dim=0).item()
                    count += 1
    assert terms["sfclip_vision"].item() == pytest.approx(total / count, rel=1e-5)
    assert "sfclip_text" not in terms


@pytest.mark.parametrize("target, words", [("tokens", "teacher"), ("sentence", "teacher"), ("sentence", "own")])
def test_the_text_term_is_the_masked_captions_against_the_clean_teacher(folders, target, words):
    fields = [f"sfclip.text_target={target}", "sfclip.vision_weight=0", "sfclip.form=smooth_l1"]
    recipe, objective, tokenizer, teachers = setting(folders, *fields, words=words)
    batches, stage = Batches(recipe, tokenizer), recipe.stages[0]
    batch, captions = batches[0], batches.source.take(0).captions["synthetic"]
    _, terms = objective(batch, stage)
    term, text = objective.terms["sfclip"], objective.model.text_model
    total, count = 0.0, 0
    for i in range(8):
        if not batch["sfclip_part"][i]:
            continue
        length = int(batch["synthetic_mask"][i].sum())
        ids, hidden = batch["synthetic_ids"][i, :length], batch["sfclip_words"][i, :length]
        assert 0 < hidden.sum() < length and not set(ids[hidden].tolist()) & set(tokenizer.all_special_ids)
        rows = [term.masked_word if h else text.embeddings.token_embedding(t) for t, h in zip(ids, hidden, strict=True)]
        out = text(inputs_embeds=torch.stack(rows)[None]).last_hidden_state[0]
        if words == "own":
            ids = teachers.text.tokenizer(captions[i], return_tensors="pt")["input_ids"][0]
        features = teachers.text.read(ids[None], torch.ones_like(ids)[None])[0]
        if target == "tokens":
            pairs = [(term.text_head(out[n]), features[n]) for n in range(length) if hidden[n]]
        else:
            pairs = [(term.text_head(out.mean(0)), features.mean(0))]
        for student, feature in pairs:
            total += F.smooth_l1_loss(student, F.layer_norm(feature, (24,)), beta=2.0).item()
            count += 1
    assert terms["sfclip_text"].item() == pytest.approx(total / count, rel=1e-4)


def test_only_the_part_is_distilled_and_only_the_student_learns(folders):
    recipe, objective, tokenizer, teachers = setting(folders)
    batch, stage = Batches(recipe, tokenizer)[0], recipe.stages[0]
    loss, terms = objective(batch, stage)
    loss.backward()
    assert not [n for n, p in objective.named_parameters() if p.requires_grad and p.grad is None]
    assert all(p.grad is None for t in (teachers.vision, teachers.text) for p in t.model.parameters())
    size = sum(v.numel() for v in objective.state_dict().values())
    assert size == sum(p.numel() for p in objective.parameters())  # no teacher among them
    assert not any("teacher" in name for name in objective.state_dict())
    other = dict(batch)
    other["image"] = torch.where(batch["sfclip_part"][:, None, None, None], batch["image"], torch.rand(8, 3, 56, 56))
    again = objective(other, stage)[1]
    assert again["sfclip_vision"].item() == pytest.approx(terms["sfclip_vision"].item(), rel=1e-6)
    assert again["contrastive_web"].item() != pytest.approx(terms["contrastive_web"].item(), rel=1e-6)


def test_distillation_teaches(folders):
    recipe, objective, tokenizer, _ = setting(folders)
    batch, stage = Batches(recipe, tokenizer)[0], recipe.stages[0]
    optimizer = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=3e-3)
    history = []
    for _ in range(25):
        loss, terms = objective(batch, stage)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append({name: value.item() for name, value in terms.items()})
    for name in ("sfclip_vision", "sfclip_text"):
        assert history[-1][name] < 0.6 * history[0][name], name


def test_parts_and_lower_precision_change_little(folders):
    """The term sees the whole batch where memory holds a part of it, and its loss is fp32 under bf16."""
    recipe, objective, tokenizer, _ = setting(folders)
    batch, stage = Batches(recipe, tokenizer)[0], recipe.stages[0]
    _, whole = objective(batch, stage)
    recipe, objective, _, _ = setting(folders, "accumulate=2")
    _, parts = objective(batch, stage)
    with torch.autocast("cpu", torch.bfloat16):
        _, coarse = objective(batch, stage)
    for name in ("sfclip_vision", "sfclip_text"):
        assert parts[name].item() == pytest.approx(whole[name].item(), rel=1e-5)
        assert (
            coarse[name].item() == pytest.approx(whole[name].item(), rel=0.05) and coarse[name].dtype == torch.float32
        )


def test_fields_that_cannot_be_are_refused(folders):
    for fields, hint in (
        (["sfclip.words=own"], "text_target=tokens needs the teacher's tokenizer"),
        (["sfclip.form=l2"], "cosine or smooth_l1"),
        (["sfclip.tokens=some"], "masked or all"),
        (["sfclip.patch_ratio=0"], "hides nothing"),
        (["sfclip.text_teacher="], "sfclip.text_teacher is empty"),
        (["sfclip.matrix=thawed"], "frozen or trained"),
        (["distillation.weight=1"], "set it to own"),
    ):
        words = "own" if fields == ["sfclip.words=own"] else "teacher"
        with pytest.raises(ValueError, match=hint):
            setting(folders, *fields, words=words)
    recipe, _, tokenizer, _ = setting(folders)
    for field, hint in (("share=0", "above 0"), ("word_ratio=2", "between 0 and 1"), ("caption=short", "synthetic")):
        with pytest.raises(ValueError, match=hint):
            Batches(settings.override(recipe, [f"sfclip.{field}"]), tokenizer)


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


# whole runs


def test_stop_and_resume_is_bit_for_bit_the_uninterrupted_run(folders, tmp_path):
    recipe, objective, tokenizer, _ = setting(folders)
    fit(recipe, objective, tokenizer, tmp_path / "whole", show=False)
    recipe, objective, tokenizer, _ = setting(folders)
    step = type(objective).after_step

    class Interrupted(type(objective)):
        def after_step(self, done):
            step(self, done)
            if done == 3:
                os.kill(os.getpid(), signal.SIGTERM)

    objective.__class__ = Interrupted
    with pytest.raises(Stopped):
        fit(recipe, objective, tokenizer, tmp_path / "parts", show=False)
    recipe, objective, tokenizer, _ = setting(folders)
    torch.manual_seed(999)
    fit(recipe, objective, tokenizer, tmp_path / "parts", resume=True, show=False)
    first, second = (load_file(checkpoint.latest(tmp_path / n) / "state.safetensors") for n in ("whole", "parts"))
    assert first.keys() == second.keys() and any(k.startswith("optimizer.terms.sfclip.text_head") for k in first)
    assert all(torch.equal(first[k], second[k]) for k in first)


def worker(rank, port, folders, out):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    recipe, objective, tokenizer, _ = setting(folders)
    batch = {k: v.chunk(2)[rank] for k, v in uneven(Batches(recipe, tokenizer)[0]).items()}
    engine = torch.nn.parallel.DistributedDataParallel(objective, find_unused_parameters=True)
    torch.save(step(engine, batch, recipe.stages[0]), f"{out}/{rank}.pt")
    dist.destroy_process_group()


def uneven(batch):
    """The same batch with three images of the part in its first half and one in its second."""
    return batch | {"sfclip_part": torch.tensor([1, 1, 0, 1, 0, 1, 0, 0]).bool()}


def step(objective, batch, stage):
    loss, terms = objective(batch, stage)
    loss.backward()
    inner = getattr(objective, "module", objective)
    gradients = {n: p.grad.clone() for n, p in inner.named_parameters() if p.grad is not None}
    return {k: v.item() for k, v in terms.items()}, gradients


def test_two_processes_are_one(folders, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(worker, (port, folders, str(tmp_path)), nprocs=2)
    halves = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    recipe, objective, tokenizer, _ = setting(folders)
    terms, gradients = step(objective, uneven(Batches(recipe, tokenizer)[0]), recipe.stages[0])
    for name, value in terms.items():
        assert sum(half[0][name] for half in halves) / 2 == pytest.approx(value, rel=1e-5), name
    for _, found in halves:
        assert found.keys() == gradients.keys()
        for name, gradient in gradients.items():
            assert torch.allclose(found[name], gradient, atol=2e-5 * gradient.abs().max() + 1e-8), name


def test_the_command_trains_and_says_what_is_wrong(folders, tmp_path, capsys):
    out = ["--out", str(tmp_path / "run"), "--recipe", "sfclip"]
    assert main(["sfclip", *out]) == 2
    assert "--vision-teacher, --text-teacher or both" in capsys.readouterr().err
    assert main(["sfclip", *out, "--text-teacher", str(folders["vit"])]) == 2
    assert "not a text model" in capsys.readouterr().err
    assert main(["pretrain", *out]) == 2
    assert "python -m train sfclip" in capsys.readouterr().err
    assert main(["sfclip", *out, "--dry-run", "--text-teacher", str(folders["words"]), "seed=3"]) == 0
    resolved = json.loads(capsys.readouterr().out)
    assert resolved["sfclip"]["vision_weight"] == 0 and resolved["sfclip"]["words"] == "teacher"
    assert main(["sfclip", *out, "--dry-run", "--vision-teacher", str(folders["vit"])]) == 0
    resolved = json.loads(capsys.readouterr().out)
    assert resolved["sfclip"]["text_weight"] == 0 and resolved["sfclip"]["words"] == "own"
