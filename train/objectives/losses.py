"""The losses, as pure functions: tensors and floats in, a scalar out, computed in fp32.

B images, N patches, K prototypes, D embedding width. Of names: C names, K classes of a classifier, G groups of these, R
rows: patches of any images together.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

OTHERS = 10  # patches, see `places`


def contrastive(image: Tensor, text: Tensor, temperature: Tensor | float, captions: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE over the batch. CLIP, arXiv 2103.00020; TIPSv2 App. A.9.

    Args:
        image, text: [B, D], any length (they are normalised here); row i of one belongs to row i of the other.
        temperature: positive; logits are cosine / temperature.
        captions: as in `match`.
    """
    with torch.autocast(image.device.type, enabled=False):  # it would multiply in bf16 whatever comes in
        image, text = F.normalize(image.float(), dim=-1), F.normalize(text.float(), dim=-1)
        return match(image @ text.T / temperature, captions)


def match(logits: Tensor, captions: Tensor | None = None) -> Tensor:
    """Symmetric cross-entropy of logits [B, B] whose diagonal is right: text for image and image for text.

    captions: [B] integers, equal where the texts are. All pairs of an image and a caption equal to its own are then
        positives, each contrasted with the pairs that are wrong and not with the other positives: the mean over
        positives p of -log exp(s_p) / (exp(s_p) + sum over wrong n of exp(s_n)). Equal captions thus put no floor under
        the loss, which would be the mean of the logarithms of how often a caption comes.
    """
    if captions is not None:
        equal = captions[:, None] == captions[None]
        logits = logits.masked_fill(equal.fill_diagonal_(False), float("-inf"))
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def neighbours(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Whom a text stands near, softly: KL divergence from the teacher's similarities in a batch to the student's.

    mean_i KL( softmax_j(t_i . t_j / temperature) || softmax_j(s_i . t_j / temperature) ). InfoNCE whose targets are the
    teacher's own: where two texts of a batch mean the same, neither is pushed from the other's vector. 0 where the
    student is the teacher. After similarity distillation, as in SEED (arXiv 2101.04731) and CLIP-KD (arXiv 2307.12732);
    the form is our choice.

    Args:
        student, teacher: [B, D], any length; no gradient flows into the teacher.
        temperature: positive, in cosine units.
    """
    with torch.autocast(student.device.type, enabled=False):
        student, teacher = F.normalize(student.float(), dim=-1), F.normalize(teacher.detach().float(), dim=-1)
        ours, theirs = student @ teacher.T / temperature, teacher @ teacher.T / temperature
    return F.kl_div(ours.log_softmax(-1), theirs.log_softmax(-1), reduction="batchmean", log_target=True)


def grounding_scores(patches: Tensor, text: Tensor, temperature: float) -> Tensor:
    """How well each text is found in each image: the soft maximum over patches of their cosines (for `match`).

    score(i, t) = temperature * log mean_n exp(cos(patch_in, text_t) / temperature), between the mean cosine (high
    temperature) and the largest (low). Contrasted over the batch it asks that some patches of the right image, and none
    of the others, answer the caption: multiple-instance learning with the log-sum-exp pooling of Pinheiro and Collobert
    (arXiv 1411.6228). PACL (arXiv 2212.04994) contrasts captions and patches in the same way, with another pooling.

    Args:
        patches: [B, N, D]. text: [T, D]; both of any length. temperature: positive, in cosine units.
    Returns: [B, T] in [-1, 1].
    """
    with torch.autocast(patches.device.type, enabled=False):
        patches, text = F.normalize(patches.float(), dim=-1), F.normalize(text.float(), dim=-1)
        cosines = torch.einsum("bnd,td->btn", patches, text)
    return temperature * ((cosines / temperature).logsumexp(-1) - math.log(patches.shape[1]))


def dino(student: Tensor, teacher: Tensor, temperature: float = 0.1) -> Tensor:
    """Cross-entropy of M local crops against the one global crop: - mean_m t . log softmax(s_m / temperature).

    TIPSv2 App. A.9 (one global crop, hence no global-to-global term); DINO, arXiv 2104.14294.

    Args:
        student: [M, B, K] prototype scores of the local crops.
        teacher: [B, K] target probabilities of the global crop; no gradient flows into them.
    """
    log_student = F.log_softmax(student.float() / temperature, dim=-1)
    return -(teacher.detach().float() * log_student).sum(-1).mean()


def ibot(
    student: Tensor,
    teacher: Tensor,
    masked: Tensor,
    temperature: float = 0.1,
    patches: str = "all",
) -> Tensor:
    """Patch cross-entropy between the masked view (student) and the clean view (teacher).

    `patches="all"` is iBOT++ (TIPSv2 Eq. 3): one uniform mean over masked and visible patches alike.
    `patches="masked"` is iBOT (arXiv 2111.07832): the mean over masked patches only.
    `patches="separate"` averages the masked and the visible mean, so that neither dilutes the other.

    Args:
        student: [B, N, K] prototype scores. teacher: [B, N, K] target probabilities, detached here.
        masked: [B, N] bool, True where the student saw the mask token.
    """
    log_student = F.log_softmax(student.float() / temperature, dim=-1)
    loss = -(teacher.detach().float() * log_student).sum(-1)  # [B, N]
    if patches == "all":
        return loss.mean()
    masked = masked.to(loss.dtype)
    hidden = (loss * masked).sum() / masked.sum().clamp(min=1)
    if patches == "masked":
        return hidden
    if patches == "separate":
        visible = 1 - masked
        return (hidden + (loss * visible).sum() / visible.sum().clamp(min=1)) / 2
    raise ValueError(f"patches={patches!r} is not a patch loss; choose all (iBOT++), masked (iBOT) or separate.")


def patch_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over all patches of 1 - cosine(student, teacher). Patch-level distillation, TIPSv2 Sec. 3.2.

    The paper supervises every patch of an unmasked student; its form of the loss is not public, cosine is our choice.

    Args:
        student: [B, N, D]. teacher: [B, N, D], detached here; whether final-layer or value features is the caller's.
    """
    return 1 - F.cosine_similarity(student.float(), teacher.detach().float(), dim=-1).mean()


def masked_distillation(
    student: Tensor,
    teacher: Tensor,
    chosen: Tensor,
    form: str = "cosine",
    average: Callable[[Tensor], Tensor] = lambda x: x,
) -> Tensor:
    """Mean over the chosen tokens of how far a prediction is from the teacher's feature. After SF-CLIP (CVPR 2024).

    The paper's details are not public in text form; both forms are our choice. "cosine": 1 - cosine. "smooth_l1": mean
    over the width of the smooth L1 (beta 2) to the feature whitened by a LayerNorm without scale, as in feature
    distillation (arXiv 2205.14141), so that neither form sees how long a teacher's features are.

    Args:
        student: [B, N, D], predictions. teacher: [B, N, D], features of the clean input, detached here.
        chosen: [B, N], 1 or True where a token counts; none chosen costs nothing.
        average: the mean of a number over processes, so that a token weighs the same in whichever it is.
    """
    student, teacher = student.float(), teacher.detach().float()
    if form == "cosine":
        losses = 1 - F.cosine_similarity(student, teacher, dim=-1)
    elif form == "smooth_l1":
        white = F.layer_norm(teacher, teacher.shape[-1:])
        losses = F.smooth_l1_loss(student, white, reduction="none", beta=2.0).mean(-1)
    else:
        raise ValueError(f"form={form!r} is not a distillation loss; choose cosine or smooth_l1.")
    chosen = chosen.to(losses.dtype)
    return (losses * chosen).sum() / average(chosen.sum()).clamp(min=1e-6)


def patch_labels(
    patches: Tensor,
    names: Tensor,
    labels: Tensor,
    temperature: float,
    average: Callable[[Tensor], Tensor] = lambda x: x,
) -> Tensor:
    """Cross-entropy of the cosines between a patch and all names: - mean over labelled patches of log p(own name).

    What zero-shot segmentation compares (TIPSv2 Sec. 4.2), with its masks given. Every labelled patch weighs the same.

    Args:
        patches: [B, N, D]. names: [C, D]; both of any length.
        labels: [B, N] int64, which name; -1 = unlabelled, no part of the mean. Without any label the loss is 0.
        temperature: positive; logits are cosine / temperature.
        average: the mean of a number over processes, so that a patch weighs the same in whichever it is.
    """
    patches, names = F.normalize(patches.float(), dim=-1), F.normalize(names.float(), dim=-1)
    with torch.autocast(patches.device.type, enabled=False):
        logits = patches @ names.T / temperature  # [B, N, C]
        summed = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-1, reduction="sum")
    return summed / average((labels >= 0).sum().float()).clamp(min=1)


