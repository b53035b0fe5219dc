"""Training: objectives on a tiny encoder, and runs that stop, resume, fail and export as they should."""

import json
import math
import os
import shutil
import signal
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoTokenizer, Tipsv2Model

from tipsv2 import scenes
from train.__main__ import main
from train.data.batches import Batches
from train.data.views import local_crops
from train.network.tokenizer import train_tokenizer
from train.network.towers import build
from train.objectives import Objective
from train.objectives.view import caption_keys
from train.parallel.signals import Stopped
from train.recipe import recipes
from train.recipe.overrides import override
from train.run import checkpoint
from train.run.loop import fit
from train.run.step import optimizer_of
from train.tools import curves

WORDS = ["a dog on the grass, under the sky", "two cats in the snow", "a red car at the left"] * 20


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(WORDS, 400)


@pytest.fixture
def recipe():
    return override(recipes.get("smoke"), ["precision=fp32", "sample_every=1000", "tower.vocabulary=400"])


def pretraining(recipe):
    torch.manual_seed(recipe.seed)
    return Objective(recipe, build(recipe, recipe.tower.vocabulary))


def distilling(recipe, *fields):
    """The smoke recipe as value distillation: an unmasked student and no other patch term."""
    alone = [f"stages.{k}.{field}=0" for k in (0, 1) for field in ("patch_weight", "local_crops", "mask_ratio")]
    return override(recipe, [*alone, "distillation.weight=4", *fields])


