"""One step of training: the loop takes it and the benchmark measures it.

take = Step(recipe, objective, optimizer_of(recipe, objective))
values, _ = take(0, batch)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from tipsv2.network.encoder import native_bf16
from train.objectives.schedules import warmup_cosine
from train.parallel import distributed
from train.recipe.settings import Recipe


class NotFinite(ArithmeticError):
    """A loss or the gradients are infinite or nan: the step was not taken. The message names them."""


class Step:
    """Call with a step (0-based) and its batch: loss, gradients, clipping, update, averages."""

    def __init__(
        self,
        recipe: Recipe,
        objective: nn.Module,
        optimizer: torch.optim.Optimizer,
        forward: Callable[..., tuple[Tensor, dict[str, Tensor]]] | None = None,
        backward: Callable[[Tensor], None] = Tensor.backward,
        clip: Callable[[float], Tensor] | None = None,
        scaled: bool = False,
    ):
        """forward: the objective in its engine, for several processes or another precision.   backward: of the loss.
        clip: the gradients of all parameters to a norm; returns what it was.   scaled: fp16's loss scaling expects
        gradients that are not finite now and then, and skips that step.
        """
        self.recipe, self.objective, self.optimizer = recipe, objective, optimizer
        self.forward, self.backward, self.scaled = forward or objective, backward, scaled
        self.clip = clip or (lambda norm: nn.utils.clip_grad_norm_(objective.parameters(), norm))

    def __call__(
        self,
        step: int,
        batch: dict[str, Tensor],
        counts: dict[str, Tensor] | None = None,
        flags: Callable[[], Sequence[bool]] = tuple,
    ) -> tuple[dict[str, float], list[bool]]:
        """What metrics.jsonl holds of the step, with `counts` as means over processes, and each of the flags, asked for
        after the forward pass, if any process raised it. Raises NotFinite before anything has changed.
        """
        recipe, stage = self.recipe, self.recipe.stage_at(step)
        rate = stage.learning_rate * warmup_cosine(step, recipe.steps, recipe.warmup, floor=0.02)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        loss, terms = self.forward(batch, stage)
        values, raised = agree({"loss": loss, **terms, **(counts or {})}, flags())
        _refuse_infinities(values)
        self.backward(loss)
        norm = float(self.clip(recipe.clip))
        if not self.scaled:
            _refuse_infinities({"gradient_norm": norm})
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.objective.after_step(step)
        temperature = float(self.objective.model.temperature.detach())
        return values | {"lr": rate, "temperature": temperature, "gradient_norm": norm}, raised


def optimizer_of(recipe: Recipe, objective: nn.Module) -> torch.optim.AdamW:
    """AdamW; what has two dimensions or more decays, so tokens and tables do too; vectors do not. The temperature moves
    ten times slower than weights, and an objective may say of any parameter how fast it moves.
    """
    groups = {("matrices", 1.0): [], ("vectors", 1.0): [], ("temperature", 1.0): []}
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            kind = "temperature" if name.endswith("temperature") else "matrices" if parameter.ndim >= 2 else "vectors"
            groups.setdefault((kind, objective.rate(name)), []).append(parameter)
    settings = {"matrices": (recipe.weight_decay, 1.0), "vectors": (0.0, 1.0), "temperature": (0.0, 0.1)}
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": settings[kind][0], "lr_scale": settings[kind][1] * rate}
            for (kind, rate), parameters in groups.items()
        ],
        lr=1e-3,  # set before every step
        betas=(0.9, recipe.beta2),
        fused=True,
    )


def chosen_precision(choice: str) -> str:
    """A recipe's `precision` in accelerate's words: "bf16", "fp16" or "no". Raises ValueError for an unknown one."""
    if choice == "auto":
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return "bf16" if native_bf16(device) else "no"
    if choice not in ("bf16", "fp16", "fp32"):
        raise ValueError(f"precision={choice!r} is unknown; choose auto, bf16, fp16 or fp32.")
    return "no" if choice == "fp32" else choice


def agree(terms: dict[str, Tensor], flags: Sequence[bool]) -> tuple[dict[str, float], list[bool]]:
    """The terms as floats, averaged over processes, and each flag if any process raised it: all act alike."""
    raised = [terms["loss"].new_tensor(float(flag), dtype=torch.float32) for flag in flags]
    numbers = distributed.total(torch.stack([*(t.detach().float() for t in terms.values()), *raised]))
    means = (numbers / distributed.world()).tolist()
    return dict(zip(terms, means, strict=False)), [flag > 0 for flag in means[len(terms) :]]


def _refuse_infinities(values: dict[str, float]) -> None:
    if bad := [name for name, value in values.items() if not math.isfinite(value)]:
        raise NotFinite(", ".join(bad))
