"""Fine-tuning: what learns and what keeps its bits, patch labels, exact resume, and that retrieval gets better."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from shapes import write
from transformers import Tipsv2Model

import tipsv2
from tipsv2 import scenes
from tipsv2.collections.pairs import open_pairs
from tipsv2.evaluation.tasks.retrieval import rank_both_ways, recalls
from tipsv2.images import preprocessor_settings
from train.__main__ import main
from train.data.batches import Batches
from train.data.labels import patch_classes, patch_labels
from train.data.views import Window
from train.network import tuning
from train.objectives import Objective, losses
from train.parallel.signals import Stopped
from train.recipe import recipes, settings
from train.recipe.overrides import override
from train.run import checkpoint, monitor
from train.run.loop import fit

ROOT = Path(__file__).resolve().parents[1]
QUICK = ["stages.0.steps=3", "stages.0.batch_size=4", "warmup=1", "precision=fp32", "workers=0", "save_every=1000"]


@pytest.fixture(autouse=True)
def few_samples(monkeypatch):
    monkeypatch.setattr(monitor, "SCENES", 2)


def quick(folder, *fields):
    return override(recipes.get("finetune"), [f"tuning.base={folder}", *QUICK, *fields])


def opened(recipe):
    """The recipe with its base's sizes, an objective on that base, and its tokenizer, as `run.start` makes them."""
    torch.manual_seed(recipe.seed)
    recipe, model, tokenizer = tuning.open_base(recipe)
    return recipe, Objective(recipe, model), tokenizer


def run(recipe, folder, resume=False):
    recipe, objective, tokenizer = opened(recipe)
    return fit(recipe, objective, tokenizer, folder, resume, show=False)


def weights(folder):
    return Tipsv2Model.from_pretrained(folder).state_dict()


# What is trained


def learns(part, towers, name):
    """Written out by hand for the tiny base: 3 vision blocks, 2 text blocks."""
    if "lambda1" in name:
        return False
    if name == "temperature":
        return part == "full" and towers == "both"
    if not name.startswith(("vision_model", "text_model") if towers == "both" else towers):
        return False
    last = ("vision_model.encoder.layer.2.", "vision_model.layernorm", "text_model.encoder.layers.1.", "text_model.fin")
    return part == "full" or name.startswith(last)


@pytest.mark.parametrize(
    "part, towers", [("full", "both"), ("full", "text"), ("last", "both"), ("last", "vision"), ("lora", "both")]
)
def test_what_learns_changes_and_all_else_keeps_its_bits(tiny_folder, tmp_path, part, towers):
    fields = [f"tuning.part={part}", f"tuning.towers={towers}", "tuning.layers=1", "stages.0.learning_rate=1e-2"]
    folder = run(quick(tiny_folder, *fields), tmp_path / "run")
    assert (folder.parent / "adapter").exists() == (part == "lora")
    before, after = weights(tiny_folder), weights(folder)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    if part == "lora":  # the weights of the blocks' linear layers, nothing else of them
        linear = ("proj.weight", "fc1.weight", "fc2.weight")
        expected = {n for n in before if "encoder.layer" in n and n.endswith(linear)}
    else:
        expected = {n for n in before if learns(part, towers, n)}
        expected -= {"vision_model.embeddings.mask_token"}  # nothing is masked here
    assert changed == expected


def test_lora_is_merged_into_a_plain_folder(tiny_folder, tmp_path):
    """The exported weights answer as the base with its updates beside it, and transformers opens them by itself."""
    recipe, objective, tokenizer = opened(quick(tiny_folder, "tuning.part=lora", "tuning.rank=3"))
    for name, parameter in objective.model.named_parameters():
        if "lora_B" in name:  # starts at zero
            torch.nn.init.normal_(parameter, std=0.1)
    folder = checkpoint.export(tmp_path / "model", objective.model, tokenizer)
    plain, report = Tipsv2Model.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    batch = Batches(recipe, tokenizer)[0]
    with torch.no_grad():
        for model in (objective.model.eval(), plain):
            seen = model.vision_model(batch["image"]).last_hidden_state
            text = model.text_model(input_ids=batch["web_ids"], attention_mask=batch["web_mask"]).pooler_output
            if model is objective.model:
                expected = seen, text
        base = Tipsv2Model.from_pretrained(tiny_folder).vision_model(batch["image"]).last_hidden_state
    assert torch.allclose(seen, expected[0], atol=1e-4) and torch.allclose(text, expected[1], atol=1e-4)
    assert (seen - base).abs().max() > 0.1
    found = tipsv2.load(folder, device="cpu").encode_image(scenes.draw(0, 56).image)
    assert found.patches.shape == (4, 4, 48)


