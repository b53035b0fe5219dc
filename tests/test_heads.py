"""Heads: the EMA moves after a step and only then; the teacher never gets a gradient."""

import pytest
import torch

from train.objectives.heads import Heads, ProjectionHead


@pytest.fixture
def heads():
    torch.manual_seed(0)
    return Heads(width=8, hidden=16, bottleneck=4, prototypes=6, targets="centre")


def test_head_is_mlp_norm_cosine():
    torch.manual_seed(0)
    head = ProjectionHead(8, 16, 4, 6)
    x = torch.randn(3, 8)
    scores = head(x)
    y = head.mlp(x)
    for i in range(3):
        for k in range(6):
            expected = torch.dot(y[i], head.prototypes[k]) / (y[i].norm() * head.prototypes[k].norm())
            assert scores[i, k].item() == pytest.approx(expected.item(), abs=1e-5)


def test_teacher_starts_equal_and_follows_by_momentum(heads):
    before = {k: v.clone() for k, v in heads.teacher.state_dict().items()}
    assert all(torch.equal(v, heads.student.state_dict()[k]) for k, v in before.items())
    with torch.no_grad():
        for parameter in heads.student.parameters():
            parameter.add_(1.0)
    heads.update(momentum=0.75)
    for key, value in heads.teacher.state_dict().items():
        assert torch.allclose(value, before[key] + 0.25, atol=1e-6), key


def test_targets_alone_change_nothing(heads):
    """Evaluation may ask for targets as often as it likes: only update() moves the state."""
    before = {k: v.clone() for k, v in heads.state_dict().items()}
    heads.target("patch", torch.randn(2, 5, 8), 0.05)
    assert all(torch.equal(v, before[k]) for k, v in heads.state_dict().items())


def test_centre_is_a_running_mean_of_teacher_scores(heads):
    features = torch.randn(2, 5, 8)
    mean = heads.teacher["patch"](features).flatten(0, 1).mean(0)
    heads.target("patch", features, 0.05)
    heads.update(momentum=1.0, centre_momentum=0.9)
    assert torch.allclose(heads.centre_patch, 0.1 * mean, atol=1e-6)
    assert torch.equal(heads.centre_cls, torch.zeros(6))


def test_teacher_never_learns_by_gradient(heads):
    features = torch.randn(2, 8, requires_grad=True)
    target = heads.target("cls", features, 0.05)
    assert not target.requires_grad and not any(p.requires_grad for p in heads.teacher.parameters())


def test_unknown_targets():
    with pytest.raises(ValueError, match="sinkhorn or centre"):
        Heads(8, 8, 4, 6, targets="mean")
