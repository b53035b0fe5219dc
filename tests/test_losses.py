"""Each loss against nested loops written from the papers, closed forms and limits."""

import math

import pytest
import torch
import torch.nn.functional as F

from train.objectives import losses


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def test_contrastive_is_the_papers_double_sum(generator):
    image, text = torch.randn(2, 5, 7, generator=generator, dtype=torch.float64)
    total = 0.0
    for k in range(5):
        row = [math.exp(cosine(image[k].tolist(), text[j].tolist()) / 0.07) for j in range(5)]
        column = [math.exp(cosine(text[k].tolist(), image[j].tolist()) / 0.07) for j in range(5)]
        total += math.log(row[k] / sum(row)) + math.log(column[k] / sum(column))
    assert losses.contrastive(image, text, 0.07).item() == pytest.approx(-total / (2 * 5), abs=1e-5)


def test_contrastive_of_equal_rows_is_ln_batch():
    rows = torch.ones(6, 4)
    assert losses.contrastive(rows, rows, 0.1).item() == pytest.approx(math.log(6), abs=1e-6)


def test_images_of_one_caption_are_positives_by_the_loop(generator):
    """Every pair of an image and a caption equal to its own against all that are wrong, and no other positive."""
    captions = [3, 5, 3, 8, 5, 3, 1]
    image, rows = torch.randn(7, 4, generator=generator), torch.randn(9, 4, generator=generator)
    text = rows[captions]  # equal captions have equal embeddings
    score = [[math.exp(cosine(i.tolist(), t.tolist()) / 0.2) for t in text] for i in image]
    losses_of = []
    for table in (score, [list(column) for column in zip(*score, strict=True)]):
        for k in range(7):
            # of the positives of row k, in the images' direction all alike: their mean is any of them
            positives = [j for j in range(7) if captions[j] == captions[k]]
            wrong = sum(table[k][j] for j in range(7) if captions[j] != captions[k])
            losses_of.append(sum(-math.log(table[k][p] / (table[k][p] + wrong)) for p in positives) / len(positives))
    expected = sum(losses_of) / 14
    found = losses.contrastive(image, text, 0.2, torch.tensor(captions))
    assert found.item() == pytest.approx(expected, abs=1e-5)
    assert losses.contrastive(image, text, 0.2, torch.arange(7)).equal(losses.contrastive(image, text, 0.2))


def test_three_captions_for_64_images_have_no_floor():
    """Embeddings that are all right, one direction a caption: else no model gets below the mean of ln(count)."""
    captions = torch.arange(64) % 3
    rows = torch.eye(3)[captions].requires_grad_()
    floor = sum(math.log(count) * count for count in captions.bincount().tolist()) / 64
    assert losses.contrastive(rows, rows, 0.02).item() == pytest.approx(floor, abs=1e-6) and floor > 3
    loss = losses.contrastive(rows, rows, 0.02, captions)
    loss.backward()
    assert loss.item() < 1e-9 and rows.grad.isfinite().all()
    only = losses.contrastive(rows, rows, 0.02, torch.zeros(64))  # one caption for all: nothing to tell apart
    assert only.item() == 0


@pytest.mark.parametrize("temperature", [0.05, 0.2])
def test_neighbours_is_the_divergence_of_two_softmaxes(generator, temperature):
    student, teacher = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64)
    total = 0.0
    for i in range(5):
        theirs = [math.exp(cosine(teacher[i].tolist(), teacher[j].tolist()) / temperature) for j in range(5)]
        ours = [math.exp(cosine(student[i].tolist(), teacher[j].tolist()) / temperature) for j in range(5)]
        for p, q in zip(theirs, ours, strict=True):
            total += p / sum(theirs) * math.log(p / sum(theirs) / (q / sum(ours)))
    assert losses.neighbours(student, teacher, temperature).item() == pytest.approx(total / 5, rel=1e-4)


def test_neighbours_costs_a_true_copy_nothing_even_among_synonyms(generator):
    teacher = F.normalize(torch.randn(4, 6, generator=generator), dim=-1)[[0, 0, 1, 2, 3]].requires_grad_()
    copy = (3 * teacher.detach()).requires_grad_()
    loss = losses.neighbours(copy, teacher, 0.05)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6) and copy.grad.abs().max() < 1e-5 and teacher.grad is None
    assert losses.contrastive(copy, teacher, 0.05).item() > 0.2  # which pushes two that mean the same apart


@pytest.mark.parametrize("temperature", [0.05, 0.2])
def test_grounding_scores_are_the_loop(generator, temperature):
    patches, text = torch.randn(3, 6, 5, generator=generator), torch.randn(4, 5, generator=generator)
    for i in range(3):
        for t in range(4):
            terms = [math.exp(cosine(patches[i, n].tolist(), text[t].tolist()) / temperature) for n in range(6)]
            expected = temperature * math.log(sum(terms) / 6)
            found = losses.grounding_scores(patches, text, temperature)[i, t].item()
            assert found == pytest.approx(expected, abs=1e-5)


