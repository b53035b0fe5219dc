"""What a term of the loss is: its settings with their choices and bounds, what it needs, what it costs, its loss.

A term lives in one file of its own, train/objectives/<name>.py, and its name is the file's: in a recipe
(`<name>.weight=1` on the command line), in metrics (`loss/<name>/<part>`) and in a checkpoint. It is a frozen
dataclass whose fields say what they may hold:

    form: Literal["cosine", "smooth_l1"] = "cosine"     a choice, checked as soon as it is set
    weight: Weight = 0.0                                a number with a bound, checked before a run

To add one: its file, its test, its field in `train.recipe.settings.Recipe` and the recipes that use it.
No torch is loaded on import: recipes are read where there is no time for it, so methods import what they compute with.
"""

from __future__ import annotations

import difflib
import functools
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import Tipsv2Model

    from train.network.teachers import Teachers
    from train.objectives.view import KeptView, View
    from train.recipe.settings import Stage
    from train.run.cost import Shape

Parts = dict[str, tuple[float | None, "Tensor"]]  # part -> its weight in the loss, None: only measured; and its value
Rule = tuple[str, float, bool, str]  # a field, its value, whether it may be, what may be


class Bound(NamedTuple):
    """Which values of a number a run can use."""

    allows: Callable[[float], bool]
    what: str  # in words


Weight = Annotated[float, Bound(lambda v: v >= 0, "0 or more")]
Number = Annotated[float, Bound(lambda v: True, "a number")]
Positive = Annotated[float, Bound(lambda v: v > 0, "above 0")]
Share = Annotated[float, Bound(lambda v: 0 <= v <= 1, "from 0 to 1")]
SomeShare = Annotated[float, Bound(lambda v: 0 < v <= 1, "above 0 and up to 1")]
ShareBelowOne = Annotated[float, Bound(lambda v: 0 <= v < 1, "from 0 to below 1")]
Count = Annotated[int, Bound(lambda v: v >= 1, "a whole number from 1")]
CountOrNone = Annotated[int, Bound(lambda v: v >= 0, "a whole number from 0")]


def near(name: str, known) -> str:
    """'; did you mean ...?' with the nearest of the known names, or nothing."""
    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def choose(field: str, value: str, *known: str) -> str:
    """`value` if it is one of `known`, else a ValueError that lists them."""
    if value not in known:
        raise ValueError(f"{field}={value!r} is unknown: choose {' or '.join(known)}{near(value, known) or '.'}")
    return value


@functools.cache
def choices(kind: type) -> dict[str, tuple[str, ...]]:
    """field -> what may be chosen, of every Literal of a dataclass."""
    hints = typing.get_type_hints(kind)
    return {name: typing.get_args(hint) for name, hint in hints.items() if typing.get_origin(hint) is Literal}


@functools.cache
def bounds(kind: type) -> dict[str, Bound]:
    """field -> its bound, of every number of a dataclass that has one."""
    hints = typing.get_type_hints(kind, include_extras=True)
    notes = {name: getattr(hint, "__metadata__", ()) for name, hint in hints.items()}
    return {name: note for name, given in notes.items() for note in given if isinstance(note, Bound)}


class Guides(NamedTuple):
    """Models that teach and never learn, where a recipe has such."""

    teacher: Tipsv2Model | None = None  # of patch distillation
    unimodal: Teachers | None = None  # of masked distillation


def within(name: str, settings: object) -> Iterator[Rule]:
    """What the numbers of `settings`, which a recipe calls `name`, may be."""
    for field, bound in bounds(type(settings)).items():
        value = getattr(settings, field)
        yield f"{name}.{field}", value, bound.allows(value), bound.what


@dataclass(frozen=True)
class Needs:
    """What a term asks for, of one image with its captions, beside the clean pass of all."""

    values: bool = False  # value features, a second way through the last block
    masked: bool = False  # patches of the masked image
    images: float = 0.0  # further passes of the image through the vision tower, which learns from them
    captions: float = 0.0  # likewise of a caption through the text tower

    def __or__(self, other: Needs) -> Needs:
        return Needs(
            self.values or other.values,
            self.masked or other.masked,
            self.images + other.images,
            self.captions + other.captions,
        )


