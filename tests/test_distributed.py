"""Two gloo processes give the loss and the gradients of one process with the joined batch."""

import os
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from train.data.batches import Batches
from train.network.tokenizer import train_tokenizer
from train.network.towers import build
from train.network.tuning import choose_parts
from train.objectives import Objective
from train.recipe import recipes
from train.recipe.overrides import override

pytestmark = [pytest.mark.slow, pytest.mark.processes]

ALONE = [f"stages.1.{field}=0" for field in ("patch_weight", "local_crops", "mask_ratio")]
LABELS = ["patch_labels.weight=1", "patch_labels.features=both"]
TARGETS = {  # beside the two contrastive terms, and, where nothing says otherwise, DINO and iBOT++
    "sinkhorn": ["self_distillation.targets=sinkhorn"],
    "sinkhorn, full": ["self_distillation.targets=sinkhorn", "self_distillation.ema=full"],
    "centre": ["self_distillation.targets=centre"],
    "centre, full": ["self_distillation.targets=centre", "self_distillation.ema=full"],
    "ibot": ["self_distillation.patches=masked"],
    "separate": ["self_distillation.patches=separate"],
    "grounding": ["grounding.weight=1", "grounding.features=both"],
    "sparc": ["sparc.weight=1", "sparc.width=16"],
    "sparc of captions": ["sparc.weight=1", "sparc.reduction=captions", "sparc.caption=web"],
    "distillation": [*ALONE, "distillation.weight=4"],
    "distillation, masked": [*ALONE, "distillation.weight=4", "stages.1.mask_ratio=0.75", "distillation.text=random"],
    "patch labels": [*ALONE, *LABELS],
    "parts of a batch": ["accumulate=2", "grounding.weight=1", *LABELS],
    "tuned": [*ALONE, "tuning.base=it", "tuning.towers=vision"],
    "last": [*ALONE, "tuning.base=it", "tuning.part=last", "tuning.layers=1"],
    "lora": ["tuning.base=it", "tuning.part=lora", "tuning.rank=2"],
}
WORDS = ["a dog on the grass, under the sky", "two cats in the snow", "a red car at the left"] * 20


def setting(targets):
    recipe = override(recipes.get("smoke"), ["precision=fp32", "tower.vocabulary=400", *TARGETS[targets]])
    torch.manual_seed(0)
    model, teacher = build(recipe, 400), build(recipe, 400) if recipe.distillation.weight else None
    if recipe.tuning.base:
        choose_parts(model, recipe.tuning)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # starts at zero, and so would A's gradients
                torch.nn.init.normal_(parameter, std=0.1)
    return recipe, Objective(recipe, model, teacher), train_tokenizer(WORDS, 400)


def whole(recipe, tokenizer):
    """The joined batch; of its patch labels the first process has fewer."""
    batch = Batches(recipe, tokenizer)[5]
    if "labels" in batch:
        batch["labels"][:3] = -1
    return batch


def step(objective, batch, stage):
    """One forward and backward pass and the state it leaves behind."""
    loss, terms = objective(batch, stage)
    loss.backward()
    inner = getattr(objective, "module", objective)
    inner.after_step(0)
    gradients = {n: p.grad.clone() for n, p in inner.named_parameters() if p.grad is not None}
    return (
        {k: v.item() for k, v in terms.items()},
        gradients,
        {k: v.clone() for k, v in inner.named_buffers()},
    )


def share(batch, rank):
    """Half of every tensor's images; the names of patch labels are everybody's."""
    halves = {k: v.chunk(2, dim=1 if k == "local" else 0)[rank] for k, v in batch.items() if not k.startswith("names_")}
    return batch | halves


def worker(rank, port, folder):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    for targets in TARGETS:
        recipe, objective, tokenizer = setting(targets)
        batch = share(whole(recipe, tokenizer), rank)
        engine = torch.nn.parallel.DistributedDataParallel(objective, find_unused_parameters=True)
        torch.save(step(engine, batch, recipe.stages[1]), f"{folder}/{targets}-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """What each of two processes found, by kind of target."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(worker, (port, str(folder)), nprocs=2)
    return {t: [torch.load(folder / f"{t}-{rank}.pt", weights_only=True) for rank in (0, 1)] for t in TARGETS}


@pytest.mark.parametrize("targets", TARGETS)
def test_two_processes_are_one(halves, targets):
    recipe, objective, tokenizer = setting(targets)
    terms, gradients, buffers = step(objective, whole(recipe, tokenizer), recipe.stages[1])
    halves = halves[targets]
    assert gradients and any(gradient.abs().max() > 0 for gradient in gradients.values())
    for name, value in terms.items():
        assert sum(half[0][name] for half in halves) / 2 == pytest.approx(value, rel=1e-5), name
    for _, found, kept in halves:
        assert found.keys() == gradients.keys()
        for name, gradient in gradients.items():
            assert torch.allclose(found[name], gradient, atol=5e-5 * gradient.abs().max() + 1e-8), name
        for name, value in buffers.items():
            assert torch.allclose(kept[name], value, atol=1e-6), name


def test_shares_together_are_the_batch():
    recipe, _, tokenizer = setting("sinkhorn")
    joined = Batches(recipe, tokenizer)[5]["image"]
    parts = [Batches(recipe, tokenizer, rank, 2)[5]["image"] for rank in (0, 1)]
    assert torch.equal(torch.cat(parts), joined)
    with pytest.raises(ValueError, match="cannot be shared by 3"):
        Batches(recipe, tokenizer, 0, 3)
