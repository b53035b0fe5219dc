"""Runs on kept crops: what learns and what does not, every term against a loop, exact resume, averages, mistakes."""

import json
import signal
from dataclasses import replace

import kept_trees
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from tipsv2.checkpoints.weights import read_model
from tipsv2.network.dense import features_after
from train.__main__ import main
from train.data.kept import sources
from train.data.kept.batches import KeptBatches
from train.data.kept.sets import open_sets
from train.data.kept.words import FRAMES, Listed, compose
from train.data.sentence_vectors import open_bridge
from train.objectives.kept import Averages
from train.recipe.overrides import override
from train.run import start as runs
from train.run.kept import prepare_kept
from train.tools import kept_speed


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return kept_trees.save_all(tmp_path_factory.mktemp("foundations"))


@pytest.fixture(scope="module")
def source(folders, tmp_path_factory):
    return kept_trees.keep_all(folders, tmp_path_factory.mktemp("kept"))


@pytest.fixture(scope="module")
def whole(folders, source, tmp_path_factory):
    """A finished run."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert runs.start(kept_trees.recipe(folders, source), out, show=False) == 0
    return out


# words


def test_names_have_the_words_of_their_meaning(folders, source):
    recipe = kept_trees.recipe(folders, source)
    words = compose([each.kept for each in open_sets(source)], recipe.kept, captions=False)

    def bag(name, row):
        listed = words.lists[name]
        return [words.phrases[k] for k in listed.bags[row, : listed.counts[row]]]

    assert [bag("0", row)[0] for row in range(3)] == ["sky", "grass", "dog"]
    assert bag("0", 2) == ["dog", "hund", "puppy"]  # lemmas and narrower nouns; names of one dog are none
    assert bag("0", 1) == ["grass", "the grass"]  # the plant, as meanings.tsv says, and not the pot
    assert bag("classes", 1) == ["cat", "a cat"] and len(words.lists["classes"]) == 6
    assert [bag("groups", k)[0] for k in range(len(words.lists["groups"]))] == ["animal", "stuff"]
    assert words.members.T.tolist() == [[1, 1, 0, 0, 0, 0], [0, 0, 0, 1, 0, 1]]  # entity is nearly all: no group
    assert words.sentences[: len(FRAMES)] == [frame.format(words.phrases[0]) for frame in FRAMES]


def test_excluded_words_are_in_no_sentence(folders, source, tmp_path):
    (tmp_path / "words.tsv").write_text("name\tword\ndog\thund\ncat\tpuppy\nx\tanimal\n")
    recipe = kept_trees.recipe(folders, source, f"kept.exclude={tmp_path / 'words.tsv'}")
    words = compose([each.kept for each in open_sets(source)], recipe.kept, captions=True)
    said = " ".join(words.sentences)
    assert "dog" in said and not any(word in said for word in ("hund", "puppy", "animal"))
    assert "two cats" in said  # the group's other word


def test_a_step_says_each_name_by_its_own_phrases():
    listed = Listed([[0, 4, 7], [2]])
    chosen = torch.stack([listed.choose(torch.Generator().manual_seed(k), 0.5) for k in range(600)])
    assert set((chosen[:, 0] // len(FRAMES)).tolist()) == {0, 4, 7} and set((chosen[:, 1] // 8).tolist()) == {2}
    assert 340 < (chosen[:, 0] // len(FRAMES) == 0).sum() < 460  # half, and a third of the other half: 400
    assert set((chosen % len(FRAMES)).flatten().tolist()) == set(range(len(FRAMES)))


# batches


def test_a_step_depends_on_the_step_alone_and_an_epoch_shows_every_crop_once(folders, source):
    recipe = kept_trees.recipe(folders, source)
    one, two = KeptBatches(recipe), KeptBatches(recipe)
    for step in (3, 0):
        assert one[step].keys() == two[step].keys()
        assert all(torch.equal(one[step][key], two[step][key]) for key in one[step])
    rows = [row for step in range(3) for row in one._rows(0, step)]
    assert sorted(rows[:6]) == sorted(rows[6:]) == list(range(6)) and rows[:6] != rows[6:]
    share = [KeptBatches(recipe, rank, 2)._rows(0, 1).tolist() for rank in (0, 1)]
    assert share[0] + share[1] == one._rows(0, 1).tolist()


def test_more_crops_do_not_change_a_run_and_fewer_stop_it(folders, source, tmp_path):
    batches = KeptBatches(kept_trees.recipe(folders, source))
    (tmp_path / "data.jsonl").write_text(json.dumps({"rows": [4, 3]}) + "\n")
    batches.remember(tmp_path / "data.jsonl")
    assert batches.rows == [4, 3] and max(max(batches._rows(0, k)) for k in range(4)) == 3
    (tmp_path / "data.jsonl").write_text(json.dumps({"rows": [7, 3]}) + "\n")
    with pytest.raises(ValueError, match="held 7 crops when the run began and has 6 now"):
        KeptBatches(batches.recipe).remember(tmp_path / "data.jsonl")


# the objective


def test_every_term_is_the_loop_over_its_patches(folders, source):
    """Terms from the batch and the model's own features, patch by patch."""
    recipe, objective, _ = prepare_kept(kept_trees.recipe(folders, source, "soft_names.patches=0", "kept.noise=0"))
    batch = KeptBatches(recipe, words=objective_words(recipe))[1]
    with torch.no_grad():
        _, terms = objective(batch, recipe.stages[0])
        scales, vision = objective.scales, objective.model.vision_model
        final = features_after(vision, batch["0.hidden"].float(), 2, (4, 4))[2].flatten(1, 2)
        names = F.normalize(objective.bridge(objective.vectors[batch["0.names"]]), dim=-1)
        total = count = binary = 0.0
        for picture in range(4):
            for patch in range(16):
                label, share = batch["0.labels"][picture, patch].item(), batch["0.share"][picture, patch].item()
                if label < 0 or share < 0.5:
                    continue
                cosines = F.cosine_similarity(final[picture, patch], names, dim=-1)
                total -= share * (cosines * scales.softmax_log.exp()).log_softmax(0)[label].item()
                logits = cosines * scales.binary_log.exp() + scales.binary_bias
                right = torch.arange(3) == label
                binary -= share * torch.where(right, logits, -logits).sigmoid().log().sum().item()
                count += share
        assert terms["loss/named_patches/names_final_labelled"].item() == pytest.approx(total / count, rel=1e-4)
        assert terms["loss/named_patches/binary_final_labelled"].item() == pytest.approx(binary / count, rel=1e-4)
        presence = 0.0
        for picture in range(4):
            cosines = F.normalize(final[picture], dim=-1) @ names.T
            pooled = ((cosines * 30).exp().mean(0)).log() / 30
            logits = pooled * scales.presence_log.exp() + scales.presence_bias
            seen = (batch["0.share"][picture] >= 0.3) & (batch["0.labels"][picture] >= 0)
            there = torch.tensor([(seen & (batch["0.labels"][picture] == k)).any().item() for k in range(3)])
            presence -= torch.where(there, logits, -logits).sigmoid().log().sum().item() / 4
        assert terms["loss/presence/final_labelled"].item() == pytest.approx(presence, rel=1e-4)
    sets = {name.rsplit("_", 1)[1] for name in terms}
    assert sets == {"labelled", "named"} and "loss/soft_names/soft_values_named" in terms
    assert "loss/named_patches/names_final_named" not in terms
    whole = {name.removeprefix("loss/whole_names/") for name in terms if "whole_names" in name}
    assert {"captions_cls_labelled", "class_cls_named"} <= whole and "captions_cls_named" not in whole


