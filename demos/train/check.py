"""Behind the Train tab: `python -m train check` on what a visitor wants to train on, its report taken apart.

checked = check("photos", [], "photos.zip", limit=5000)
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from demos.backend.asking import REQUESTER
from demos.backend.turns import still_there
from demos.train.process import ROOT, own_environment
from demos.train.state import BAR, TOKEN

if TYPE_CHECKING:
    from PIL import Image

SECONDS = 300
LIMITS = {"zip": 0, "folder": 5000, "hub": 200}  # pairs looked at, 0 for all; a stream comes over the network


@dataclass(frozen=True)
class Checked:
    """rows and usable pairs; facts: (what, found), as printed; problems: a sentence each; refusal: why it cannot be
    trained on, "" if it can; picture: some pairs as one image.
    """

    name: str
    rows: int
    usable: int
    facts: tuple[tuple[str, str], ...]
    problems: tuple[str, ...]
    refusal: str
    picture: Image.Image | None
    limit: int


def check(source: str, fields: Sequence[str], called: str, limit: int, token: bool = True) -> Checked:
    """Run the command and read its report. called: what the visitor calls these data; token: as in `own_environment`.
    Raises ValueError if it gives none.
    """
    from PIL import Image

    with tempfile.TemporaryDirectory(prefix="tips-check-") as scratch:
        out = Path(scratch) / "sample.png"
        arguments = ["check", source, "--out", str(out), "--limit", str(limit), *fields]
        environment = own_environment(token) | {"HF_DATASETS_CACHE": str(Path(scratch) / "cache"), "TQDM_DISABLE": "1"}
        status, stdout, stderr = _ran([sys.executable, "-m", "train", *arguments], environment)
        picture = None
        if out.is_file():
            with Image.open(out) as image:
                picture = image.convert("RGB")
    if status is None:
        raise ValueError(
            f"{called} was not gone through in {SECONDS // 60} minutes: `python -m train check` has no such limit."
        )
    printed, said = (_plain(stream, source, called) for stream in (stdout, stderr))
    refusal = said.strip().rpartition("\n")[2]
    if (report := _taken_apart(printed)) is None:
        raise ValueError(refusal if status == 2 and refusal else f"{called} could not be checked.")
    rows, usable, facts, problems = report
    return Checked(called, rows, usable, facts, problems, refusal if status else "", picture, limit)


def _ran(command: list[str], environment: dict[str, str]) -> tuple[int | None, bytes, bytes]:
    """-> (exit status, what it printed, what it said), the status None after SECONDS. Raises Gone if the client leaves;
    either way nothing goes on.
    """
    asker, end = REQUESTER.get(), time.monotonic() + SECONDS
    streams = dict(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with subprocess.Popen(command, cwd=ROOT, env=environment, **streams) as child:
        try:
            while True:
                try:
                    stdout, stderr = child.communicate(timeout=1)
                    return child.returncode, stdout, stderr
                except subprocess.TimeoutExpired:
                    still_there(asker)
                    if time.monotonic() > end:
                        return None, b"", b""
        finally:
            child.kill()  # of one that has ended nothing is left to kill


def _plain(stream: bytes, source: str, called: str) -> str:
    """What the command printed, the place of unpacked data and anything like a Hub token left out."""
    text = "\n".join(
        line for line in re.split(r"[\r\n]+", stream.decode("utf-8", "replace")) if line and not BAR.search(line)
    )
    for place in (str(ROOT / source), source):
        text = text.replace(place + os.sep, "").replace(place, called)
    return TOKEN.sub("hf_…", text)


def _taken_apart(printed: str):
    """-> (rows, usable, facts, problems), or None if this is no report (train/tools/check.py writes it)."""
    first, _, rest = printed.partition("\n")
    counts = re.search(r": (\d+) rows, (\d+) usable pairs", first)
    if not counts:
        return None
    facts, problems = [], []
    for line in rest.split("\n"):
        what, separator, text = line.partition(": ")
        if line.startswith("  "):
            problems.append(line.strip())
        elif separator and what != "unusable":
            facts.append((what, text))
    return int(counts[1]), int(counts[2]), tuple(facts), tuple(problems)