def test_lora_is_also_left_as_pefts_adapter(tiny_folder, tmp_path):
    """peft puts it beside a plain base, and there it answers as the merged model does."""
    from peft import AutoPeftModel, PeftModel

    fields = ["tuning.part=lora", "tuning.rank=3", "tuning.modules=q_proj,fc1", "stages.0.learning_rate=1e-2"]
    merged = Tipsv2Model.from_pretrained(run(quick(tiny_folder, *fields), tmp_path / "run"))
    place = tmp_path / "run" / "adapter"
    assert {path.name for path in place.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    plain = Tipsv2Model.from_pretrained(tiny_folder)
    before = plain.vision_model(torch.ones(1, 3, 56, 56)).last_hidden_state.detach()
    adapted = PeftModel.from_pretrained(plain, place)
    assert adapted.peft_config["default"].r == 3
    with torch.no_grad():
        for tower, given in (("vision_model", torch.ones(1, 3, 56, 56)), ("text_model", torch.tensor([[5, 9, 30]]))):
            expected = getattr(merged.eval(), tower)(given).last_hidden_state
            found = getattr(adapted.eval().base_model.model, tower)(given).last_hidden_state
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
            assert tower == "text_model" or (found - before).abs().max() > 0.01
    alone = AutoPeftModel.from_pretrained(place).merge_and_unload().state_dict()  # finds the base by itself
    for name, value in merged.state_dict().items():
        torch.testing.assert_close(alone[name], value, atol=1e-6, rtol=1e-5)


@pytest.mark.slow
def test_a_base_in_half_precision_learns_in_whole_and_at_its_own_size(tiny_folder, tmp_path):
    base = tmp_path / "half"
    shutil.copytree(tiny_folder, base)
    Tipsv2Model.from_pretrained(tiny_folder).half().save_pretrained(base)
    (base / "preprocessor_config.json").write_text(json.dumps(preprocessor_settings(112)))
    recipe, objective, _ = opened(quick(base))
    assert (recipe.stages[0].size, recipe.tower.table) == (112, 56)
    assert {parameter.dtype for parameter in objective.model.parameters()} == {torch.float32}
    model = run(quick(base, "stages.0.steps=1", "stages.0.batch_size=2"), tmp_path / "run")
    assert {value.dtype for value in load_file(model / "model.safetensors").values()} == {torch.float32}
    assert json.loads((model / "config.json").read_text())["dtype"] == "float32"
    assert tipsv2.find(model).resolution == 112
    small = run(quick(base, "stages.0.steps=1", "stages.0.batch_size=2", "stages.0.size=28"), tmp_path / "small")
    assert tipsv2.find(small).resolution == 28  # what it was last trained at


def test_lora_can_keep_to_some_layers(tiny_folder):
    _, objective, _ = opened(quick(tiny_folder, "tuning.part=lora", "tuning.modules=q_proj,v_proj", "tuning.rank=2"))
    names = [n for n, p in objective.named_parameters() if p.requires_grad]
    assert {n.split(".lora_")[0].rpartition(".")[2] for n in names} == {"q_proj", "v_proj"}
    assert len(names) == 2 * 2 * (3 + 2)  # A and B of two layers in every block
    assert all(2 in p.shape for n, p in objective.named_parameters() if ".lora_" in n)


def test_the_temperature_of_a_released_base_is_not_raised(tiny_folder):
    for part, least in (("last", 0.001), ("full", 0.003)):
        _, objective, _ = opened(quick(tiny_folder, f"tuning.part={part}"))
        with torch.no_grad():
            objective.model.temperature.fill_(0.001)
        objective.after_step(0)
        assert objective.model.temperature.item() == pytest.approx(least)


def test_the_base_decides_sizes_and_words(tiny_folder, tiny_encoder):
    recipe, objective, tokenizer = opened(quick(tiny_folder))
    assert recipe.stages[0].size == 56 and (recipe.tower.width, recipe.tower.vision_layers) == (48, 3)
    assert tokenizer("a red car")["input_ids"] == tiny_encoder.tokenizer("a red car")["input_ids"]
    assert {p.dtype for p in objective.parameters()} == {torch.float32}
    assert objective.model.config.vision_config._attn_implementation == recipe.attention
    assert settings.from_dict(json.loads(json.dumps(settings.to_dict(recipe)))) == recipe
    assert recipe.stages[0].learning_rate == pytest.approx(0.06 / 48)
    own = opened(quick(tiny_folder, "stages.0.size=28", "stages.0.learning_rate=1e-5"))[0].stages[0]
    assert (own.size, own.learning_rate) == (28, 1e-5)


# Stopping and going on


@pytest.mark.slow
@pytest.mark.parametrize("part", ["full", "lora"])
def test_stop_and_resume_is_bit_for_bit_the_uninterrupted_run(tiny_folder, tmp_path, part):
    recipe = quick(tiny_folder, f"tuning.part={part}", "stages.0.steps=6", "grounding.weight=1")
    run(recipe, tmp_path / "whole")
    full, objective, tokenizer = opened(recipe)
    step = objective.after_step

    def stopping(done):
        step(done)
        if done == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    objective.after_step = stopping
    with pytest.raises(Stopped):
        fit(full, objective, tokenizer, tmp_path / "parts", show=False)
    torch.manual_seed(999)  # a new process would not share the old one's random state
    run(recipe, tmp_path / "parts", resume=True)
    kept = [load_file(checkpoint.latest(tmp_path / r) / "state.safetensors") for r in ("whole", "parts")]
    assert kept[0].keys() == kept[1].keys()
    assert all(torch.equal(kept[0][k], kept[1][k]) for k in kept[0])
    first, second = weights(tmp_path / "whole" / "model"), weights(tmp_path / "parts" / "model")
    assert all(torch.equal(first[k], second[k]) for k in first)
    learned = {k for k in kept[0] if k.startswith("objective.")}
    if part == "lora":  # the frozen base is in its own folder
        assert all(".lora_" in k for k in learned)
    else:
        assert len(learned) > len(first) // 2


def test_a_run_does_not_go_on_from_another_base(tiny_folder, tmp_path):
    base = tmp_path / "base"
    model = Tipsv2Model.from_pretrained(tiny_folder)
    tokenizer = tipsv2.load(tiny_folder, device="cpu").tokenizer
    checkpoint.export(base, model, tokenizer)
    run(quick(base, "tuning.part=last"), tmp_path / "run")
    with torch.no_grad():
        model.vision_model.embeddings.cls_token.add_(1)
    checkpoint.export(base, model, tokenizer)
    with pytest.raises(ValueError, match="another recipe: tuning.digest: .* Put the weights back"):
        run(quick(base, "tuning.part=last"), tmp_path / "run", resume=True)


def test_a_checkpoint_as_base_is_the_run_as_it_was_then(tiny_folder, tmp_path):
    """Not the weights that the run ended with, which lie beside it."""
    recipe = quick(tiny_folder, "stages.0.steps=4", "save_every=2", "milestones=2", "stages.0.learning_rate=1e-2")
    run(recipe, tmp_path / "first")
    place = tmp_path / "first" / "checkpoints" / "step-0000002"
    then = {
        key.removeprefix("objective.model."): value
        for key, value in load_file(place / "state.safetensors").items()
        if key.startswith("objective.model.")
    }
    digests = set()
    for base, same in ((place, True), (tmp_path / "first", False)):
        resolved, objective, _ = opened(quick(base))
        found = objective.model.state_dict()
        assert all(torch.equal(found[name], then[name]) for name in then) == same
        digests.add(resolved.tuning.digest)
    assert len(digests) == 2


# What a user can get wrong


@pytest.mark.parametrize(
    "fields, hint",
    [
        (["tuning.part=last", "tuning.layers=3"], "text tower has 2 blocks: choose 1 to 2"),
        (["tuning.part=last", "tuning.layers=0"], "choose 1 to"),
        (["tuning.part=last", "tuning.layers=4", "tuning.towers=vision"], "vision tower has 3 blocks: choose 1 to 3."),
        (["tuning.part=lorra"], "did you mean 'lora'"),
        (["tuning.towers=visual"], "vision"),
        (["tuning.part=lora", "tuning.modules=q_prj"], "did you mean 'q_proj'"),
        (["tuning.part=lora", "tuning.rank=0"], "rank of at least 1"),
        (["tower.width=96"], "leave tower"),
        (["distillation.weight=1"], "train distill"),
        (["sfclip.words=teacher"], "keeps its own"),
        (["tuning.base=opentips-nanno"], "did you mean opentips-nano"),
        (["patch_labels.weight=1", "patch_labels.features=last"], "choose values or final or both"),
    ],
)
def test_mistakes_are_sentences(tiny_folder, fields, hint):
    with pytest.raises(ValueError, match=hint):
        opened(quick(tiny_folder, *fields))


def test_a_base_with_other_patches_is_refused(tiny_folder, tmp_path):
    base = tmp_path / "sixteen"
    config = Tipsv2Model.from_pretrained(tiny_folder).config
    config.vision_config.patch_size = 16
    Tipsv2Model(config).save_pretrained(base)
    tipsv2.load(tiny_folder, device="cpu").tokenizer.save_pretrained(base)
    with pytest.raises(ValueError, match="patches of 16 px"):
        opened(quick(base))


def test_only_lora_needs_peft(tiny_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    opened(quick(tiny_folder))
    opened(quick(tiny_folder, "tuning.part=last"))
    with pytest.raises(ValueError, match="pip install peft"):
        opened(quick(tiny_folder, "tuning.part=lora"))


# Masks as patch labels


def patch_labels_by_loops(patches, names, labels, temperature):
    total, count = 0.0, 0
    for b in range(len(patches)):
        for n in range(patches.shape[1]):
            if labels[b, n] < 0:
                continue
            cosines = [patches[b, n] @ name / (patches[b, n].norm() * name.norm()) for name in names]
            scores = [torch.exp(c / temperature) for c in cosines]
            total = total - torch.log(scores[labels[b, n]] / sum(scores))
            count += 1
    return total / count


def test_patch_labels_against_a_loop_in_value_and_gradient():
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(2, 5, 7, generator=generator, dtype=torch.float64)
    names = torch.randn(4, 7, generator=generator, dtype=torch.float64)
    labels = torch.tensor([[0, -1, 3, 3, 1], [-1, -1, 2, 0, -1]])
    found = []
    for loss in (patch_labels_by_loops, losses.patch_labels):
        inputs = [patches.clone().requires_grad_(), names.clone().requires_grad_()]
        value = loss(*inputs, labels, 0.3)
        value.backward()
        found.append([value.detach(), *(x.grad for x in inputs)])
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours.float(), theirs.float(), atol=1e-5)
    assert (found[1][1][labels < 0] == 0).all() and (found[1][1][labels >= 0] != 0).any()


def test_patch_labels_limits():
    patches, names = torch.randn(2, 3, 8), torch.randn(5, 8)
    nothing = torch.full((2, 3), -1)
    assert losses.patch_labels(patches, names, nothing, 0.1) == 0
    alike = losses.patch_labels(patches, names[:1].expand(5, 8), torch.zeros(2, 3, dtype=torch.long), 0.1)
    assert alike.item() == pytest.approx(np.log(5), abs=1e-5)  # all names alike: nothing to choose by
    # a share of a process's labels counts by the patches of all: here the other process has three times as many
    labels = torch.tensor([[0, -1, 1], [2, 2, -1]])
    whole = losses.patch_labels(patches, names, labels, 0.1)
    assert losses.patch_labels(patches, names, labels, 0.1, lambda x: 2 * x).item() == pytest.approx(whole.item() / 2)


def test_the_lions_share_of_a_patch_names_it():
    """By loops over patches: the commonest of its pixels' labels."""
    labels = np.stack([scenes.draw(seed, 56).labels for seed in range(3)]).astype(np.int64)
    labels[0, :10, :14] = -1
    found = patch_classes(torch.from_numpy(labels))
    assert found.shape == (3, 4, 4)
    for b in range(3):
        for i in range(4):
            for j in range(4):
                pixels = labels[b, 14 * i : 14 * i + 14, 14 * j : 14 * j + 14].ravel().tolist()
                assert pixels.count(int(found[b, i, j])) == max(map(pixels.count, set(pixels)))
    assert found[0, 0, 0] == -1


def test_patch_labels_join_the_objective_where_they_are_asked_for(tiny_folder):
    plain, _, tokenizer = opened(quick(tiny_folder))
    assert "labels" not in Batches(plain, tokenizer)[0]
    recipe, objective, tokenizer = opened(quick(tiny_folder, "patch_labels.weight=3", "patch_labels.features=both"))
    batch = Batches(recipe, tokenizer)[0]
    assert batch["labels"].shape == (4, 4, 4) and len(batch["names_ids"]) == len(scenes.names())
    scene = scenes.draw(0, 56)
    assert set(batch["labels"][0].unique().tolist()) <= set(np.unique(scene.labels).tolist())
    loss, terms = objective(batch, recipe.stages[0])
    expected = (terms["loss/contrastive/web"] + terms["loss/contrastive/synthetic"]) / 2
    expected = expected + 1.5 * (terms["loss/patch_labels/values"] + terms["loss/patch_labels/final"])
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    loss.backward()
    assert objective.model.text_model.final_layer_norm.weight.grad.abs().sum() > 0


def masked_pictures(folder, count=5):
    """Scenes as NAME.png, NAME.txt and NAME.mask.png of half the size, with names.json; the last has no mask."""
    folder.mkdir()
    (folder / "names.json").write_text(json.dumps(scenes.names()))
    for seed in range(count):
        scene = scenes.draw(seed, 112)
        Image.fromarray(scene.image).save(folder / f"{seed}.png")
        (folder / f"{seed}.txt").write_text(scene.captions["web"])
        if seed < count - 1:
            Image.fromarray(scene.labels[::2, ::2].astype(np.uint16)).save(folder / f"{seed}.mask.png")


def test_masks_beside_pictures_follow_the_crop(tiny_folder, tmp_path):
    """A mask whose labels are the picture's own grey levels: what is cropped from one is cropped from the other."""
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "names.json").write_text(json.dumps([f"grey {k}" for k in range(250)]))
    ramp = (np.arange(100)[:, None] + 1.4 * np.arange(100)).astype(np.uint8)
    for k in range(4):
        Image.fromarray(np.stack([ramp] * 3, -1)).save(folder / f"{k}.png")
        Image.fromarray(ramp).save(folder / f"{k}.mask.png")
        (folder / f"{k}.txt").write_text("a ramp")
    fields = ["patch_labels.weight=1", f"data.source={folder}", "data.crop_min=0.3", "data.flip=0.5"]
    recipe, _, tokenizer = opened(quick(tiny_folder, *fields))
    for step in range(3):
        batch = Batches(recipe, tokenizer)[step]
        grey = (batch["image"][:, 0] * 255).unfold(1, 14, 14).unfold(2, 14, 14).flatten(3)
        assert (batch["labels"] >= grey.amin(-1) - 2).all() and (batch["labels"] <= grey.amax(-1) + 2).all()
        assert (grey.amax(-1) - grey.amin(-1)).max() < 60  # so that is a narrow claim