def sparc_groups(tokens: Tensor, patches: Tensor, threshold: float | None = None) -> Tensor:
    """Language-grouped vision embeddings: for every token the patches it picks. SPARC (arXiv 2401.09865) Sec. 3.

    s_lp = t_l . v_p; min-max over the patches of each token; what is below `threshold` becomes 0; rows are made to sum
    to 1, which gives a_lp; c_l = sum_p a_lp v_p. Gradients flow through the weights. Where a token finds all patches
    alike the paper's min-max is 0 / 0: here it weighs them equally.

    Args:
        tokens: [B, L, D]. patches: [B, P, D]; both of any length, which matters.
        threshold: sigma, from 0 (nothing is dropped) to 1 (only the best patch stays); None is the paper's 1 / P.
    Returns: [B, L, D].
    """
    tokens, patches = tokens.float(), patches.float()
    with torch.autocast(tokens.device.type, enabled=False):  # it would multiply in bf16 whatever comes in
        scores = tokens @ patches.mT  # [B, L, P]
        low = scores.amin(-1, keepdim=True)
        span = scores.amax(-1, keepdim=True) - low
        rounding = 1e-6 * tokens.norm(dim=-1, keepdim=True) * patches.norm(dim=-1).amax(-1)[:, None, None]
        flat = span <= rounding.detach()
        weights = ((scores - low) / span.masked_fill(flat, 1)).masked_fill(flat, 1)
        weights = weights.masked_fill(weights < (1 / patches.shape[1] if threshold is None else threshold), 0)
        return weights / weights.sum(-1, keepdim=True) @ patches  # the best patch weighs 1: no sum is 0