def distillation(recipe):
    torch.manual_seed(1)
    teacher = build(recipe, recipe.tower.vocabulary)
    return Objective(recipe, build(recipe, recipe.tower.vocabulary), teacher)


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_every_trainable_parameter_gets_a_gradient(recipe, tokenizer):
    objective = pretraining(recipe)
    loss, terms = objective(Batches(recipe, tokenizer)[4], recipe.stages[1])  # a step with every term
    loss.backward()
    left = [n for n, p in objective.named_parameters() if p.requires_grad and p.grad is None]
    assert left == []
    assert objective.model.vision_model.embeddings.mask_token.grad.abs().sum() > 0, "nothing was masked"
    parts = {"contrastive/web", "contrastive/synthetic", "self_distillation/patch", "self_distillation/dino"}
    assert {f"loss/{part}" for part in parts} <= set(terms)
    expected = (
        (terms["loss/contrastive/web"] + terms["loss/contrastive/synthetic"]) / 2
        + 2 * terms["loss/self_distillation/patch"]
        + terms["loss/self_distillation/dino"]
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_web_caption_learns_on_the_first_cls_and_the_synthetic_one_on_the_second(recipe, tokenizer):
    """Written out from plain transformers: symmetric cross-entropy of cosines over the learned temperature."""
    objective, batch = pretraining(recipe).eval(), Batches(recipe, tokenizer)[0]
    model, total = objective.model, 0
    loss, terms = objective(batch, recipe.stages[0])
    tokens = model.vision_model(batch["image"]).last_hidden_state
    for place, role in enumerate(("web", "synthetic")):
        text = model.text_model(batch[f"{role}_ids"], attention_mask=batch[f"{role}_mask"]).pooler_output
        cosines = torch.nn.functional.cosine_similarity(tokens[:, None, place], text[None], dim=-1)
        logits = cosines / model.temperature
        right = torch.arange(len(logits))
        both = [torch.nn.functional.cross_entropy(way, right) for way in (logits, logits.T)]
        assert terms[f"loss/contrastive/{role}"].item() == pytest.approx(sum(both).item() / 2, rel=1e-4)
        total += sum(both).item() / 4
    assert loss.item() == pytest.approx(total, rel=1e-4)


def test_equal_captions_of_a_batch_are_not_contrasted(recipe, tokenizer):
    """Written out from plain transformers, with the other images of a caption left out of the softmax."""
    objective, batch = pretraining(recipe).eval(), Batches(recipe, tokenizer)[0]
    for name in ("web_ids", "web_mask"):
        batch[name][[3, 5]] = batch[name][[0, 0]]
    model = objective.model
    _, terms = objective(batch, recipe.stages[0])
    image = model.vision_model(batch["image"]).last_hidden_state[:, 0]
    text = model.text_model(batch["web_ids"], attention_mask=batch["web_mask"]).pooler_output
    logits = torch.nn.functional.cosine_similarity(image[:, None], text[None], dim=-1) / model.temperature
    texts = [tuple(row[mask.bool()].tolist()) for row, mask in zip(batch["web_ids"], batch["web_mask"], strict=True)]
    values = []
    for way in (logits, logits.T):
        for k, own in enumerate(texts):
            wrong = [way[k, j] for j, other in enumerate(texts) if other != own]
            values.append(torch.stack([way[k, k], *wrong]).logsumexp(0) - way[k, k])
    assert len(set(texts)) < len(texts) - 1
    assert terms["loss/contrastive/web"].item() == pytest.approx(torch.stack(values).mean().item(), rel=1e-4)


@pytest.mark.slow
def test_captions_have_equal_keys_if_and_only_if_they_are_equal(tokenizer):
    texts = sorted({text for seed in range(200) for text in scenes.draw(seed, 56).captions.values()})
    texts += ["a dog a cat", "a cat a dog", "a", "a a", "a a a"]
    alone = []
    for text in texts:
        tokens = tokenizer(text, truncation=True, max_length=64, return_tensors="pt")
        alone += caption_keys(tokens["input_ids"], tokens["attention_mask"]).tolist()
    padded = tokenizer(texts, padding="max_length", truncation=True, max_length=64, return_tensors="pt")
    assert caption_keys(padded["input_ids"], padded["attention_mask"]).tolist() == alone
    assert len(set(alone)) == len({tuple(ids) for ids in padded["input_ids"].tolist()}) > 300


@pytest.mark.parametrize("patches", ["all", "masked", "separate"])
def test_self_distillation_is_the_masked_view_against_the_clean_one(recipe, tokenizer, patches):
    """Both terms as loops over plain transformers' passes: which view, which CLS and which patches count."""
    fields = [f"self_distillation.{field}" for field in (f"patches={patches}", "targets=centre")]
    recipe = override(recipe, fields)
    objective, batch = pretraining(recipe).eval(), Batches(recipe, tokenizer)[4]
    heads, vision, values = objective.terms["self_distillation"].heads, objective.model.vision_model, recipe
    with torch.no_grad():
        for kind in ("cls", "patch"):
            getattr(heads, f"centre_{kind}").normal_(std=0.1)
            for parameter in heads.teacher[kind].parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        _, terms = objective(batch, recipe.stages[1])
        clean = vision(batch["image"]).last_hidden_state
        masked = vision(batch["image"], bool_masked_pos=batch["masked"]).last_hidden_state
        values = recipe.self_distillation

        def costs(kind, teacher, student):
            """Cross-entropies [...] of the student's scores against the teacher's sharpened ones."""
            target = (heads.teacher[kind](teacher) - getattr(heads, f"centre_{kind}")) / values.teacher_temperature
            scores = heads.student[kind](student) / values.student_temperature
            return -(target.softmax(-1) * scores.log_softmax(-1)).sum(-1)

        each = costs("patch", clean[:, 2:], masked[:, 2:])
        hidden = [each[b, n].item() for b, n in zip(*torch.where(batch["masked"]), strict=True)]
        seen = [each[b, n].item() for b, n in zip(*torch.where(~batch["masked"]), strict=True)]
        mean = {
            "all": sum(hidden + seen) / len(hidden + seen),
            "masked": sum(hidden) / len(hidden),
            "separate": (sum(hidden) / len(hidden) + sum(seen) / len(seen)) / 2,
        }
        crops = [
            costs("cls", clean[:, 0], vision(crop).last_hidden_state[:, 0]).mean().item() for crop in batch["local"]
        ]
    assert len(hidden) == 3 * len(seen) and len(crops) == 2
    assert terms["loss/self_distillation/patch"].item() == pytest.approx(mean[patches], rel=1e-4)
    assert terms["loss/self_distillation/dino"].item() == pytest.approx(sum(crops) / 2, rel=1e-4)
    assert min(abs(mean[patches] - other) for name, other in mean.items() if name != patches) > 1e-3


def test_an_unknown_patch_loss_is_refused_before_the_first_step(recipe):
    with pytest.raises(ValueError, match="did you mean 'masked'"):
        pretraining(override(recipe, ["self_distillation.patches=maskd"]))


@pytest.mark.slow
def test_what_decays_and_how_fast_it_learns(recipe, tokenizer, tmp_path):
    objective = pretraining(recipe)
    groups = optimizer_of(recipe, objective).param_groups
    of = {id(p): (g["weight_decay"], g["lr_scale"]) for g in groups for p in g["params"]}
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            expected = (0.0, 0.1) if name == "model.temperature" else (0.05 * (parameter.ndim >= 2), 1.0)
            assert of.pop(id(parameter)) == expected, name
    assert not of
    fit(recipe, objective, tokenizer, tmp_path / "run", show=False)
    kept = load_file(checkpoint.latest(tmp_path / "run") / "state.safetensors")
    assert "optimizer.model.temperature.exp_avg" in kept


def test_clean_and_masked_view_in_one_pass_equal_two_passes(recipe, tokenizer):
    """The contrastive terms do not notice the masked view that travels with the clean one."""
    objective = pretraining(recipe).eval()
    batch = Batches(recipe, tokenizer)[4]
    _, together = objective(batch, recipe.stages[1])
    clean = {k: v for k, v in batch.items() if k not in ("masked", "local")}
    _, alone = objective(clean, recipe.stages[0])
    for name, value in alone.items():
        assert together[name].item() == pytest.approx(value.item(), abs=1e-5)


def test_head_only_ema_shares_the_backbone(recipe):
    objective = pretraining(recipe)
    names = [name for name, _ in objective.named_parameters()]
    assert sum("patch_embeddings.projection.weight" in n for n in names) == 1  # one backbone
    assert any("heads.teacher" in n for n in names)


def test_full_ema_averages_the_backbone_and_teaches_with_it(recipe, tokenizer):
    """Closed form: after one step the teacher is momentum * start + (1 - momentum) * student."""
    recipe = override(recipe, ["self_distillation.ema=full", "self_distillation.momentum=0.9"])
    objective = pretraining(recipe)
    term, vision = objective.terms["self_distillation"], objective.model.vision_model
    start = {n: p.clone() for n, p in term.backbone.named_parameters()}
    with torch.no_grad():
        for parameter in vision.parameters():
            parameter.add_(torch.randn_like(parameter))
    objective.after_step(0)
    for name, parameter in vision.named_parameters():
        assert torch.allclose(term.backbone.get_parameter(name), 0.9 * start[name] + 0.1 * parameter, atol=1e-6), name
    assert not any(p.requires_grad for p in term.backbone.parameters())
    before = objective(Batches(recipe, tokenizer)[5], recipe.stages[1])[1]["measured/self_distillation/patch_entropy"]
    with torch.no_grad():
        term.backbone.layernorm.bias.add_(3 * torch.randn_like(term.backbone.layernorm.bias))
    after = objective(Batches(recipe, tokenizer)[5], recipe.stages[1])[1]["measured/self_distillation/patch_entropy"]
    assert before.item() != after.item()  # what the averaged backbone sees is the target


def test_the_teachers_temperature_warms_up(recipe):
    recipe = override(recipe, [f"self_distillation.{v}" for v in ("teacher_warmup=4", "teacher_start=0.01")])
    term, seen = (objective := pretraining(recipe)).terms["self_distillation"], []
    for step in range(6):
        seen.append(term.settings.temperature(int(term.done)))
        objective.after_step(step)
    assert seen == pytest.approx([0.01, 0.02, 0.03, 0.04, 0.05, 0.05])


@pytest.mark.parametrize("features", ["values", "final", "both"])
def test_grounding_reaches_the_patches_it_names(recipe, tokenizer, features):
    recipe = override(recipe, ["grounding.weight=2", f"grounding.features={features}"])
    objective = pretraining(recipe)
    batch, stage = Batches(recipe, tokenizer)[0], recipe.stages[0]
    loss, terms = objective(batch, stage)
    names = ["values", "final"] if features == "both" else [features]
    assert {n for n in terms if "grounding" in n} == {f"loss/grounding/{n}" for n in names}
    expected = (terms["loss/contrastive/web"] + terms["loss/contrastive/synthetic"]) / 2
    grounding = sum(2 * terms[f"loss/grounding/{n}"] for n in names) / len(names)
    assert loss.item() == pytest.approx((expected + grounding).item(), rel=1e-6)
    fifth = objective(batch, replace(stage, grounding=0.2))[0]
    assert fifth.item() == pytest.approx((expected + grounding / 5).item(), rel=1e-6)
    without, terms = objective(batch, replace(stage, grounding=0))
    assert without.item() == pytest.approx(expected.item(), rel=1e-6) and len(terms) == 2


def test_distillation_learns_the_teachers_values(recipe, tokenizer):
    recipe = distilling(recipe)
    objective = distillation(recipe)
    teacher, student = objective.terms["distillation"].teacher[0], objective.model
    batch = Batches(recipe, tokenizer)[5]
    trained = [p for p in objective.parameters() if p.requires_grad]
    assert not any(n.startswith("model.text_model") for n, p in objective.named_parameters() if p.requires_grad)
    optimizer = torch.optim.AdamW(trained, lr=3e-3)
    first = last = None
    for _ in range(15):
        loss, terms = objective(batch, recipe.stages[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first, last = first or terms["loss/distillation/patches"].item(), terms["loss/distillation/patches"].item()
    assert last < 0.6 * first
    assert all(torch.equal(v, teacher.text_model.state_dict()[k]) for k, v in student.text_model.state_dict().items())
    assert not any("teacher" in k for k in objective.state_dict())


@pytest.mark.parametrize("target", ["values", "final"])
def test_the_target_is_the_teachers_values_or_its_final_layer(recipe, tokenizer, target):
    """The values written out by hand from the last block's input; the final layer as transformers gives it."""
    objective = distillation(distilling(recipe, f"distillation.target={target}")).terms["distillation"]
    teacher, term = objective.teacher[0], objective.settings
    vision, images = teacher.vision_model, Batches(recipe, tokenizer)[0]["image"]
    with torch.no_grad():
        expected = vision(images).last_hidden_state[:, 2:]
        if target == "values":
            hidden = vision.embeddings(images)
            for layer in vision.encoder.layer[:-1]:
                hidden = layer(hidden)
            last = vision.encoder.layer[-1]
            hidden = hidden + last.attention.o_proj(last.attention.v_proj(last.norm1(hidden)))
            expected = vision.layernorm(hidden + last.mlp(last.norm2(hidden)))[:, 2:]
    stage = recipe.stages[0]
    assert torch.allclose(term.targets(images, stage, teacher).flatten(1, 2), expected, atol=1e-5)
    larger = term.targets(images, replace(stage, teacher_size=112), teacher)
    assert larger.shape[1:3] == (4, 4)  # the teacher saw 8 x 8 patches, the student has 4 x 4


def test_the_teacher_goes_where_the_images_are(recipe):
    """In a run of several accelerators every process has its own copy, beside its own images."""
    term = distillation(distilling(recipe)).terms["distillation"]
    assert term.teacher[0].device.type == "cpu"
    images = torch.empty(2, 3, 56, 56, device="meta")
    assert term.settings.targets(images, recipe.stages[0], term.teacher[0]).device.type == "meta"


def test_a_student_that_starts_as_its_teacher_has_nothing_to_learn_from_the_final_layer(recipe, tokenizer):
    recipe = distilling(recipe, "distillation.vision=teacher", "distillation.target=final")
    _, terms = distillation(recipe)(Batches(recipe, tokenizer)[0], recipe.stages[0])
    assert terms["loss/distillation/patches"].item() == pytest.approx(0, abs=1e-6)


def test_a_masked_student_is_taught_through_its_masks(recipe, tokenizer):
    """Table 2, rows 2 and 3: mask_ratio above 0 hides patches from the student, never from the teacher."""
    recipe = distilling(recipe, "distillation.vision=teacher", "distillation.target=final", "stages.1.mask_ratio=0.75")
    objective = distillation(recipe)
    batch = Batches(recipe, tokenizer)[4]
    assert batch["masked"].float().mean().item() == pytest.approx(0.75)
    _, terms = objective(batch, recipe.stages[1])
    assert terms["loss/distillation/patches"].item() > 0.01
    teacher = objective.terms["distillation"].teacher[0].vision_model
    hidden = teacher(batch["image"], bool_masked_pos=batch["masked"]).last_hidden_state[:, 2:]
    seen = teacher(batch["image"]).last_hidden_state[:, 2:]
    expected = 1 - torch.cosine_similarity(hidden, seen, dim=-1).mean()
    assert terms["loss/distillation/patches"].item() == pytest.approx(expected.item(), abs=1e-5)


def test_a_narrow_student_learns_from_a_wide_teacher(recipe, tokenizer):
    torch.manual_seed(1)
    teacher = build(override(recipe, ["tower.width=64"]), 400)
    recipe = distilling(recipe, "distillation.text=random")
    objective = Objective(recipe, build(recipe, 400), teacher)
    loss, _ = objective(Batches(recipe, tokenizer)[0], recipe.stages[0])
    loss.backward()
    assert objective.terms["distillation"].project.weight.grad.abs().sum() > 0
    assert objective.model.text_model.embeddings.token_embedding.weight.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="tower.width=64"):
        Objective(distilling(recipe, "distillation.text=frozen"), build(recipe, 400), teacher)


def test_batches_depend_on_the_step_alone(recipe, tokenizer):
    batches = Batches(recipe, tokenizer)
    assert [batches.images_before(s) for s in (0, 1, 4, 6)] == [0, 8, 32, 48]
    for first, again in zip(batches[5].values(), Batches(recipe, tokenizer)[5].values(), strict=True):
        assert torch.equal(first, again)
    assert not torch.equal(batches[5]["image"], batches[6]["image"])


def test_local_crops_lie_inside_and_enlarge():
    ramp = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)  # brightness = x
    crops = local_crops(ramp, 20, 32, torch.Generator().manual_seed(0), scale=(0.25, 0.25))
    assert crops.shape == (20, 1, 3, 32, 32)
    span = (crops[..., -1] - crops[..., 0]).abs().mean((1, 2, 3))
    assert torch.allclose(span, torch.full((20,), 0.5 * 31 / 32 * 64 / 63), atol=0.02)  # a quarter of the area
    assert crops.min() >= 0 and crops.max() <= 1


def test_tokenizer_keeps_commas_apart_and_reads_anything(tokenizer, tmp_path):
    assert tokenizer.tokenize("A dog, a dog") == ["▁a", "▁dog", ",", "▁a", "▁dog"]
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("a dog", "Собака 🐕 犬", "x" * 500):
        assert (
            again(text, truncation=True, max_length=64)["input_ids"]
            == tokenizer(text, truncation=True, max_length=64)["input_ids"]
        )
    assert tokenizer.unk_token_id not in tokenizer("Собака 🐕")["input_ids"]
    with pytest.raises(ValueError, match="too small"):
        train_tokenizer(WORDS, 100)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make, fields",
    [
        (pretraining, ["grounding.weight=1"]),
        (pretraining, ["sparc.weight=1", "sparc.width=16"]),
        (pretraining, ["self_distillation.targets=centre", "self_distillation.teacher_warmup=9"]),
        (pretraining, ["self_distillation.ema=full"]),
        (distillation, ["distillation.weight=4", "stages.0.patch_weight=0", "stages.1.patch_weight=0"]),
    ],
)
def test_stop_and_resume_is_bit_for_bit_the_uninterrupted_run(recipe, tokenizer, tmp_path, make, fields):
    recipe = override(recipe, ["save_every=1000", *fields])
    fit(recipe, make(recipe), tokenizer, tmp_path / "whole", show=False)

    objective = make(recipe)
    step = type(objective).after_step

    class Interrupted(type(objective)):
        def after_step(self, done):
            step(self, done)
            if done == 5:  # in the middle of the second stage; the next step is the last
                os.kill(os.getpid(), signal.SIGTERM)

    objective.__class__ = Interrupted
    with pytest.raises(Stopped):
        fit(recipe, objective, tokenizer, tmp_path / "parts", show=False)
    assert lines(tmp_path / "parts")[-1]["step"] == 7
    torch.manual_seed(999)  # a new process would not share the old one's random state
    elsewhere = override(recipe, ["workers=1", "save_every=500"])  # how a run is kept is no part of it
    fit(elsewhere, make(recipe), tokenizer, tmp_path / "parts", resume=True, show=False)

    whole, parts = lines(tmp_path / "whole"), lines(tmp_path / "parts")
    assert [(x["step"], x.get("loss"), x.get("gradient_norm")) for x in whole] == [
        (x["step"], x.get("loss"), x.get("gradient_norm")) for x in parts
    ]
    first = load_file(checkpoint.latest(tmp_path / "whole") / "state.safetensors")
    second = load_file(checkpoint.latest(tmp_path / "parts") / "state.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.slow
def test_a_run_leaves_a_model_that_transformers_opens(recipe, tokenizer, tmp_path):
    folder = fit(recipe, objective := pretraining(recipe), tokenizer, tmp_path / "run", show=False)
    model, report = Tipsv2Model.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    for name, value in objective.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert model.temperature.item() == pytest.approx(objective.model.temperature.item())
    assert AutoTokenizer.from_pretrained(folder)("a dog")["input_ids"] == tokenizer("a dog")["input_ids"]
    steps = [x for x in lines(tmp_path / "run") if "loss" in x]
    assert len(steps) == recipe.steps and steps[0]["ln_batch"] == pytest.approx(math.log(8), abs=1e-5)
    assert (tmp_path / "run" / "samples" / f"step-{recipe.steps:07d}.png").exists()


@pytest.mark.slow
def test_the_whole_objective_can_learn_one_batch_by_heart(recipe, tokenizer):
    objective = pretraining(recipe)
    batch, stage = Batches(recipe, tokenizer)[4], recipe.stages[1]
    optimizer = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=5e-4)
    history = []
    for step in range(100):
        loss, terms = objective(batch, stage)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
        optimizer.step()
        objective.after_step(step)
        history.append({k: v.item() for k, v in terms.items()})
    assert (
        history[0]["loss/contrastive/synthetic"] > math.log(8) - 0.3 and history[-1]["loss/contrastive/synthetic"] < 1.0
    )
    assert (
        history[-1]["loss/self_distillation/patch"] < history[0]["loss/self_distillation/patch"] - 0.5
        and history[-1]["loss/self_distillation/dino"] < history[0]["loss/self_distillation/dino"] - 0.5
    )