def objective_words(recipe):
    return compose([each.kept for each in open_sets(recipe.data.source)], recipe.kept, captions=True)


def test_the_last_blocks_the_norm_and_the_bridge_learn_and_nothing_else(folders, whole):
    before, after = (read_model(path, torch.float32).state_dict() for path in (folders["base"], whole / "model"))
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert moved and all(key.startswith(("vision_model.encoder.layer.2.", "vision_model.layernorm")) for key in moved)
    assert any("q_proj" in key for key in moved) and any("layernorm" in key for key in moved)
    assert open_bridge(whole / "bridge.safetensors", 24).map[-1].out_features == 48
    kept = load_file(sorted((whole / "checkpoints").iterdir())[-1] / "state.safetensors")
    names = [key for key in kept if key.startswith("objective.model.")]
    assert names and not any("layer.0." in key or "text_model" in key for key in names)
    assert not any(key.endswith("vectors") for key in kept)


def test_features_lose_their_mean_and_the_bridge_can_learn_alone(folders, source, tmp_path):
    recipe = kept_trees.recipe(folders, source, "kept.blocks_rate=0", "kept.bridge_rate=1", "kept.centre=100")
    assert runs.start(recipe, tmp_path / "run", show=False) == 0
    before, after = (read_model(path, torch.float32) for path in (folders["base"], tmp_path / "run" / "model"))
    old, new = before.state_dict(), after.state_dict()
    assert {key for key in old if not torch.equal(old[key], new[key])} == {"vision_model.layernorm.bias"}
    means = []
    for each in open_sets(source):
        hidden = torch.from_numpy(each.kept.arrays["hidden"].astype("float32"))
        with torch.no_grad():
            found = features_after(after.vision_model, hidden, 2, (each.kept.side, each.kept.side))
        means.append((found[2] + found[3]).mean((0, 1, 2)) / 2)
    assert torch.stack(means).mean(0).abs().max() < 1e-5
    kept = load_file(sorted((tmp_path / "run" / "checkpoints").iterdir())[-1] / "state.safetensors")
    model = {key for key in kept if key.startswith("objective.model.")}
    assert model == {"objective.model.vision_model.layernorm.bias"}  # more crops may be there at a resume
    assert "objective.averages.bridge/0/weight" in kept


