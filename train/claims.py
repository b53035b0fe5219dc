"""The rows of `python -m train reproduce`: what the papers claim, one recipe each, at a size a laptop can train.

A row is a recipe on bundled scenes of `NOUNS` nouns: the same towers, images, steps and learning rate, another
objective. Rows of the search train for a third of the steps and are scored on scenes of their own, so that choosing
among them looks at no split of the table.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from train.settings import Recipe, SelfDistillation, Stage, Tower, override

NOUNS, SIZE, STEPS, BATCH = 30, 112, 1200, 128
SPLITS = {
    "claim": {"val": f"scenes:val:{NOUNS}", "style": f"scenes:style:{NOUNS}"},
    "search": {"search": f"scenes:search:{NOUNS}"},
}
LANGUAGES = ("ja", "ko", "zh", "ru", "uk")  # written unlike English: what they score is not for words they share


@dataclass(frozen=True)
class Row:
    """One recipe of the table: how it differs from `base()`, the row it is compared with, what the paper printed."""

    name: str
    fields: tuple[str, ...]
    against: str = ""
    claim: str = ""
    paper: str = ""
    teacher: str = ""  # the row whose encoder of the same seed teaches
    words: bool = False  # whether the text teacher does
    kind: str = "claim"  # or "search": a candidate for the row unite


ALONE = ("stages.0.local_crops=0", "stages.0.patch_weight=0")
STUDENT = (*ALONE, "stages.0.mask_ratio=0", "distillation.weight=4")
FINAL = (*STUDENT, "distillation.target=final")
MASKED = (*ALONE, "sfclip.vision_weight=1")
WORDED = ("sfclip.text_weight=1", "sfclip.words=teacher")
GROUNDED = ("grounding.weight=1",)
SPARC = ("sparc.weight=1", "sparc.local_weight=0.1")
SFCLIP = ("sfclip.vision_weight=1", *WORDED)
TRIED = (  # for unite: TIPSv2's pretraining, or value distillation, with every choice of the others' terms
    ("pretrain", (), "", False),
    ("pretrain-sparc", SPARC, "", False),
    ("pretrain-sfclip", SFCLIP, "ibot", True),
    ("pretrain-sparc-sfclip", (*SPARC, *SFCLIP), "ibot", True),
    ("pretrain-grounding", GROUNDED, "", False),
    ("pretrain-all", (*SPARC, *SFCLIP, *GROUNDED), "ibot", True),
    ("distill", STUDENT, "ibot", False),
    ("distill-sparc", (*STUDENT, *SPARC), "ibot", False),
    ("distill-grounding", (*STUDENT, *GROUNDED), "ibot", False),
    ("distill-sparc-grounding", (*STUDENT, *SPARC, *GROUNDED), "ibot", False),
    ("sparc-sfclip", (*ALONE, *SPARC, *SFCLIP), "ibot", True),
    ("sparc-sfclip-grounding", (*ALONE, *SPARC, *SFCLIP, *GROUNDED), "ibot", True),
)
ROWS = (
    Row("contrastive", ALONE),
    Row("ibot", ("self_distillation.ema=full", "self_distillation.patches=masked"),
        "contrastive", "+ DINO + iBOT (this is TIPS)", "Flickr T2I 62.9 -> 67.6 (TIPS Table 1)"),
    Row("ibot++", ("self_distillation.ema=full",),
        "ibot", "iBOT -> iBOT++", "ADE150 3.5 -> 17.6 (Table 4)"),
    Row("head-ema", (),
        "ibot++", "full -> head-only EMA", "ADE150 18.1 -> 19.1 (Table 4)"),
    Row("short-only", ("data.short_share=1",),
        "head-ema", "short and detailed captions -> short alone", "ADE150 18.1 -> 17.6 (Table 4)"),
    Row("alt-text", ("web_weight=1",),
        "head-ema", "two captions -> alt-text alone", ""),
    Row("student", FINAL,
        "ibot", "teacher -> distilled student", "PC59 11.4 -> 33.5 (Table 1)", teacher="ibot"),
    Row("student-masked", (*FINAL, "stages.0.mask_ratio=0.75"),
        "student", "student: mask 0 -> 0.75", "PC59 31.4 -> 16.0 (Table 2)", teacher="ibot"),
    Row("student-init", (*FINAL, "distillation.vision=teacher"),
        "student", "student: random -> teacher's weights", "PC59 31.4 -> 6.4 (Table 2)", teacher="ibot"),
    Row("values-1", STUDENT,
        "student", "student learns final layer -> values", "ours", teacher="ibot"),
    Row("values-2", STUDENT, "values-1", "second generation", "ours", teacher="values-1"),
    Row("values-3", STUDENT, "values-2", "third generation", "ours", teacher="values-2"),
    Row("sparc", (*ALONE, *SPARC),
        "contrastive", "+ SPARC, local weight 0.1", "above CLIP (Table 5)"),
    Row("sparc-dense", (*ALONE, *SPARC, "sparc.threshold=none"),
        "sparc", "SPARC without sparsity", "worse (Table 8)"),
    Row("sparc-full", (*ALONE, "sparc.weight=1", "sparc.local_weight=1"),
        "sparc", "SPARC, local weight 0.1 -> 1", "swept, 0.5 to 10"),
    Row("sparc-global", (*ALONE, "sparc.weight=1", "sparc.local_weight=0"),
        "sparc", "SPARC without its local loss", ""),
    Row("sfclip", (*MASKED, *WORDED),
        "contrastive", "+ masked distillation and words (after SF-CLIP)", "above CLIP (abstract)", "ibot", True),
    Row("sfclip-vision", MASKED,
        "sfclip", "after SF-CLIP, vision teacher alone", "", "ibot"),
    Row("sfclip-text", (*ALONE, *WORDED),
        "sfclip", "after SF-CLIP, text teacher alone", "", words=True),
    Row("grounding", (*ALONE, *GROUNDED),
        "contrastive", "+ grounding", "ours"),
    Row("restyle", (*ALONE, *GROUNDED, "stages.0.restyle=0.7"),
        "grounding", "drawings in other looks", "ours"),
    *(Row(f"try-{name}", (*fields, "stages.0.steps=400"), teacher=teacher, words=words, kind="search")
      for name, fields, teacher, words in TRIED),
)  # fmt: skip


def base() -> Recipe:
    """The common part of every row: width 128, six blocks, 112 px, TIPSv2's whole objective with head-only EMA."""
    stage = Stage(steps=STEPS, size=SIZE, batch_size=BATCH, local_size=56, local_crops=2, learning_rate=2e-3)
    recipe = Recipe(
        name="reproduce",
        command="reproduce",
        stages=(stage,),
        tower=Tower(width=128, vision_layers=6, text_layers=2, heads=2, vocabulary=1024, table=SIZE),
        warmup=100,
        self_distillation=SelfDistillation(prototypes=256, hidden=256, momentum=0.98, momentum_end=0.998),
        trackers="",
        workers=0,
        save_every=200,
        sample_every=STEPS,
    )
    return override(recipe, [f"data.nouns={NOUNS}"])


def recipe_of(row: Row, seed: int, work: Path) -> Recipe:
    """The row's recipe for a seed, its teachers in `work`. A seed has its own scenes, the same ones in every row."""
    fields = [*row.fields, f"seed={seed}"]
    teacher = work / f"{row.teacher}-{seed}" / "model"
    if row.teacher:
        kind = "sfclip.vision_teacher" if "sfclip.vision_weight=1" in row.fields else "distillation.teacher"
        fields.append(f"{kind}={teacher}")
    if row.words:
        fields.append(f"sfclip.text_teacher={work / f'{row.name}-{seed}-words'}")
    return override(replace(base(), name=row.name), fields)