def test_a_loss_that_is_not_finite_stops_and_says_where(recipe, tokenizer, tmp_path):
    objective = pretraining(recipe)
    with torch.no_grad():
        objective.terms["self_distillation"].heads.student["patch"].prototypes.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="step 5: loss, loss/self_distillation/patch"):
        fit(recipe, objective, tokenizer, tmp_path / "run", show=False)
    assert checkpoint.latest(tmp_path / "run").name == "step-0000004"


@pytest.mark.slow
def test_used_folders_and_changed_recipes_are_refused(recipe, tokenizer, tmp_path):
    run = tmp_path / "run"
    fit(recipe, pretraining(recipe), tokenizer, run, show=False)
    with pytest.raises(ValueError, match="--resume"):
        fit(recipe, pretraining(recipe), tokenizer, run, show=False)
    with pytest.raises(
        ValueError, match="another recipe: weight_decay: 0.05 in .*run, 0.2 given. Leave out what differs"
    ):
        changed = override(recipe, ["weight_decay=0.2"])
        fit(changed, pretraining(changed), tokenizer, run, resume=True, show=False)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="not empty"):
        fit(recipe, pretraining(recipe), tokenizer, tmp_path / "full", show=False)


def test_checkpoints_are_whole_or_absent(recipe, tmp_path, monkeypatch):
    objective = pretraining(recipe)
    optimizer = torch.optim.AdamW(objective.parameters())
    checkpoint.save(tmp_path, 1, objective, optimizer)

    def full_disk(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full_disk)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(tmp_path, 2, objective, optimizer)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-0000001"]