def test_masks_are_read_and_mistakes_in_them_named(tiny_folder, tmp_path):
    masked_pictures(tmp_path / "x")
    fields = ["patch_labels.weight=1", f"data.source={tmp_path / 'x'}", "data.crop_min=1", "stages.0.batch_size=5"]
    recipe, objective, tokenizer = opened(quick(tiny_folder, *fields))
    batch = Batches(recipe, tokenizer)[0]
    bare = [k for k in range(5) if (batch["labels"][k] == -1).all()]
    assert len(bare) == 1  # the picture without a mask takes part, unlabelled
    assert objective(batch, recipe.stages[0])[1]["loss/patch_labels/values"] > 0
    mask = tmp_path / "x" / "0.mask.png"
    for picture, hint in (
        (Image.new("RGB", (56, 56)), "kind RGB"),
        (Image.new("L", (56, 28)), "same shape"),
        (Image.fromarray(np.full((56, 56), 900, np.uint16)), "numbers up to 900, but there are 324 names"),
    ):
        picture.save(mask)
        with pytest.raises(ValueError, match=hint):
            patch_labels(open_pairs(tmp_path / "x")[0], 324, (112, 112), 56, Window((0, 0, 112, 112), False))
    mask.write_bytes(b"not a picture")
    with pytest.raises(ValueError, match="cannot be read"):
        patch_labels(open_pairs(tmp_path / "x")[0], 324, (112, 112), 56, Window((0, 0, 112, 112), False))
    Image.new("L", (56, 56), 255).save(mask)  # 255 is unlabelled
    found = patch_labels(open_pairs(tmp_path / "x")[0], 9, (112, 112), 56, Window((0, 0, 112, 112), False))
    assert found.shape == (4, 4) and (found == -1).all()
    (tmp_path / "x" / "names.json").unlink()
    with pytest.raises(ValueError, match="names.json"):
        Batches(recipe, tokenizer)
    write(tmp_path / "unmasked", 5, size=56)
    with pytest.raises(ValueError, match="has no masks"):
        Batches(override(recipe, [f"data.source={tmp_path / 'unmasked'}"]), tokenizer)


