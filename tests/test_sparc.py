"""SPARC: the loss against loops written from the paper in float64, its limits, and the term in an objective."""

import math

import pytest
import torch
import torch.nn.functional as F

import tipsv2
from train.data.batches import Batches
from train.network.tokenizer import train_tokenizer
from train.network.towers import build
from train.objectives import Objective, losses
from train.objectives.view import look, read
from train.recipe import recipes
from train.recipe.overrides import override
from train.run import checkpoint

TAU = 0.3
WORDS = ["a dog on the grass, under the sky", "two cats in the snow", "a red car at the left"] * 20


@pytest.fixture
def pairs():
    """Four captions of 5, 3, 1 and 2 tokens padded to 6, and 7 patches; width 4."""
    generator = torch.Generator().manual_seed(0)
    tokens, patches = torch.randn(4, 6, 4, generator=generator), torch.randn(4, 7, 4, generator=generator)
    mask = (torch.arange(6) < torch.tensor([5, 3, 1, 2])[:, None]).long()
    return tokens, patches, mask


def cosine(a, b):
    return (a @ b) / (a.norm() * b.norm())


def group_by_hand(token, patches, sigma):
    """Equations 1 to 3: similarity, min-max, threshold, weights, weighted sum; one patch at a time."""
    scores = [token @ patch for patch in patches]
    low, high = min(scores), max(scores)
    scaled = [(score - low) / (high - low) for score in scores]
    kept = [value if value >= sigma else 0 * value for value in scaled]
    return sum(value / sum(kept) * patch for value, patch in zip(kept, patches, strict=True))


def sparc_by_hand(tokens, patches, mask, sigma, reduction, tau=TAU):
    """Equation 6 with Listing 1's reduction as the other choice; float64, one token at a time."""
    captions = []
    for i in range(len(tokens)):
        t = [tokens[i, j].double() for j in range(len(mask[i])) if mask[i, j]]
        c = [group_by_hand(token, [v.double() for v in patches[i]], sigma) for token in t]
        terms = []
        for j in range(len(t)):
            row = [torch.exp(cosine(c[j], t[k]) / tau) for k in range(len(t))]
            column = [torch.exp(cosine(t[j], c[k]) / tau) for k in range(len(t))]
            terms.append(-(torch.log(row[j] / sum(row)) + torch.log(column[j] / sum(column))) / 2)
        captions.append(terms)
    if reduction == "captions":
        return sum(sum(terms) / len(terms) for terms in captions) / len(captions)
    return sum(sum(terms) for terms in captions) / sum(len(terms) for terms in captions)


@pytest.mark.parametrize("threshold, sigma", [(None, 1 / 7), (0.0, 0.0), (0.6, 0.6)])
def test_groups_are_the_papers_loop(pairs, threshold, sigma):
    tokens, patches, _ = pairs
    found = losses.sparc_groups(tokens, patches, threshold)
    for i in range(4):
        for j in range(6):
            expected = group_by_hand(tokens[i, j].double(), patches[i].double(), sigma)
            assert torch.allclose(found[i, j].double(), expected, atol=1e-5)


@pytest.mark.parametrize("reduction", ["tokens", "captions"])
@pytest.mark.parametrize("threshold, sigma", [(None, 1 / 7), (0.0, 0.0), (0.6, 0.6)])
def test_loss_and_gradients_are_the_papers_loop(pairs, reduction, threshold, sigma):
    tokens, patches, mask = pairs
    leaves = [x.clone().requires_grad_() for x in (tokens, patches, torch.tensor(TAU))]
    loss = losses.sparc(*leaves[:2], mask, leaves[2], threshold, reduction)
    exact = [x.detach().double().requires_grad_() for x in leaves]
    expected = sparc_by_hand(*exact[:2], mask, sigma, reduction, exact[2])
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    expected.backward()
    for found, wanted in zip(leaves, exact, strict=True):
        assert torch.allclose(found.grad.double(), wanted.grad, atol=1e-4 * wanted.grad.abs().max())


def test_inside_it_is_fp32_whatever_comes_in(pairs):
    """bf16 inputs, and autocast, which would turn every product inside into bf16."""
    tokens, patches, mask = pairs[0].bfloat16().requires_grad_(), pairs[1].bfloat16(), pairs[2]
    with torch.autocast("cpu", torch.bfloat16):
        loss = losses.sparc(tokens, patches, mask, TAU)
    expected = sparc_by_hand(tokens, patches, mask, 1 / 7, "tokens")
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    assert tokens.grad.dtype == torch.bfloat16 and tokens.grad.abs().sum() > 0