def test_grounding_goes_from_the_mean_to_the_best_patch(generator):
    patches, text = torch.randn(2, 9, 4, generator=generator), torch.randn(3, 4, generator=generator)
    cosines = F.normalize(patches, dim=-1) @ F.normalize(text, dim=-1).T  # [2, 9, 3]
    assert torch.allclose(losses.grounding_scores(patches, text, 1e2), cosines.mean(1), atol=5e-3)
    assert torch.allclose(losses.grounding_scores(patches, text, 1e-3), cosines.amax(1), atol=5e-3)
    half = losses.grounding_scores(patches.bfloat16(), text.bfloat16(), 0.1)
    assert half.dtype == torch.float32 and torch.allclose(half, losses.grounding_scores(patches, text, 0.1), atol=0.01)


def test_autocast_does_not_make_the_losses_coarse(generator):
    image, text = torch.randn(2, 6, 32, generator=generator)
    patches = torch.randn(6, 5, 32, generator=generator)
    exact = losses.contrastive(image, text, 0.01), losses.grounding_scores(patches, text, 0.05)
    with torch.autocast("cpu", torch.bfloat16):
        again = losses.contrastive(image, text, 0.01), losses.grounding_scores(patches, text, 0.05)
    assert torch.equal(exact[0], again[0]) and torch.equal(exact[1], again[1])


def test_match_is_the_contrastive_loss_of_cosines(generator):
    image, text = torch.randn(2, 6, 4, generator=generator)
    cosines = F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T
    assert losses.match(cosines / 0.1).item() == pytest.approx(losses.contrastive(image, text, 0.1).item(), abs=1e-6)


def test_contrastive_does_not_depend_on_order(generator):
    image, text = torch.randn(2, 8, 4, generator=generator)
    order = torch.randperm(8, generator=generator)
    assert losses.contrastive(image, text, 0.1).item() == pytest.approx(
        losses.contrastive(image[order], text[order], 0.1).item(), abs=1e-6
    )


def loop_cross_entropy(student, teacher, temperature):
    """- sum_k t_k log softmax(s / temperature)_k, one token."""
    top = [math.exp(s / temperature) for s in student]
    return -sum(t * math.log(e / sum(top)) for t, e in zip(teacher, top, strict=True))


def test_dino_loops_over_crops_and_images(generator):
    student = torch.randn(3, 4, 6, generator=generator)
    teacher = torch.randn(4, 6, generator=generator).softmax(-1)
    expected = [
        loop_cross_entropy(student[m, b].tolist(), teacher[b].tolist(), 0.1) for m in range(3) for b in range(4)
    ]
    assert losses.dino(student, teacher, 0.1).item() == pytest.approx(sum(expected) / 12, rel=1e-5)


@pytest.mark.parametrize("patches", ["all", "masked", "separate"])
def test_ibot_loops_over_patches(generator, patches):
    student = torch.randn(2, 5, 6, generator=generator)
    teacher = torch.randn(2, 5, 6, generator=generator).softmax(-1)
    masked = torch.tensor([[1, 1, 1, 1, 0], [1, 0, 0, 1, 0]]).bool()
    each = {
        (b, n): loop_cross_entropy(student[b, n].tolist(), teacher[b, n].tolist(), 0.1)
        for b in range(2)
        for n in range(5)
    }
    hidden = [v for (b, n), v in each.items() if masked[b, n]]
    visible = [v for (b, n), v in each.items() if not masked[b, n]]
    mean = {
        "all": sum(each.values()) / 10,
        "masked": sum(hidden) / len(hidden),
        "separate": (sum(hidden) / len(hidden) + sum(visible) / len(visible)) / 2,
    }[patches]
    assert losses.ibot(student, teacher, masked, 0.1, patches).item() == pytest.approx(mean, rel=1e-5)


def test_ibot_pp_of_a_full_mask_is_ibot(generator):
    student = torch.randn(2, 5, 6, generator=generator)
    teacher = torch.randn(2, 5, 6, generator=generator).softmax(-1)
    full = torch.ones(2, 5, dtype=torch.bool)
    both = [losses.ibot(student, teacher, full, 0.1, kind).item() for kind in ("all", "masked")]
    assert both[0] == pytest.approx(both[1], rel=1e-6)