def test_names_survive_gradient_accumulation(tiny_folder):
    """Fewer names than parts: the batch is cut into parts, the list of names is not."""
    fields = ["patch_labels.weight=1", "patch_labels.features=both"]
    found = []
    for parts in (1, 4):
        recipe, objective, tokenizer = opened(quick(tiny_folder, *fields, f"accumulate={parts}"))
        batch = Batches(recipe, tokenizer)[0]
        batch |= {"labels": batch["labels"] % 3, "names_ids": batch["names_ids"][:3]}
        batch["names_mask"] = batch["names_mask"][:3]
        loss, _ = objective(batch, recipe.stages[0])
        loss.backward()
        found.append([loss.detach(), objective.model.text_model.final_layer_norm.weight.grad])
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in zip(*found, strict=True))


# The whole of it, as a user has it


@pytest.mark.slow
def test_fine_tuning_on_fifty_pictures_improves_retrieval(tmp_path, capsys):
    """Fifty captioned pictures unlike anything the bundled encoder has seen, and fifty others to be found."""
    write(tmp_path / "train", 50, size=56)
    held_out = write(tmp_path / "val", 50, first=1000, size=56)
    pictures = sorted((tmp_path / "val").glob("*.png"))

    def retrieval(model):
        encoder = tipsv2.load(model, device="cpu", dtype="float32")
        images = torch.stack([f.cls for f in encoder.encode_images(pictures, resolution=56)])
        texts = encoder.encode_text(held_out)
        ranks = rank_both_ways(torch.nn.functional.normalize(images, dim=-1), texts, np.eye(50, dtype=bool))
        return recalls(ranks)

    before = retrieval("opentips-nano")
    command = ["finetune", "--base", "opentips-nano", "--data", str(tmp_path / "train"), "--out", str(tmp_path / "run")]
    assert main([*command, "stages.0.size=56", "stages.0.steps=80", "workers=0", "precision=fp32"]) == 0
    after = retrieval(tmp_path / "run" / "model")
    with capsys.disabled():
        print(f"\nretrieval among 50 held-out pictures: before {before}, after {after}")
    for rank, gain in (("r1", 0.08), ("r5", 0.25)):
        assert after[f"i2t_{rank}"] + after[f"t2i_{rank}"] > before[f"i2t_{rank}"] + before[f"t2i_{rank}"] + 2 * gain