@dataclass(frozen=True)
class Term:
    """Settings of a term, and what follows from them. Sizes: B images, N patches, D width."""

    name: ClassVar[str] = ""  # its file's
    WEIGHTS: ClassVar[tuple[str, ...]] = ("weight",)  # where all are 0 the term is not built and costs nothing
    SWITCHES: ClassVar[tuple[str, ...]] = ()  # further fields that do something where all weights are 0

    def __init_subclass__(cls, **more):
        super().__init_subclass__(**more)
        cls.name = cls.__module__.rpartition(".")[2]

    def __post_init__(self):
        """Raises ValueError for a choice that there is not."""
        for field, known in choices(type(self)).items():
            choose(f"{self.name}.{field}", getattr(self, field), *known)

    def rules(self, on_kept: bool) -> Iterator[Rule]:
        """What its numbers may be, in a run on kept crops or any other."""
        yield from within(self.name, self)

    @property
    def idle(self) -> bool:
        """Is all of it as if it were not there?"""
        fields = (*self.WEIGHTS, *self.SWITCHES)
        return bool(self.WEIGHTS) and all(getattr(self, field) == getattr(type(self), field) for field in fields)

    def works(self, stages: Sequence[Stage]) -> bool:
        """Does it take part in a run of these stages?"""
        return any(getattr(self, field) for field in self.WEIGHTS)


@dataclass(frozen=True)
class PairTerm(Term):
    """A term that learns from images with captions, over the shared pass (train/objectives/view.py)."""

    def needs(self, stage: Stage) -> Needs:
        """What it asks for in this stage."""
        return Needs()

    def operations(self, stage: Stage, vision: Shape, patch: int) -> float:
        """Of an image and a step, beside passes through towers that learn: heads, passes without gradients."""
        return 0.0

    def teaching(self, stage: Stage, guides: Guides, patch: int, tokens: float) -> float:
        """Operations of one image's forward passes through frozen teachers; a caption has `tokens`."""
        return 0.0

    def activations(self, stage: Stage, images: float, patch: int) -> float:
        """Bytes kept for the backward pass by a process with `images` of the stage's batch, beside those of passes."""
        return 0.0

    def build(self, model: Tipsv2Model, guides: Guides) -> dict[str, object]:
        """What it trains or averages (modules, parameters, buffers), and what else it holds, by name.

        Raises ValueError where it does not fit the model or a teacher.
        """
        return {}

    def losses(self, view: View, batch: dict[str, Tensor], stage: Stage, state: nn.Module) -> Parts:
        """Its parts of the loss. `state` has what `build` gave as attributes."""
        raise NotImplementedError

    def after_step(self, step: int, steps: int, model: Tipsv2Model, state: nn.Module) -> None:
        """Once per optimiser step (0-based, of `steps`), never in evaluation: averages follow."""


@dataclass(frozen=True)
class KeptTerm(Term):
    """A term that learns from kept crops (train/data/kept): only the last blocks run, and names come over a bridge."""

    ARRAY: ClassVar[tuple[str, str]] = ("", "")  # an array of a kept set that it cannot do without, and in words

    def rules(self, on_kept: bool) -> Iterator[Rule]:
        for field in self.WEIGHTS:
            value = getattr(self, field)
            yield (
                f"{self.name}.{field}",
                value,
                value >= 0 and (on_kept or not value),
                "0 or more, and only with --kept",
            )
        yield from super().rules(on_kept)

    def losses(self, view: KeptView) -> Parts:
        """Its parts of the loss, for one set's crops of a step."""
        raise NotImplementedError


def kinds(features: str) -> tuple[str, ...]:
    """The kinds of patches that a field `features` names."""
    return ("values", "final") if features == "both" else (features,)


def matrices(model: nn.Module) -> int:
    """Parameters that every token is multiplied with."""
    from torch import nn

    words = {m.weight for m in model.modules() if isinstance(m, nn.Embedding)}
    return sum(p.numel() for p in model.parameters() if p.ndim == 2 and p not in words)
