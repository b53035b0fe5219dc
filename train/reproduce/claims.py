"""The rows of `python -m train reproduce`, one recipe each, at a size a laptop can train, and the claims they test.

A row is a recipe on bundled scenes of `NOUNS` nouns: the same towers, images, steps and learning rate, another
objective. At this size it is luck of the seed whether patches and words meet under the contrastive loss alone, so rows
go on from one encoder a seed, `start`, whose captions were grounded in patches. A student is new and has its teacher
instead. `sfclip` is new for its teacher's words, has the start in its own run, and is compared with `through`;
`sfclip-vision` has the vision teacher alone, the bundled tips-nano, half as deep again and trained on more. Rows of
the search go on for a third of the steps and are scored on scenes of their own, so that choosing among them looks at no
split of the table. `unite` is its simplest winner: within 0.01 of the best, none of the papers' terms beside it brought
more.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

from train.objectives.self_distillation import SelfDistillation
from train.recipe.overrides import override
from train.recipe.settings import Recipe, Stage, Tower, Tuning, to_dict

NOUNS, SIZE, BATCH = 30, 112, 128
START, STEPS = 500, 1000  # of the start, and in all
AFTER = 1000  # added to the seed of what goes on from the start; seeds count from 1: those of 1000 are scenes:val
SPLITS = {
    "claim": {"val": f"scenes:val:{NOUNS}", "style": f"scenes:style:{NOUNS}"},
    "search": {"search": f"scenes:search:{NOUNS}"},
}
LANGUAGES = ("ja", "ko", "zh", "ru", "uk")  # written unlike English: what they score is not for words they share


@dataclass(frozen=True)
class Row:
    """One recipe of the table: how it differs from `base()`, and who teaches it."""

    name: str
    fields: tuple[str, ...]
    teacher: str = ""  # the row whose encoder of the same seed teaches
    words: bool = False  # whether the text teacher does, whose words a new encoder takes
    through: bool = False  # whether the start is in its own run: no second warm-up, which costs alignment
    kind: str = "claim"  # or "search": a candidate for the row unite

    @property
    def start(self) -> str:
        """The row whose encoder of the same seed this one goes on from; "" for a new encoder."""
        return "" if self.teacher or self.through or self.name == "start" else "start"

    @property
    def needs(self) -> list[str]:
        """The rows that come before it."""
        return [name for name in (self.start, self.teacher) if name]


@dataclass(frozen=True)
class Claim:
    """Two rows side by side, what is said of the step from one to the other, and what its paper printed."""

    before: str
    after: str
    said: str
    paper: str = ""


ALONE = ("stages.1.local_crops=0", "stages.1.patch_weight=0")
STUDENT = (*ALONE, "grounding.weight=0", "stages.*.mask_ratio=0", "distillation.weight=4")
FINAL = (*STUDENT, "distillation.target=final")
GROUNDED = ("grounding.weight=1", "stages.1.grounding=1")
SPARC = ("sparc.weight=1", "sparc.local_weight=0.1")
FOUNDATION = ("sfclip.vision_weight=4", "sfclip.share=0.5", "sfclip.vision_teacher=tips-nano")
SFCLIP = ("sfclip.vision_weight=1", "sfclip.text_weight=1", "sfclip.words=teacher")
TRIED = (  # for unite: TIPSv2's pretraining, or value distillation, with choices of the others' terms
    ("pretrain", (), ""),
    ("pretrain-sparc", SPARC, ""),
    ("pretrain-vision", FOUNDATION, ""),
    ("pretrain-grounding", GROUNDED, ""),
    ("pretrain-sparc-grounding", (*SPARC, *GROUNDED), ""),
    ("pretrain-vision-grounding", (*FOUNDATION, *GROUNDED), ""),
    ("pretrain-all", (*SPARC, *FOUNDATION, *GROUNDED), ""),
    ("distill", STUDENT, "grounding"),
    ("distill-grounding", (*STUDENT, *GROUNDED), "grounding"),
    ("distill-vision", (*STUDENT, *FOUNDATION), "grounding"),
    ("distill-sparc", (*STUDENT, *SPARC), "grounding"),
)
ROWS = (
    Row("start", ALONE),
    Row("contrastive", ALONE),
    Row("through", ALONE, through=True),
    Row("ibot", ("self_distillation.ema=full", "self_distillation.patches=masked")),
    Row("ibot++", ("self_distillation.ema=full",)),
    Row("head-ema", ()),
    Row("alt-text", ("web_weight=1",)),
    Row("student", FINAL, "ibot"),
    Row("student-masked", (*FINAL, "stages.*.mask_ratio=0.75"), "ibot"),
    Row("student-init", (*FINAL, "distillation.vision=teacher"), "ibot"),
    Row("values-1", STUDENT, "ibot"),
    Row("values-2", STUDENT, "values-1"),
    Row("values-3", STUDENT, "values-2"),
    Row("sparc", (*ALONE, *SPARC)),
    Row("sparc-values", (*ALONE, *SPARC, "sparc.features=values")),
    Row("sparc-dense", (*ALONE, *SPARC, "sparc.threshold=none")),
    Row("sfclip", (*ALONE, *SFCLIP), "ibot", True),
    Row("sfclip-vision", (*ALONE, *FOUNDATION)),
    Row("grounding", (*ALONE, *GROUNDED)),
    Row("unite", STUDENT, "grounding"),
    *(Row(f"try-{name}", (*fields, f"stages.1.steps={(STEPS - START) // 3}"), teacher, kind="search")
      for name, fields, teacher in TRIED),
)  # fmt: skip
CLAIMS = (
    Claim("start", "contrastive", "captions grounded in patches -> contrastive alone", "ours"),
    Claim("contrastive", "through", "contrastive, with the start in its own run", "ours"),
    Claim("contrastive", "ibot", "+ DINO + iBOT (this is TIPS)", "Flickr T2I 62.9 -> 67.6 (TIPS Table 1)"),
    Claim("ibot", "ibot++", "iBOT -> iBOT++", "ADE150 3.5 -> 17.6 (Table 4)"),
    Claim("ibot++", "head-ema", "full -> head-only EMA", "ADE150 18.1 -> 19.1 (Table 4)"),
    Claim("alt-text", "head-ema", "alt-text alone -> captions of several lengths"),
    Claim("ibot", "student", "teacher -> student of its final layer", "PC59 11.4 -> 33.5 (Table 1)"),
    Claim("student", "student-masked", "student: mask 0 -> 0.75", "PC59 31.4 -> 16.0 (Table 2)"),
    Claim("student", "student-init", "student: random -> teacher's weights", "PC59 31.4 -> 6.4 (Table 2)"),
    Claim("ibot", "values-1", "teacher -> student of its values", "ours"),
    Claim("student", "values-1", "student learns final layer -> values", "ours"),
    Claim("values-1", "values-2", "second generation", "ours"),
    Claim("values-2", "values-3", "third generation", "ours"),
    Claim("contrastive", "sparc", "+ SPARC, local weight 0.1", "above CLIP (Table 5)"),
    Claim("sparc", "sparc-values", "SPARC on value features", "ours"),
    Claim("sparc", "sparc-dense", "SPARC without sparsity", "worse (Table 8)"),
    Claim("through", "sfclip", "+ masked distillation and words (after SF-CLIP)", "above CLIP (abstract)"),
    Claim("contrastive", "sfclip-vision", "+ masked distillation from a larger vision model", "above CLIP (abstract)"),
    Claim("contrastive", "grounding", "+ grounding", "ours"),
    Claim("grounding", "unite", "teacher with grounding -> student of its values", "ours"),
    Claim("values-1", "unite", "student of a teacher with iBOT -> with grounding", "ours"),
)


def base() -> Recipe:
    """The common part of every row: width 128, six blocks, 112 px; captions grounded in patches, then TIPSv2's whole
    objective with head-only EMA.
    """
    stage = Stage(
        steps=STEPS - START, size=SIZE, batch_size=BATCH, local_size=56, local_crops=2, learning_rate=2e-3, grounding=0
    )
    start = replace(stage, steps=START, local_crops=0, patch_weight=0, grounding=1)
    recipe = Recipe(
        name="reproduce",
        command="reproduce",
        stages=(start, stage),
        tower=Tower(width=128, vision_layers=6, text_layers=2, heads=2, vocabulary=1024, table=SIZE),
        warmup=80,
        self_distillation=SelfDistillation(prototypes=256, hidden=256, momentum=0.98, momentum_end=0.998),
        trackers="",
        workers=0,
        save_every=200,
        sample_every=STEPS,
    )
    return override(recipe, [f"data.nouns={NOUNS}", "grounding.weight=1"])


def settings_of(row: Row, seed: int) -> dict:
    """The row's recipe as a record holds it, with no path of a machine."""
    return without_paths(json.dumps(to_dict(recipe_of(row, seed, Path("work")))))