def sparc(
    tokens: Tensor,
    patches: Tensor,
    mask: Tensor,
    temperature: Tensor | float,
    threshold: float | None = None,
    reduction: str = "tokens",
    average: Callable[[Tensor], Tensor] = lambda x: x,
) -> Tensor:
    """Every token of a caption finds its own group of patches among the caption's, and every group its token.

    SPARC (arXiv 2401.09865) Eq. 6: symmetric InfoNCE of cosines between tokens and `sparc_groups` of the same pair; no
    other pair is looked at. Padding is neither asked nor a candidate. A caption of one token costs nothing.

    Args:
        tokens: [B, L, D] and patches: [B, P, D], both adapted. mask: [B, L], 1 = token, 0 = padding.
        temperature: positive; logits are cosine / temperature.
        threshold: as in `sparc_groups`.
        reduction: "tokens": every token of the batch weighs the same (the paper's Listing 1); "captions": every caption
            does (Eq. 6).
        average: the mean of a number over processes, so that a token weighs the same in whichever it is.
    """
    mask = mask.bool()
    tokens = tokens.float().masked_fill(~mask[..., None], 0)
    groups = F.normalize(sparc_groups(tokens, patches, threshold), dim=-1)
    with torch.autocast(tokens.device.type, enabled=False):
        logits = groups @ F.normalize(tokens, dim=-1).mT / temperature  # [B, group, token]
    losses = torch.zeros_like(tokens[..., 0])
    for scores in (logits, logits.mT):
        scores = scores.masked_fill(~mask[:, None], torch.finfo(scores.dtype).min)  # candidates are the last dimension
        losses = losses - scores.log_softmax(-1).diagonal(dim1=1, dim2=2) / 2
    losses = losses.masked_fill(~mask, 0)
    if reduction == "tokens":
        return losses.sum() / average(mask.sum().float()).clamp(min=1)
    if reduction == "captions":
        return (losses.sum(1) / mask.sum(1).clamp(min=1)).mean()
    raise ValueError(f"reduction={reduction!r} is unknown; choose tokens (Listing 1) or captions (Eq. 6).")


def named(logits: Tensor, labels: Tensor, weights: Tensor, average: Callable[[Tensor], Tensor] = lambda x: x) -> Tensor:
    """Weighted mean over rows of - log softmax(logits)[own name].

    Args:
        logits: [R, C]. labels: [R] int64; -1 = none, no part of the mean. weights: [R], 0 or more.
        average: the mean of a number over processes, so that a row weighs the same in whichever it is.
    """
    weights = weights.float() * (labels >= 0)
    losses = F.cross_entropy(logits.float(), labels.clamp(min=0), reduction="none")
    return (losses * weights).sum() / average(weights.sum()).clamp(min=1e-6)


def binary(
    logits: Tensor, targets: Tensor, weights: Tensor, average: Callable[[Tensor], Tensor] = lambda x: x
) -> Tensor:
    """Every name for itself: weighted mean over rows of the sum over names of - log of the right answer's probability.

    p = sigmoid(logits) for a name that is there, 1 - p for one that is not; a target between the two mixes both. The
    sigmoid loss of SigLIP (arXiv 2303.15343), of patches or pictures and names in place of pairs.

    Args:
        logits: [R, C], scale * cosine + bias. targets: [R, C] in [0, 1]. weights: [R], 0 or more.
        average: as in `named`.
    """
    weights = weights.float()
    losses = F.binary_cross_entropy_with_logits(logits.float(), targets.float(), reduction="none").sum(-1)
    return (losses * weights).sum() / average(weights.sum()).clamp(min=1e-6)


