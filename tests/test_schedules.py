"""Schedules and masks against tables of values."""

import pytest
import torch

from train.data.masking import random_mask
from train.objectives.schedules import cosine, warmup_cosine


@pytest.mark.parametrize(
    "step, expected", [(0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0), (60, 0.55), (110, 0.1), (500, 0.1)]
)
def test_warmup_cosine(step, expected):
    assert warmup_cosine(step, total=110, warmup=10, floor=0.1) == pytest.approx(expected)


@pytest.mark.parametrize("step, expected", [(0, 0.99), (50, 0.995), (100, 1.0), (200, 1.0)])
def test_cosine(step, expected):
    assert cosine(step, 100, 0.99, 1.0) == pytest.approx(expected)


@pytest.mark.parametrize("ratio, count", [(0.0, 0), (0.75, 12), (0.5, 8), (1.0, 16)])
def test_mask_hides_an_exact_number_of_every_image(ratio, count):
    mask = random_mask(5, 16, ratio, torch.Generator().manual_seed(1))
    assert mask.dtype == torch.bool and mask.sum(1).tolist() == [count] * 5


def test_mask_is_its_generators():
    first, second, other = (random_mask(4, 64, 0.75, torch.Generator().manual_seed(s)) for s in (3, 3, 4))
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])  # every image has its own


def test_mask_ratio_out_of_range():
    with pytest.raises(ValueError, match="0 to 1"):
        random_mask(1, 4, 1.5)