def without_paths(text: str) -> dict:
    """A recipe's JSON, its models named from the folder work/ on, wherever that was."""
    return json.loads(re.sub(r'"(?:[^"]*/)?work/', '"', text))


def recipe_of(row: Row, seed: int, work: Path) -> Recipe:
    """The row's recipe for a seed, its teachers and its start in `work`. A seed has its own scenes, the same ones in
    every row that goes on from the start.
    """
    fields = [*row.fields, f"seed={seed}"]
    teacher = (work / f"{row.teacher}-{seed}" / "model").as_posix()  # as a record holds it, on any system
    if row.teacher:
        kind = "sfclip.vision_teacher" if "sfclip.vision_weight=1" in row.fields else "distillation.teacher"
        fields.append(f"{kind}={teacher}")
    if row.words:
        fields.append(f"sfclip.text_teacher={(work / f'{row.name}-{seed}-words').as_posix()}")
    recipe = override(replace(base(), name=row.name), fields)
    if row.name == "start":
        return replace(recipe, stages=recipe.stages[:1])
    if row.start:
        encoder = Tuning(base=(work / f"{row.start}-{seed}" / "model").as_posix())
        # other scenes than the start has seen
        return replace(recipe, stages=recipe.stages[1:], tower=Tower(), tuning=encoder, seed=seed + AFTER)
    return recipe