def test_only_ibot_pp_teaches_visible_patches(generator):
    teacher = torch.randn(1, 4, 6, generator=generator).softmax(-1)
    masked = torch.tensor([[True, True, False, False]])
    for kind, reaches in (("masked", False), ("all", True), ("separate", True)):
        student = torch.randn(1, 4, 6, generator=generator).requires_grad_()
        losses.ibot(student, teacher, masked, 0.1, kind).backward()
        assert (student.grad[0, 2:].abs().sum() > 0) == reaches, kind


def test_uniform_student_and_teacher_cost_ln_prototypes():
    uniform = torch.full((2, 3, 8), 1 / 8)
    masked = torch.ones(2, 3, dtype=torch.bool)
    assert losses.ibot(torch.zeros(2, 3, 8), uniform, masked).item() == pytest.approx(math.log(8), abs=1e-6)
    assert losses.dino(torch.zeros(1, 3, 8), uniform[0]).item() == pytest.approx(math.log(8), abs=1e-6)
    assert losses.entropy(uniform).item() == pytest.approx(math.log(8), abs=1e-6)


def test_unknown_patch_loss_names_the_choices():
    with pytest.raises(ValueError, match="iBOT"):
        losses.ibot(torch.zeros(1, 1, 2), torch.ones(1, 1, 2) / 2, torch.ones(1, 1).bool(), patches="some")


def test_patch_distillation_is_mean_of_one_minus_cosine(generator):
    student, teacher = torch.randn(2, 2, 3, 5, generator=generator)
    expected = [1 - cosine(student[b, n].tolist(), teacher[b, n].tolist()) for b in range(2) for n in range(3)]
    assert losses.patch_distillation(student, teacher).item() == pytest.approx(sum(expected) / 6, abs=1e-6)
    assert losses.patch_distillation(student, 3 * student).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", ["dino", "ibot", "patch_distillation"])
def test_no_gradient_reaches_a_teacher(generator, name):
    student = torch.randn(2, 3, 6, generator=generator).requires_grad_()
    teacher = torch.rand(2, 3, 6, generator=generator).requires_grad_()
    calls = {
        "dino": lambda: losses.dino(student, teacher[0]),
        "ibot": lambda: losses.ibot(student, teacher, torch.ones(2, 3).bool()),
        "patch_distillation": lambda: losses.patch_distillation(student, teacher),
    }
    calls[name]().backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0


def test_losses_compute_in_fp32_whatever_comes_in(generator):
    a, b = torch.randn(2, 4, 8, generator=generator).bfloat16()
    assert losses.contrastive(a, b, 0.07).dtype == torch.float32
    assert losses.patch_distillation(a[None], b[None]).dtype == torch.float32
    assert losses.dino(a[None], b.float().softmax(-1).bfloat16()).dtype == torch.float32


def test_sharpen_subtracts_the_centre_then_sharpens():
    scores, centre = torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([0.0, 1.0, 2.0])
    expected = F.softmax(torch.tensor([[1.0, 1.0, 2.0]]) / 0.5, dim=-1)
    assert torch.allclose(losses.sharpen(scores, centre, 0.5), expected)


def test_sinkhorn_balances_samples_and_prototypes(generator):
    q = losses.sinkhorn(torch.randn(4, 8, 8, generator=generator), 0.5, iterations=200)
    assert q.shape == (4, 8, 8)
    assert torch.allclose(q.sum(-1), torch.ones(4, 8), atol=1e-5)
    assert torch.allclose(q.flatten(0, 1).sum(0), torch.full((8,), 32 / 8.0), atol=1e-3)


def loop_sinkhorn(scores, temperature, iterations):
    """SwAV's Algorithm 1 from rows whose largest is 1: in turns divide columns by their sums and rows by theirs."""
    q = [[math.exp((s - max(row)) / temperature) for s in row] for row in scores]
    for _ in range(iterations):
        columns = [sum(row[k] for row in q) for k in range(len(q[0]))]
        q = [[value / columns[k] for k, value in enumerate(row)] for row in q]
        q = [[value / sum(row) for value in row] for row in q]
    return q


@pytest.mark.parametrize("iterations", [1, 3])
def test_sinkhorn_is_its_loop(generator, iterations):
    scores = torch.rand(6, 5, generator=generator) * 2 - 1
    before = scores.clone()
    with torch.autocast("cpu", torch.bfloat16):  # as in a run: the products must not be rounded
        q = losses.sinkhorn(scores, 0.05, iterations)
    torch.testing.assert_close(q, torch.tensor(loop_sinkhorn(scores.tolist(), 0.05, iterations)), rtol=1e-4, atol=1e-7)
    assert torch.equal(scores, before)


def test_sinkhorn_survives_large_scores():
    q = losses.sinkhorn(torch.tensor([[1e4, 0.0], [0.0, 1e4]]), 0.05)
    assert torch.isfinite(q).all() and torch.allclose(q, torch.eye(2))