def test_older_checkpoints_keep_their_encoder_and_are_spread_over_the_run(recipe, tmp_path):
    objective = pretraining(recipe)
    optimizer = torch.optim.AdamW(objective.parameters())
    for step in range(1, 31):
        with torch.no_grad():
            objective.model.temperature.fill_(step / 100)
        checkpoint.save(tmp_path, step, objective, optimizer, milestones=4)
    places = sorted((tmp_path / "checkpoints").iterdir())
    steps = [int(place.name[5:]) for place in places]
    assert len(steps) == 6 and steps[-2:] == [29, 30]
    gaps = [b - a for a, b in zip([0, *steps], steps[:-1], strict=False)]
    assert max(gaps) <= 2 * 29 / 5  # twice as far apart as with perfect spacing, at most
    assert checkpoint.latest(tmp_path) == places[-1]
    for place, step in zip(places[:-2], steps, strict=False):
        kept = load_file(place / "state.safetensors")
        assert [path.name for path in place.iterdir()] == ["state.safetensors"]
        assert kept.keys() == {f"objective.model.{name}" for name in objective.model.state_dict()}
        assert kept["objective.model.temperature"].item() == pytest.approx(step / 100)
    for place in places[-2:]:
        shutil.rmtree(place)
    assert checkpoint.latest(tmp_path) is None  # an encoder alone is nothing to go on from