def test_padding_is_never_asked_and_never_an_answer(pairs):
    tokens, patches, mask = pairs
    expected = losses.sparc(tokens, patches, mask, TAU).item()
    dirty = tokens.masked_fill(mask[..., None] == 0, math.nan).requires_grad_()
    loss = losses.sparc(dirty, patches, mask, TAU)
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert torch.isfinite(dirty.grad).all() and (dirty.grad[mask == 0] == 0).all()
    longer = [F.pad(tokens, (0, 0, 0, 5)), patches, F.pad(mask, (0, 5))]
    assert losses.sparc(*longer, TAU).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("threshold", [None, 0.0, 1.0])
@pytest.mark.parametrize("size", [1.0, 1e-3, 37.0])
def test_patches_all_alike_are_weighed_equally(pairs, threshold, size):
    """Every group is that patch, so groups answer tokens by chance: ln L; tokens are told apart by its cosines."""
    tokens, mask = pairs[0], pairs[2]
    patch = size * torch.randn(4, 1, 4, generator=torch.Generator().manual_seed(1))
    leaves = [tokens.clone().requires_grad_(), patch.expand(4, 7, 4).clone().requires_grad_()]
    loss = losses.sparc(*leaves, mask, TAU, threshold)
    expected = 0.0
    for i, length in enumerate(mask.sum(1).tolist()):
        scores = torch.stack([cosine(tokens[i, j], patch[i, 0]) for j in range(length)]) / TAU
        expected += (length * scores.logsumexp(0) - scores.sum() + length * math.log(length)) / 2
    assert loss.item() == pytest.approx(expected.item() / 11, rel=1e-4)
    loss.backward()
    assert all(torch.isfinite(x.grad).all() for x in leaves)
    assert max(x.grad.abs().max() for x in leaves) < 10 / min(size, 1)


def test_zeros_and_empty_captions_stay_finite(pairs):
    tokens, patches, mask = pairs
    leaves = [torch.zeros_like(tokens).requires_grad_(), torch.zeros_like(patches).requires_grad_()]
    for reduction in ("tokens", "captions"):
        loss = losses.sparc(*leaves, mask, TAU, reduction=reduction)
        loss.backward()
        assert torch.isfinite(loss) and all(torch.isfinite(x.grad).all() for x in leaves)
        assert losses.sparc(tokens, patches, torch.zeros_like(mask), TAU, reduction=reduction).item() == 0
        some = mask.clone()
        some[1] = 0  # one caption without a token
        dirty = [x.clone().requires_grad_() for x in (tokens, patches)]
        losses.sparc(*dirty, some, TAU, reduction=reduction).backward()
        assert all(torch.isfinite(x.grad).all() and (x.grad[1] == 0).all() for x in dirty)


def test_a_token_that_tells_no_patches_apart_but_by_rounding_weighs_them_equally():
    """Patches differ only at right angles to the token; min-max would blow 1e-7 up to 1, and its gradient to 1e7."""
    generator = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q
    patches = torch.randn(1, 7, 8, generator=generator)
    patches[..., 0] = 1
    leaves = [turn[:1].clone()[None].requires_grad_(), (patches @ turn).requires_grad_()]
    assert (leaves[1] @ leaves[0][0, 0]).unique().numel() > 1  # rounding shows
    groups = losses.sparc_groups(*leaves)
    assert torch.allclose(groups[0, 0], leaves[1].mean(1)[0], atol=1e-6)
    groups.square().sum().backward()
    assert max(x.grad.abs().max() for x in leaves) < 10


def test_a_caption_of_one_token_costs_nothing(pairs):
    tokens, patches, mask = pairs
    leaves = [tokens.clone().requires_grad_(), patches.clone().requires_grad_()]
    losses.sparc(*leaves, mask, TAU).backward()
    assert all((x.grad[2].abs() < 1e-6).all() and x.grad[0].abs().sum() > 0 for x in leaves)  # row 2 has one token
    assert losses.sparc(tokens[2:3], patches[2:3], mask[2:3], TAU).item() == pytest.approx(0, abs=1e-6)