def soft_named(
    logits: Tensor, classes: Tensor, chance: Tensor, average: Callable[[Tensor], Tensor] = lambda x: x
) -> Tensor:
    """Cross-entropy of the likeliest classes: - sum_k chance_k log softmax(logits)[classes_k], a mean over rows in
    which each weighs what its likeliest class has: where a classifier is unsure it says little.

    Args:
        logits: [R, K]. classes: [R, n] int64, likeliest first. chance: [R, n]; a row may sum to less than 1.
        average: as in `named`.
    """
    chance = chance.float()
    weights = chance[:, 0]
    losses = -(logits.float().log_softmax(-1).gather(-1, classes) * chance).sum(-1)
    return (losses * weights).sum() / average(weights.sum()).clamp(min=1e-6)


def places(
    cosines: Tensor,
    labels: Tensor,
    share: Tensor,
    scale: float,
    least: float,
    average: Callable[[Tensor], Tensor] = lambda x: x,
) -> Tensor:
    """Where in its picture is a name? Each patch of it against all labelled patches that are not.

    softplus(log sum_n exp(scale * cos_n) - log OTHERS - scale * cos_own), n over the others: 0 for a patch that lies
    well above them, so that a few wrong ones count and not how many there are. The mean over a name's patches, then
    over names and pictures that have both kinds. It asks what a heatmap shows, within one picture and name.

    Args:
        cosines: [B, N, C]. labels: [B, N] int64, -1 = none. share: [B, N]; a name's patches have `least` or more.
        scale: positive. average: as in `named`.
    """
    logits = cosines.float() * scale
    own = F.one_hot(labels.clamp(min=0), cosines.shape[-1]).bool() & (labels >= 0)[..., None]
    others = ~own & (labels >= 0)[..., None]
    own = own & (share >= least)[..., None]
    valid = (own.any(1) & others.any(1)).float()  # [B, C]
    against = logits.masked_fill(~others, -1e4).logsumexp(1, keepdim=True) - math.log(OTHERS)
    losses = (F.softplus(against - logits) * own).sum(1) / own.sum(1).clamp(min=1)
    return (losses * valid).sum() / average(valid.sum()).clamp(min=1e-6)


def group_chances(classes: Tensor, chance: Tensor, members: Tensor) -> Tensor:
    """How likely a patch shows any class of a group: sums of its likeliest classes.

    Args:
        classes: [R, n] int64. chance: [R, n]. members: [K, G], 1 where a class is of a group.
    Returns: [R, G] in [0, 1].
    """
    every = torch.zeros(len(classes), len(members), device=chance.device).scatter_add_(1, classes, chance.float())
    return (every @ members.float()).clamp(0, 1)


def present(labels: Tensor, share: Tensor, names: int, least: float) -> Tensor:
    """Which names are in a picture: those that `least` or more of some patch shows.

    Args:
        labels: [B, N] int64, -1 = none. share: [B, N], of the patch that shows its label. names: how many there are.
    Returns: [B, C] of 0 and 1.
    """
    seen = torch.where((labels >= 0) & (share >= least), labels, names)
    return torch.zeros(len(labels), names + 1, device=labels.device).scatter_(1, seen, 1.0)[:, :names]


@torch.no_grad()
def sharpen(scores: Tensor, centre: Tensor, temperature: float) -> Tensor:
    """Teacher probabilities by centring and sharpening: softmax((scores - centre) / temperature). DINO Sec. 3.1."""
    return ((scores.float() - centre) / temperature).softmax(-1)


@torch.no_grad()
def sinkhorn(
    scores: Tensor, temperature: float, iterations: int = 3, total: Callable[[Tensor], Tensor] = lambda x: x
) -> Tensor:
    """Teacher probabilities by Sinkhorn-Knopp: rows sum to 1, prototypes are used equally. SwAV, arXiv 2006.09882.

    Args:
        scores: [..., K]; all leading dimensions together are the samples.
        temperature: positive; lower is sharper.
        total: sums a tensor over processes, so that prototypes are balanced over the joined batch.
    """
    q = scores.float().flatten(0, -2) / temperature
    # a sample's own maximum: no row underflows, processes need not agree, and the fixed point is the same
    q = q.sub_(q.amax(1, keepdim=True)).exp_()
    samples = q.new_ones(len(q))
    share = total(samples.sum()) / q.shape[1]
    # factors of rows and columns are kept apart: q is read once for each, and written once at the end
    with torch.autocast(q.device.type, enabled=False):
        for _ in range(iterations):
            prototypes = share / total(samples @ q).clamp(min=1e-30)  # each prototype gets the same share
            samples = 1 / (q @ prototypes).clamp(min=1e-30)  # each sample is a distribution
    return q.mul_(prototypes).mul_(samples[:, None]).view(scores.shape)


def entropy(probabilities: Tensor) -> Tensor:
    """Mean entropy in nats of rows [..., K]: ln K means the targets say nothing, 0 that all agree on one prototype."""
    return -(probabilities * probabilities.clamp(min=1e-12).log()).sum(-1).mean()