def test_a_kill_while_a_checkpoint_is_thinned_is_made_good(recipe, tmp_path, monkeypatch):
    objective = pretraining(recipe)
    optimizer = torch.optim.AdamW(objective.parameters())
    for step in (1, 2):
        checkpoint.save(tmp_path, step, objective, optimizer, milestones=4)
    replace = checkpoint.os.replace

    def killed(source, target):
        if source.name == "part":
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint.os, "replace", killed)
        checkpoint.save(tmp_path, 3, objective, optimizer, milestones=4)
    first = tmp_path / "checkpoints" / "step-0000001"
    assert (first / "part").exists() and "rng" in load_file(first / "state.safetensors")
    checkpoint.save(tmp_path, 4, objective, optimizer, milestones=4)
    assert [path.name for path in first.iterdir()] == ["state.safetensors"]
    assert load_file(first / "state.safetensors").keys() == {
        f"objective.model.{k}" for k in objective.model.state_dict()
    }


def test_fp16s_loss_scaling_goes_on_where_it_was(recipe, tmp_path):
    objective = pretraining(recipe)
    optimizer = torch.optim.AdamW(objective.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=3)
    weight = torch.nn.Parameter(torch.ones(1))
    other = torch.optim.SGD([weight], lr=0.1)
    for value in (1.0, float("inf"), 1.0):  # halved by the overflow, then one step towards growing again
        other.zero_grad()
        scaler.scale(weight * value).sum().backward()
        scaler.step(other)
        scaler.update()
    checkpoint.save(tmp_path, 3, objective, optimizer, scaler=scaler)
    fresh = torch.amp.GradScaler("cpu", init_scale=65536.0, growth_interval=3)
    assert checkpoint.load(checkpoint.latest(tmp_path), objective, optimizer, fresh) == 3
    assert fresh.state_dict() == scaler.state_dict() and fresh.state_dict()["scale"] == 32.0
    assert fresh.state_dict()["_growth_tracker"] == 1


