"""The rows of a folder of embeddings that are nearest to a query: opened once, then asked any number of times.

    nearest = Nearest("embedded")
    rows, cosines = nearest.find(query, top=10)        # exactly those of a product with every row

Many rows are first compared by a copy in eight bits a number (`quick/` in the folder, made when it is first opened),
which is a quarter of what has to be read. How far its cosines can be from the true ones is known, so the rows that may
be among the best are, and only they are compared in full.

Of a row x = s c + e with codes c in -127..127, its scale s and an error e, and a query q that is rounded to q': the
cosine x q differs from s c q' by at most |e| |q| + |x - e| |q - q'|. The greatest |e| is measured when the copy is
made; the product itself rounds to bfloat16.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tipsv2.collections.store import VECTORS, chunks, open_table
from tipsv2.files import whole_folder
from tipsv2.records import fingerprint

if TYPE_CHECKING:
    import torch

PIECE = 65_536  # rows multiplied at once in full
QUICK_FROM = 200_000  # rows: fewer are multiplied in full as fast
QUICK_PIECE = 1 << 20  # rows compared at once by their copy, so that memory does not grow with the folder
GROUP = 64  # rows of which the best is looked for first
ALIGNED = 64  # codes of a row, the last ones zero: what the product in eight bits reads at once
ROUNDED = 2.0**-7  # of a bfloat16 sum, more than twice its rounding
SLACK = 1e-5  # of sums in float32


class Nearest:
    """Vectors [N, D] of a folder of embeddings, and the table of their images. quick: whether the copy is used;
    codes: its numbers [N, D'].
    """

    def __init__(self, folder: str | Path, vectors: str = "cls", quick: bool | None = None, progress: bool = False):
        """vectors: "cls", made to be compared with text, or "caption_cls". quick: whether to use, and first to make,
        the copy; by default where there are QUICK_FROM rows or more. progress: a bar while it is made.

        Raises ValueError where there is nothing to search, OSError where the copy cannot be written.
        """
        if vectors not in VECTORS:
            raise ValueError(f"There are no vectors '{vectors}': choose {' or '.join(VECTORS)}.")
        self.table = open_table(folder)
        self._full = list(chunks(self.table, vectors))
        self._starts = np.cumsum([0, *map(len, self._full)])
        self.quick = (len(self) >= QUICK_FROM if quick is None else quick) and _multiplies_bytes()
        if self.quick:
            place = Path(folder) / "quick" / vectors
            try:
                self.codes, self._scales, self._error = self._open(place, _state(folder), progress)
            except OSError:
                if quick:
                    raise
                self.quick = False  # nothing can be written there: every row, then

    def __len__(self) -> int:
        return int(self._starts[-1])

    def find(self, query: np.ndarray, top: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers and cosines of the `top` rows with the greatest cosine to `query` [D], of length one; best first,
        equal ones in the order of the data.
        """
        query = np.asarray(query, np.float32)
        best, scores = np.empty(0, np.int64), np.empty(0, np.float32)
        for rows, found in self._candidates(query, top) if self.quick else self._every(query):
            best, scores = np.concatenate([best, rows]), np.concatenate([scores, found])
            keep = np.lexsort((best, -scores))[:top]
            best, scores = best[keep], scores[keep]
        return best, scores

    def _every(self, query: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All rows with their cosines, in pieces."""
        for start, chunk in zip(self._starts, self._full, strict=False):
            for first in range(0, len(chunk), PIECE):
                found = chunk[first : first + PIECE] @ query
                yield np.arange(start + first, start + first + len(found)), found

    def _candidates(self, query: np.ndarray, top: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The rows that may be among the best of their piece or of those before it, with their cosines."""
        import torch

        rounded = torch.from_numpy(query).bfloat16()
        away = float(np.linalg.norm(query - rounded.float().numpy()))
        widened = torch.nn.functional.pad(rounded, (0, self.codes.shape[1] - len(query)))[None]
        length, best = float(np.linalg.norm(query)), np.empty(0, np.float32)
        for first in range(0, len(self), QUICK_PIECE):
            piece = slice(first, first + QUICK_PIECE)
            near = torch._weight_int8pack_mm(widened, self.codes[piece], self._scales[piece])[0].float()
            likely = _likely(near, top) + first
            exact = self._exact(likely, query)
            best = np.sort(np.concatenate([best, exact]))[::-1][:top]
            if len(best) == top:  # a row that is among the best has at least this cosine
                wrong = self._error * length + (1 + self._error) * away + SLACK
                least = (float(best[-1]) - wrong) * (1 - ROUNDED if best[-1] > wrong else 1 + ROUNDED)
                likely = np.flatnonzero(near.numpy() >= least) + first
                exact = self._exact(likely, query)
            yield likely, exact

    def _exact(self, rows: np.ndarray, query: np.ndarray) -> np.ndarray:
        """Cosines of some rows, in float64 so that equal rows are equal."""
        found, which = np.empty(len(rows), np.float32), np.searchsorted(self._starts, rows, side="right") - 1
        for first in range(0, len(rows), PIECE):
            for chunk in np.unique(which[first : first + PIECE]):
                mine = first + np.flatnonzero(which[first : first + PIECE] == chunk)
                found[mine] = self._full[chunk][rows[mine] - self._starts[chunk]].astype(np.float64) @ query
        return found

    def _open(self, place: Path, state: str, progress: bool) -> Any:
        """Codes [N, D'] int8 and scales [N] bfloat16 as torch has them, from the disk as needed, and the length of the
        largest error. Made where they are not there, or are of other rows.
        """
        import torch

        try:
            about = json.loads((place / "about.json").read_text())
        except (OSError, ValueError):
            about = {}
        if about.get("state") != state:
            about = self._write(place, state, progress)
        codes = np.memmap(place / "codes.int8", np.int8, "c", shape=(len(self), about["width"]))
        scales = torch.from_numpy(np.fromfile(place / "scales.float32", np.float32))
        return torch.from_numpy(codes), scales.bfloat16(), about["error"]

    def _write(self, place: Path, state: str, progress: bool) -> dict:
        from tqdm.auto import tqdm

        width, error = self._full[0].shape[1], 0.0
        wide = -(-width // ALIGNED) * ALIGNED
        bar = tqdm(total=len(self), unit="row", desc="a quick copy to search", disable=not progress, leave=False)
        with bar, whole_folder(place) as part:
            with (part / "codes.int8").open("wb") as codes, (part / "scales.float32").open("wb") as scales:
                for chunk in self._full:
                    for first in range(0, len(chunk), PIECE):
                        rows = chunk[first : first + PIECE]
                        code, scale = in_eight_bits(rows)
                        away = np.linalg.norm(rows - scale[:, None] * code, axis=1)
                        error = max(error, float(away.max()))
                        codes.write(np.pad(code, ((0, 0), (0, wide - width))).tobytes())
                        scales.write(scale.tobytes())
                        bar.update(len(rows))
            about = {"state": state, "rows": len(self), "width": wide, "error": error}
            (part / "about.json").write_text(json.dumps(about) + "\n")
        return about


def _multiplies_bytes() -> bool:
    """Has this torch the product in eight bits? Its name is not a public one."""
    import torch

    return hasattr(torch, "_weight_int8pack_mm")


def _likely(near: torch.Tensor, top: int) -> np.ndarray:
    """Numbers of at least `top` rows of about the greatest value, or of all; a sort of all takes longer."""
    whole = near[: len(near) // GROUP * GROUP].view(-1, GROUP)
    if len(whole) <= 2 * top:
        return near.topk(min(2 * top, len(near))).indices.numpy()
    greatest = whole.amax(dim=1).topk(2 * top).indices
    return (greatest * GROUP + whole[greatest].argmax(dim=1)).numpy()


def in_eight_bits(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows [n, D] float32 as codes [n, D] int8 and scales [n] float32 that bfloat16 holds exactly: rows are nearly
    codes times scales.
    """
    scale = np.abs(rows).max(axis=1) / 127
    bits = np.maximum(scale, 1e-30).astype(np.float32).view(np.uint32)
    scale = ((bits + 0xFFFF) & 0xFFFF0000).astype(np.uint32).view(np.float32)  # up: no code leaves -127..127
    return np.rint(rows / scale[:, None]).astype(np.int8), scale


def _state(folder: str | Path) -> str:
    """Changes where the parts of a folder do."""
    files = sorted((Path(folder) / "images").glob("*.parquet"))
    return fingerprint([f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files])
