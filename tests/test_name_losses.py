"""Losses of names against loops that follow their formulas, term by term, in double precision."""

import math

import pytest
import torch

from train.objectives import losses


def softmax(values):
    top = max(values)
    total = sum(math.exp(v - top) for v in values)
    return [math.exp(v - top) / total for v in values]


@pytest.fixture
def drawn():
    torch.manual_seed(0)
    return torch.randn(12, 5) * 3, torch.randint(-1, 5, (12,)), torch.rand(12)


def test_named_is_the_weighted_mean_of_the_labelled(drawn):
    logits, labels, weights = drawn
    total = count = 0.0
    for row, label, weight in zip(logits.tolist(), labels.tolist(), weights.tolist(), strict=True):
        if label >= 0:
            total -= weight * math.log(softmax(row)[label])
            count += weight
    assert losses.named(logits, labels, weights).item() == pytest.approx(total / count, rel=1e-5)
    nothing = losses.named(logits, torch.full((12,), -1), weights)
    assert nothing.item() == 0
    halved = losses.named(logits, labels, weights, lambda total: total / 2)  # another process has nothing
    assert halved.item() == pytest.approx(2 * total / count, rel=1e-5)


def test_binary_asks_every_name_for_itself(drawn):
    logits, _, weights = drawn
    targets = torch.rand(12, 5).round(decimals=1)
    total = 0.0
    for row, wanted, weight in zip(logits.tolist(), targets.tolist(), weights.tolist(), strict=True):
        for x, t in zip(row, wanted, strict=True):
            p = 1 / (1 + math.exp(-x))
            total -= weight * (t * math.log(p) + (1 - t) * math.log(1 - p))
    expected = total / weights.sum().item()
    assert losses.binary(logits, targets, weights).item() == pytest.approx(expected, rel=1e-5)
    sure = 40 * (2 * (targets > 0.5).float() - 1)
    assert losses.binary(sure, (targets > 0.5).float(), weights).item() < 1e-6


def test_soft_named_weighs_a_row_by_its_likeliest(drawn):
    logits, _, _ = drawn
    chance, classes = torch.randn(12, 5).softmax(-1).topk(3)
    total = count = 0.0
    for row, some, likely in zip(logits.tolist(), classes.tolist(), chance.tolist(), strict=True):
        chances = softmax(row)
        each = -sum(q * math.log(chances[k]) for k, q in zip(some, likely, strict=True))
        total += likely[0] * each
        count += likely[0]
    assert losses.soft_named(logits, classes, chance).item() == pytest.approx(total / count, rel=1e-5)


def test_places_set_a_names_patches_above_the_others_of_its_picture():
    torch.manual_seed(1)
    cosines, labels, share = torch.rand(3, 6, 4) * 2 - 1, torch.randint(-1, 4, (3, 6)), torch.rand(3, 6)
    labels[2] = 1  # a picture of one name: nothing to compare with
    total = count = 0.0
    for picture in range(3):
        for name in range(4):
            own = [n for n in range(6) if labels[picture, n] == name and share[picture, n] >= 0.4]
            others = [n for n in range(6) if labels[picture, n] >= 0 and labels[picture, n] != name]
            if not own or not others:
                continue
            against = math.log(sum(math.exp(20 * cosines[picture, n, name].item()) for n in others) / 10)
            each = [math.log1p(math.exp(against - 20 * cosines[picture, n, name].item())) for n in own]
            total += sum(each) / len(each)
            count += 1
    assert count > 3
    value = losses.places(cosines, labels, share, 20.0, 0.4)
    assert value.item() == pytest.approx(total / count, rel=1e-4)
    assert losses.places(cosines[2:], labels[2:], share[2:], 20.0, 0.4).item() == 0


def test_groups_are_sums_over_their_classes():
    classes, chance = torch.tensor([[0, 3], [2, 1]]), torch.tensor([[0.6, 0.3], [0.9, 0.1]])
    members = torch.tensor([[1, 0], [1, 1], [0, 0], [1, 1.0]])
    assert torch.allclose(losses.group_chances(classes, chance, members), torch.tensor([[0.9, 0.3], [0.1, 0.1]]))
    padded = torch.tensor([[0, 0, 0]]), torch.tensor([[1.0, 0, 0]])  # what fills up a row has no chance
    assert losses.group_chances(*padded, members).tolist() == [[1, 0]]


def test_a_name_is_present_where_a_patch_shows_enough_of_it():
    labels, share = torch.tensor([[0, 2, -1], [1, 1, 1]]), torch.tensor([[0.9, 0.2, 1.0], [0.3, 0.1, 0.2]])
    assert losses.present(labels, share, 4, 0.3).tolist() == [[1, 0, 0, 0], [0, 1, 0, 0]]


def test_losses_are_fp32_and_have_gradients(drawn):
    logits, labels, weights = drawn
    ours = logits.bfloat16().requires_grad_()
    value = losses.named(ours, labels, weights)
    value.backward()
    assert value.dtype == torch.float32 and ours.grad.abs().sum() > 0