def test_without_milestones_two_checkpoints_stay(recipe, tmp_path):
    objective = pretraining(recipe)
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, step, objective, torch.optim.AdamW(objective.parameters()))
    assert [place.name[-1] for place in sorted((tmp_path / "checkpoints").iterdir())] == ["2", "3"]


@pytest.mark.slow
def test_command_line_says_what_is_wrong(capsys, tmp_path):
    out = str(tmp_path / "x")
    for arguments, hint in (
        (["pretrain", "--out", out, "sed=1"], "did you mean seed=1?"),
        (["pretrain", "--out", out, "stages.0=100"], "stages.0 holds several fields"),
        (["pretrain", "--out", out, "stages.*=3"], "for example stages.*.steps=100"),
        (["pretrain", "--out", out, "--recipe", "smoke", "attention=flash"], "choose eager or sdpa"),
        (["pretrain", "--out", out, "--recipe", "nano-distill"], "train distill"),
        (["pretrain", "--out", out, "--data", "photos"], "no file or folder"),
        (["distill", "--out", out, "--teacher", "nowhere"], "nowhere"),
        (["scenes", "--out", out, "--size", "9000"], "14 to 1024"),
        (["scenes", "--out", out, "--styles", "oil"], "fluent"),
        (["curves", str(tmp_path / "none")], "is not a run"),
    ):
        assert main(arguments) == 2
        assert hint in capsys.readouterr().err
    assert not shutil.os.path.exists(out) or not os.listdir(out)


