"""How the page says whether a thing is in the picture: a badge, and in a sentence what the verdict rests on."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

from tipsv2.checkpoints import bundled
from tipsv2.checkpoints.bundled import S14

if TYPE_CHECKING:
    from tipsv2.analysis.verdict import Calibration, Verdict
    from tipsv2.checkpoints.catalogue import ModelInfo

DIGITS = 3


def badge(verdict: Verdict, reason: str) -> str:
    """The word, its colour by the answer; the reason shows when pointed at."""
    known = "" if math.isfinite(verdict.likelihood) else "<small>uncalibrated</small>"
    return (
        f'<span class="tips-verdict" data-answer="{verdict.answer}" title="{escape(reason, quote=True)}">'
        f"{verdict.answer}{known}</span>"
    )


def because(verdict: Verdict, calibration: Calibration | None) -> str:
    """What a verdict rests on, in a few sentences."""
    from tipsv2.analysis.verdict import UNKNOWN

    if verdict.answer == UNKNOWN:
        return "The encoder has never seen a picture of this kind: what it finds here says nothing."
    text = (
        f"Its highest cosine, {verdict.peak:.{DIGITS}f}, is above that of {100 * verdict.beats:.0f} % of other words "
    )
    text += "on this picture"
    if verdict.rival:
        side = "behind" if verdict.lead >= 0 else "ahead"
        text += f"; at that patch the nearest other word, “{verdict.rival}”, is {abs(verdict.lead):.{DIGITS}f} {side}"
    if calibration is None:
        return f"{text}. This encoder is not calibrated: the verdict goes by these ranks alone."
    text += f". Likelihood {verdict.likelihood:.2f}, if half of what is asked is there"
    least = "never" if calibration.here is None else f"from {calibration.here:.2f}"
    most = "never" if calibration.not_here is None else f"up to {calibration.not_here:.2f}"
    return f"{text}: here {least}, not here {most}, fitted on {'; '.join(calibration.fitted_on)}."


def verdict_numbers(verdict: Verdict) -> dict:
    """A verdict for programs: nan becomes null."""
    likelihood = round(verdict.likelihood, 6) if math.isfinite(verdict.likelihood) else None
    return {
        "verdict": verdict.answer,
        "likelihood": likelihood,
        "lead": round(verdict.lead, 6),
        "rival": verdict.rival,
        "beats": round(verdict.beats, 6),
    }


def unfamiliar(infos: Iterable[ModelInfo], offer: bool = True) -> str:
    """A line over a result for encoders that have never seen a picture of this kind; "" for none.
    offer: with a button for the bundled encoder that has seen photographs, if it is there; `demos.ui.page` listens to
    it.
    """
    button = ""
    if offer and S14 in bundled.names():
        button = f'<button type="button">Ask {S14}, which knows photographs</button>'
    lines = []
    for info in {info.name: info for info in infos}.values():
        seen = f"has seen {' and '.join(info.knows)} only" if info.knows else "has seen other pictures only"
        text = f"{escape(info.name)} {seen}, and this looks like none of them: what it shows here is no answer."
        lines.append(f'<p class="tips-unseen" role="note"><span>{text}</span>{button}</p>')
    return "".join(lines)