def test_the_command_line_says_what_is_wrong_and_dry_runs(tiny_folder, tmp_path, capsys):
    out = ["--out", str(tmp_path / "x")]
    assert main(["finetune", "--base", "opentips-nanno", *out]) == 2
    assert "did you mean opentips-nano" in capsys.readouterr().err
    assert main(["finetune", "--base", str(tiny_folder), "--recipe", "nano", *out]) == 2
    assert "train pretrain" in capsys.readouterr().err
    assert main(["finetune", "--base", str(tiny_folder), "--dry-run", *out, "tuning.part=lora"]) == 0
    said = capsys.readouterr()
    recipe = json.loads(said.out)
    assert recipe["tuning"]["part"] == "lora" and recipe["stages"][0]["size"] == 56 and len(recipe["tuning"]["digest"])
    size = sum(value.numel() for value in weights(tiny_folder).values())
    assert f"{size / 1e6:.2f}M parameters in the encoder, 0.06M trained" in said.err
    assert not (tmp_path / "x").exists()


def test_the_shapes_can_be_written_from_the_command_line(tmp_path):
    done = subprocess.run([sys.executable, ROOT / "tests" / "shapes.py", tmp_path / "s", "3"], capture_output=True)
    assert done.returncode == 0 and len(list((tmp_path / "s").glob("*.png"))) == 3
    assert " a " in (tmp_path / "s" / "000002.txt").read_text()