def test_dry_run_prints_the_resolved_recipe(capsys, tmp_path):
    assert main(["pretrain", "--recipe", "smoke", "--dry-run", "--out", str(tmp_path / "x"), "seed=5"]) == 0
    out = capsys.readouterr()
    assert json.loads(out.out)["seed"] == 5 and "parameters" in out.err
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_curves_place_every_number_at_the_images_seen(recipe, tokenizer, tmp_path):
    fit(recipe, pretraining(recipe), tokenizer, tmp_path / "run", show=False)
    series, count = curves.read(tmp_path / "run")
    assert count == recipe.images == 80
    assert series["loss/contrastive/web"][0].tolist() == list(range(8, 81, 8))
    assert series["loss/self_distillation/patch"][0].tolist() == list(range(40, 81, 8))  # the second stage's term
    assert series["miou_values"][0].tolist() == [0, 80]
    assert main(["curves", str(tmp_path / "run"), "--out", str(tmp_path / "c.png")]) == 0
    assert Image.open(tmp_path / "c.png").width > 800


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_web_weight_shares_out_the_two_contrastive_terms(recipe, tokenizer, share):
    recipe = override(recipe, [f"web_weight={share}"])
    loss, terms = pretraining(recipe)(Batches(recipe, tokenizer)[0], recipe.stages[0])
    expected = share * terms["loss/contrastive/web"] + (1 - share) * terms["loss/contrastive/synthetic"]
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_scenes_of_few_nouns_show_only_those(recipe, tokenizer):
    recipe = override(recipe, ["data.nouns=3"])
    among = scenes.some_nouns(3)
    for image, number in zip(Batches(recipe, tokenizer)[0]["image"], range(8), strict=True):
        drawn = scenes.draw(number, recipe.stages[0].size, among=among)
        assert {o.noun for o in drawn.objects} <= set(among)
        assert torch.equal((image * 255).round().byte().permute(1, 2, 0), torch.from_numpy(drawn.image))


def test_scenes_are_drawn_in_the_styles_asked_for(recipe, tokenizer):
    """Each scene as `draw` makes it in these styles, and it shows no other."""
    recipe = override(recipe, ["data.styles=openmoji,flat"])
    seen = set()
    for image, number in zip(Batches(recipe, tokenizer)[0]["image"], range(8), strict=True):
        drawn = scenes.draw(number, recipe.stages[0].size, styles=("openmoji", "flat"))
        assert torch.equal((image * 255).round().byte().permute(1, 2, 0), torch.from_numpy(drawn.image))
        seen |= {o.style for o in drawn.objects}
    assert seen == {"openmoji", "flat"}


@pytest.mark.parametrize("styles", ["", "emoji", "noto,,fluent"])
def test_unknown_styles_are_refused(recipe, tokenizer, styles):
    with pytest.raises(ValueError, match="data.styles.*choose from fluent, noto"):
        Batches(override(recipe, [f"data.styles={styles}"]), tokenizer)