def test_a_stopped_run_goes_on_exactly(folders, source, whole, tmp_path, monkeypatch):
    from train.objectives.kept import KeptObjective

    recipe, after = kept_trees.recipe(folders, source), KeptObjective.after_step

    def stop(self, step):
        after(self, step)
        if step == 0 and not (tmp_path / "run" / "checkpoints").exists():
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(KeptObjective, "after_step", stop)
    assert runs.start(recipe, tmp_path / "run", show=False) == signal.SIGTERM
    assert main(["sfclip", "--out", str(tmp_path / "run"), "--resume"]) == 0
    for part in ("model/model.safetensors", "bridge.safetensors"):
        one, two = load_file(whole / part), load_file(tmp_path / "run" / part)
        assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one), part
    lines = [[json.loads(line)["loss"] for line in open(run / "metrics.jsonl")] for run in (whole, tmp_path / "run")]
    assert lines[0] == lines[1]


def test_what_is_exported_is_the_mean_of_steps(folders, source, whole, tmp_path):
    last = kept_trees.recipe(folders, source, "kept.average=0")
    assert runs.start(last, tmp_path / "last", show=False) == 0
    ends = load_file(sorted((whole / "checkpoints").iterdir())[-1] / "state.safetensors")
    mean, final = load_file(whole / "bridge.safetensors"), load_file(tmp_path / "last" / "bridge.safetensors")
    for key in mean:
        assert torch.equal(final[key], ends[f"objective.bridge.{key}"])  # the same steps, and the last of them
        assert torch.equal(mean[key], ends[f"objective.averages.bridge/{key.replace('.', '/')}"])
    assert not torch.equal(mean["0.weight"], final["0.weight"])