def test_no_other_pair_is_looked_at(pairs):
    """Unlike every other contrastive loss here, captions of a batch do not see each other."""
    tokens, patches, mask = pairs
    alone = [losses.sparc(tokens[i : i + 1], patches[i : i + 1], mask[i : i + 1], TAU).item() for i in range(4)]
    assert losses.sparc(tokens, patches, mask, TAU, reduction="captions").item() == pytest.approx(sum(alone) / 4)
    weights = mask.sum(1).tolist()
    together = sum(a * w for a, w in zip(alone, weights, strict=True)) / sum(weights)
    assert losses.sparc(tokens, patches, mask, TAU).item() == pytest.approx(together, rel=1e-5)


def test_the_largest_threshold_leaves_the_best_patch(pairs):
    tokens, patches, _ = pairs
    best = torch.einsum("bld,bpd->blp", tokens, patches).argmax(-1)
    expected = patches.gather(1, best[..., None].expand(-1, -1, 4))
    assert torch.allclose(losses.sparc_groups(tokens, patches, 1.0), expected, atol=1e-6)


def test_memory_grows_with_tokens_times_patches_and_no_faster():
    batch, length, count, width = 3, 8, 32, 16
    tokens = torch.randn(batch, length, width, requires_grad=True)
    patches = torch.randn(batch, count, width, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        losses.sparc(tokens, patches, torch.ones(batch, length), TAU)
    assert kept and max(kept) <= batch * count * width  # the patches themselves: [B, L, P, D] would be 8 times that


def test_an_unknown_reduction_names_the_choices(pairs):
    with pytest.raises(ValueError, match="Listing 1"):
        losses.sparc(*pairs, TAU, reduction="words")


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(WORDS, 400)


def start(tokenizer, *fields):
    """The smoke recipe with this term, its objective and a batch."""
    recipe = override(recipes.get("smoke"), ["precision=fp32", "tower.vocabulary=400", "sparc.weight=2", *fields])
    torch.manual_seed(0)
    return recipe, Objective(recipe, build(recipe, 400)), Batches(recipe, tokenizer)[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields", [("sparc.width=20",), ("sparc.caption=web", "sparc.reduction=captions"), ("sparc.features=values",)]
)
def test_the_term_is_the_papers_two_losses_of_the_chosen_caption(tokenizer, fields):
    """With adapters and without, written out: per-token adapters, masked mean, mean of patches through h_v and g_v."""
    recipe, objective, batch = start(tokenizer, "sparc.threshold=none", "sparc.local_weight=3", *fields)
    loss, terms = objective(batch, recipe.stages[0])
    term, view, role = objective.terms["sparc"], look(objective.model, batch, values=True), recipe.sparc.caption
    seen = {"final": view.patches, "values": view.values}[recipe.sparc.features]
    text, tau = view.texts[role], objective.model.temperature.item()
    patches, tokens = term.adapt_patches(seen), term.adapt_tokens(text.tokens)
    assert patches.shape[-1] == tokens.shape[-1] == (recipe.sparc.width or 48)
    mask = text.mask
    pooled = torch.stack([t[m.bool()].mean(0) for t, m in zip(tokens, mask, strict=True)])
    image = seen.mean(1)
    if recipe.sparc.width:
        hidden = term.adapt_mean[0]
        image = F.gelu(F.linear(image, hidden.weight, hidden.bias))
        image = F.linear(image, term.adapt_patches.weight, term.adapt_patches.bias)
    together = losses.contrastive(image, pooled, tau).item()
    alone = sparc_by_hand(tokens, patches, mask, 0.0, recipe.sparc.reduction, tau).item()
    assert terms["loss/sparc/global"].item() == pytest.approx(together, rel=1e-4)
    assert terms["loss/sparc/local"].item() == pytest.approx(alone, rel=1e-4)
    contrastive = (terms["loss/contrastive/web"] + terms["loss/contrastive/synthetic"]).item() / 2
    assert loss.item() == pytest.approx(contrastive + 2 * (0.5 * together + 3 * alone), rel=1e-4)


@pytest.mark.parametrize("width", [0, 20])
def test_every_parameter_gets_a_gradient(tokenizer, width):
    recipe, objective, batch = start(tokenizer, f"sparc.width={width}")
    del objective.terms["contrastive"], objective.terms["self_distillation"]  # this term alone
    objective(batch, recipe.stages[0])[0].backward()
    vision, text = objective.model.vision_model, objective.model.text_model
    trained = [objective.model.temperature, vision.layernorm.weight, text.final_layer_norm.weight]
    trained += objective.terms["sparc"].parameters()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)
    assert len(list(objective.terms["sparc"].parameters())) == (6 if width else 0)


