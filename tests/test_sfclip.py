"""Masked distillation after SF-CLIP: the loss, what is hidden, the term, whole runs and two processes."""

import json
import os
import signal
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
import unimodal
from safetensors.torch import load_file
from unimodal import setting

from train.__main__ import main
from train.data.batches import Batches
from train.data.masking import random_words
from train.objectives import losses
from train.parallel.signals import Stopped
from train.recipe import bounds
from train.recipe.overrides import override
from train.run import checkpoint
from train.run.loop import fit


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tiny_folder):
    return unimodal.save(tmp_path_factory.mktemp("teachers"), tiny_folder)


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
    assert terms["loss/sfclip/vision"].item() == pytest.approx(total / count, rel=1e-5)
    assert "loss/sfclip/text" not in terms


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
    assert terms["loss/sfclip/text"].item() == pytest.approx(total / count, rel=1e-4)


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
    assert again["loss/sfclip/vision"].item() == pytest.approx(terms["loss/sfclip/vision"].item(), rel=1e-6)
    assert again["loss/contrastive/web"].item() != pytest.approx(terms["loss/contrastive/web"].item(), rel=1e-6)


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
    for name in ("loss/sfclip/vision", "loss/sfclip/text"):
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
    for name in ("loss/sfclip/vision", "loss/sfclip/text"):
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
    recipe, *_ = setting(folders)
    for field, hint in (("share=0", "above 0"), ("word_ratio=2", "from 0 to 1"), ("caption=short", "synthetic")):
        with pytest.raises(ValueError, match=f"sfclip.{field.split('=')[0]}.*{hint}"):
            bounds.check(override(recipe, [f"sfclip.{field}"]))


# whole runs


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_command_trains_and_says_what_is_wrong(folders, tmp_path, capsys):
    out = ["--out", str(tmp_path / "run"), "--recipe", "sfclip"]
    assert main(["sfclip", *out]) == 2
    assert "--vision-teacher, --text-teacher or both" in capsys.readouterr().err
    assert main(["sfclip", *out, "--text-teacher", str(folders["vit"])]) == 2
    assert "not a text model" in capsys.readouterr().err
    sized = [*out, "--vision-teacher", str(folders["vit"]), "stages.0.teacher_size=101"]
    assert main(["sfclip", *sized]) == 2  # before anything is trained
    assert "teacher_size=101 is no multiple" in capsys.readouterr().err and not (tmp_path / "run").exists()
    assert main(["pretrain", *out]) == 2
    assert "python -m train sfclip" in capsys.readouterr().err
    assert main(["sfclip", *out, "--dry-run", "--text-teacher", str(folders["words"]), "seed=3"]) == 0
    resolved = json.loads(capsys.readouterr().out)
    assert resolved["sfclip"]["vision_weight"] == 0 and resolved["sfclip"]["words"] == "teacher"
    assert main(["sfclip", *out, "--dry-run", "--vision-teacher", str(folders["vit"])]) == 0
    resolved = json.loads(capsys.readouterr().out)
    assert resolved["sfclip"]["text_weight"] == 0 and resolved["sfclip"]["words"] == "own"
    assert resolved["sfclip"]["vision_digest"] and not resolved["sfclip"]["text_digest"]