def test_averages_follow_slowly():
    layer = torch.nn.Linear(2, 1)
    averages = Averages(layer, 0.75)
    expected = layer.weight.detach().clone()
    for step in range(30):
        with torch.no_grad():
            layer.weight.add_(1.0)
        averages.update(step)
        decay = min(0.75, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * layer.weight.detach()
    last = layer.weight.detach().clone()
    with averages.in_place():
        assert torch.allclose(layer.weight, expected, atol=1e-5)
    assert torch.equal(layer.weight, last)


def test_an_earlier_run_teaches_one_that_starts_again(folders, source, whole, tmp_path):
    only = ["named_patches.weight=0", "named_patches.binary=0", "presence.weight=0", "soft_names.weight=0"]
    only += ["named_patches.places=0", "soft_names.groups=0", "whole_names.weight=0", "whole_names.captions=0"]
    taught = [f"kept_distillation.teacher={whole / 'model'}", "kept_distillation.weight=1"]
    recipe = kept_trees.recipe(folders, source, *only, *taught, f"kept.bridge={whole / 'bridge.safetensors'}")
    recipe, objective, _ = prepare_kept(override(recipe, ["kept.bridge_rate=0"]))
    batch = KeptBatches(recipe, words=objective.words)[0]
    _, terms = objective(batch, recipe.stages[0])
    teacher = read_model(whole / "model", torch.float32).vision_model
    hidden = batch["1.hidden"].float()
    ours, theirs = (features_after(vision, hidden, 2, (3, 3)) for vision in (objective.model.vision_model, teacher))
    expected = 1 - F.cosine_similarity(ours[3], theirs[3], dim=-1).mean()
    assert terms["loss/kept_distillation/values_named"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert set(terms) == {
        f"loss/kept_distillation/{kind}_{name}" for kind in ("final", "values") for name in ("labelled", "named")
    }
    assert not any(p.requires_grad for p in objective.bridge.parameters())
    short = override(replace(recipe, tower=kept_trees.recipe(folders, source).tower), ["stages.0.steps=1"])
    assert runs.start(short, tmp_path / "student", show=False) == 0
    assert torch.equal(*(load_file(run / "bridge.safetensors")["0.weight"] for run in (whole, tmp_path / "student")))


# how fast it is


def test_the_benchmark_takes_the_same_steps_three_ways(monkeypatch):
    monkeypatch.setattr(sources, "STYLES", ("noto",))
    monkeypatch.setattr(kept_speed, "STYLES", ("noto",))
    tower = {"width": 48, "vision_layers": 3, "heads": 2, "table": 56}
    small = {"TOWER": replace(kept_speed.TOWER, **tower), "BLOCKS": 2, "SIZE": 56, "CROPS": 2, "KEPT": 2}
    for name, value in small.items():
        monkeypatch.setattr(kept_speed, name, value)
    took = iter([9.0, 9.0, 9.0, 0.5, 1.0, 4.0])

    def timed(step):
        step()
        return next(took)

    monkeypatch.setattr(kept_speed, "timed", timed)
    found = kept_speed.images_per_second(1)
    assert [found[way] for way in kept_speed.WAYS] == [4, 2, 0.5]
    assert found["faster than frozen blocks each step"] == 2 and found["faster than all blocks learn"] == 8


# mistakes

TERMS = [f"named_patches.{kind}" for kind in ("weight", "binary", "places")]
TERMS += ["presence.weight", "soft_names.weight", "soft_names.groups", "whole_names.weight", "whole_names.captions"]


@pytest.mark.parametrize(
    "fields, sentence",
    [
        (["sample_every=5"], "sample_every=5 cannot be: 0 on kept crops"),
        (["kept.average=1"], "kept.average=1 cannot be: from 0 to below 1"),
        (["presence.temperature=0"], "presence.temperature=0 cannot be: above 0"),
        (["named_patches.weight=-1"], "0 or more, and only with --kept"),
        (["data.source=scenes"], "0 or more, and only with --kept"),
        (["tuning.part=full"], "set tuning.part=last and towers=vision"),
        (["tuning.layers=2"], "tuning.layers=2 of 3 blocks learn, but .* was kept after block 2: set 1 or less"),
        (["kept.names="], "kept.names is empty"),
        (["sfclip.text_teacher="], "--text-teacher is missing"),
        (["kept_distillation.weight=1"], "kept_distillation.teacher is missing"),
        (["accumulate=2"], "accumulate=1 and sharding=none"),
        ([f"{term}=0" for term in TERMS], "every term on kept crops has weight 0"),
    ],
)
def test_mistakes_are_sentences(folders, source, tmp_path, fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        runs.start(kept_trees.recipe(folders, source, *fields), tmp_path / "run", show=False)
    assert not (tmp_path / "run").exists()


def test_another_base_than_kept_with_is_a_sentence(folders, source, whole, tmp_path, tiny_folder):
    with pytest.raises(ValueError, match="has another frozen part than"):
        runs.start(kept_trees.recipe(folders, source, f"tuning.base={tiny_folder}"), tmp_path / "run", show=False)
    runs.prepare(kept_trees.recipe(folders, source, f"tuning.base={whole / 'model'}"), tmp_path / "run", empty=True)


def test_terms_need_what_they_learn_from(folders, source):
    alone = source.split(",")[0]
    with pytest.raises(ValueError, match="soft_names learns from --classifier, and no kept set has that"):
        prepare_kept(kept_trees.recipe(folders, alone))


def test_the_command_line_names_what_a_run_needs(folders, source, tmp_path, capsys):
    flags = ["sfclip", "--recipe", "photos", "--text-teacher", str(folders["sentences"])]
    assert main([*flags, "--out", str(tmp_path / "run")]) == 2
    assert "name them, --kept" in capsys.readouterr().err
    assert main([*flags, "--out", str(tmp_path / "run"), "--data", "photos", "--kept", "kept/a:2"]) == 2
    assert "--data photos and --kept kept/a:2 both say what to train on" in capsys.readouterr().err
    more = ["--kept", source.removeprefix("kept:"), "--base", str(folders["base"]), *kept_trees.SMALL]
    assert main([*flags, *more, "--names", str(folders["names.jsonl"]), "--dry-run"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["stages"][0]["batch_size"] == 6 and "labelled 6 crops, 2.7 epochs" in said.err