def test_adapters_stay_behind_when_the_model_leaves(tokenizer, tmp_path):
    recipe, objective, batch = start(tokenizer, "sparc.width=20")
    checkpoint.export(tmp_path / "model", objective.model, tokenizer)
    encoder = tipsv2.load(tmp_path / "model", device="cpu", dtype="float32")
    found = encoder.encode_pixels(batch["image"])["patches"].flatten(1, 2)
    assert torch.allclose(found, look(objective.model, batch).patches, atol=1e-5)


@pytest.mark.parametrize(
    "field, hint",
    [
        ("caption=detailed", "synthetic or web"),
        ("reduction=mean", "tokens or captions"),
        ("features=last", "final or values"),
        ("threshold=2", "1/P"),
        ("threshold=nan", "1/P"),
        ("threshold=some", "1/P"),
    ],
)
def test_wrong_settings_are_sentences(tokenizer, field, hint):
    with pytest.raises(ValueError, match=f"sparc.{field.split('=')[0]}.*{hint}"):
        start(tokenizer, f"sparc.{field}")


def test_a_weight_of_zero_builds_nothing(tokenizer):
    assert "sparc" not in start(tokenizer, "sparc.weight=0")[1].terms


def quarters(count, generator):
    """Pictures with one quarter in one of eight colours on grey, captioned by two tokens: an article and the colour."""
    palette = torch.tensor([[r, g, b] for r in (0, 1) for g in (0, 1) for b in (0, 1)] + [[0.5, 0.5, 0.5]])
    labels = torch.full((count, 4), 8)
    labels[torch.arange(count), torch.randint(4, (count,), generator=generator)] = torch.arange(count) % 8
    image = palette[labels].permute(0, 2, 1).reshape(count, 3, 2, 2).repeat_interleave(28, 2).repeat_interleave(28, 3)
    image = (image + 0.1 * torch.randn(image.shape, generator=generator)).clamp(0, 1)
    ids = torch.stack([torch.full((count,), 10), torch.arange(count) % 8 + 2], 1)
    captions = {"synthetic_ids": ids, "web_ids": ids[:, 1:]}
    masks = {k.replace("ids", "mask"): torch.ones_like(v) for k, v in captions.items()}
    labels = labels.reshape(count, 2, 2).repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1)  # of the patches
    return {"image": image, **captions, **masks}, labels


@pytest.mark.slow
@pytest.mark.parametrize("global_weight", [0.5, 0])
def test_words_find_their_patches_only_with_the_global_loss(global_weight):
    """From captions of whole pictures coloured patches come to be nearest to their colour's word.

    The local loss alone falls as far without looking at the right ones: the tokens of one caption learn to be told
    apart by any patches (the collapse that a SPARC without its global loss shows on scenes).
    """
    recipe = override(
        recipes.get("smoke"), ["precision=fp32", "sparc.weight=1", f"sparc.global_weight={global_weight}"]
    )
    torch.manual_seed(0)
    objective = Objective(recipe, build(recipe, 12))
    optimizer = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=2e-3)
    generator = torch.Generator().manual_seed(0)
    first = None
    for step in range(100):
        batch, _ = quarters(16, generator)
        loss, terms = objective(batch, recipe.stages[0])
        first = first or terms["loss/sparc/local"].item()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
        optimizer.step()
        objective.after_step(step)
    assert terms["loss/sparc/local"].item() < 0.5 * first
    batch, labels = quarters(64, generator)
    with torch.no_grad():
        patches = F.normalize(look(objective.model, batch).patches[labels < 8], dim=-1)
        words = read(objective.model, torch.arange(2, 10)[:, None], torch.ones(8, 1)).pooled
        right = (patches @ F.normalize(words, dim=-1).T).argmax(-1) == labels[labels < 8]
    share = right.float().mean().item()  # an eighth by chance
    assert share > 0.8 if global_weight else share < 0.3
