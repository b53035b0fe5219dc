"""Instance retrieval: find the other pictures of this very thing; recall at 1 and mean average precision.

    python -m tipsv2 evaluate instances --data scenes:style --model opentips-nano
    python -m tipsv2 evaluate instances --data uned:/data/uned --domains cars,sop --out out/uned

Every query ranks the whole index by cosine. An image that is both is left out of its own ranking. As in UnED
(arXiv 2309.01858) the index is that of all domains together, so that a car may be lost among shoes, or with --separate
the query's own domain alone; the numbers are means over the domains, each domain's stand beside them. The paper's
other measure, the modified mean precision at 5, is not made.
On the bundled scenes the queries are single drawings, see `tipsv2.evaluation.shared.drawings`: with scenes:val the
other drawing of the same thing is looked for among all of them, with scenes:style the thing in the styles seen in
training. Ties count against the encoder.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from tipsv2 import scenes
from tipsv2.collections.parts import limited
from tipsv2.evaluation.layouts import SCENES, SampleLike, Split, open_data
from tipsv2.evaluation.shared import embeddings
from tipsv2.evaluation.shared.drawings import Drawing, number_of
from tipsv2.evaluation.shared.embeddings import embed_images, keep
from tipsv2.evaluation.shared.failures import Query, worst, write_queries
from tipsv2.evaluation.shared.ranking import Ranking, rank
from tipsv2.evaluation.shared.splits import network_side
from tipsv2.records import bootstrap, fingerprint
from tipsv2.scenes.splits import is_scenes, split_of

if TYPE_CHECKING:
    from tipsv2.network.encoder import Encoder

SHOWN = 4  # finds in the picture


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--domains", type=_names, default=(), metavar="NAMES", help="only these of UnED, cars,sop (default: all)"
    )
    parser.add_argument("--separate", action="store_true", help="each domain's queries in its own index only")
    embeddings.add_arguments(parser)


def evaluate(
    encoder: Encoder,
    data: str = "scenes:val",
    resolution: int | None = None,
    domains: Sequence[str] = (),
    separate: bool = False,
    cls: str = "cls",
    shape: str = "aspect",
    limit: int | None = None,
    out: Path | None = None,
    progress: bool = True,
) -> dict:
    """Score an encoder on finding instances again.

    Args: as of `classification.evaluate`, and
        domains: which of the data set's domains; default all of them.
        separate: rank each query among its own domain's index only.
        cls: the embedding that is compared.
        limit: only the first queries of each domain; the index stays whole.

    Returns: {"task", "data", "model", "resolution", "shape", "features", "index": "merged" or "separate", "queries",
        "candidates", "r1", "map", "chance": {"r1"}, "interval": {"r1": [low, high]}, "domains": {"cars": {"queries",
        "candidates", "r1", "map", "chance"}, ...}, "fingerprint", "seconds"}.
    Raises ValueError for domains that are not there, a limit under 1, or a resolution not in whole patches.
    """
    resolution = network_side(encoder, resolution)
    test, index = open_instances(data, resolution)
    queries, candidates = _items(test), _items(index)
    present = list(dict.fromkeys(item.domain for item in queries))
    if lost := [domain for domain in domains if domain not in present]:
        raise ValueError(f"{data} has no domain '{lost[0]}': it has {', '.join(present)}.")
    chosen = list(domains) or present
    by_domain = {domain: [item for item in queries if item.domain == domain] for domain in chosen}
    by_domain = {domain: items[: limited(len(items), limit)] for domain, items in by_domain.items()}
    candidates = [item for item in candidates if item.domain in chosen]
    asked = [item for items in by_domain.values() for item in items]
    started = time.perf_counter()
    with keep(out, encoder, test, index, task="instances", resolution=resolution, shape=shape, cls=cls) as partial:
        given = (partial, resolution, shape, progress)
        memory = embed_images(encoder, [c.sample for c in candidates], *given, desc="index", tokens=(cls,))[cls]
        rows = embed_images(encoder, [q.sample for q in asked], *given, desc="queries", tokens=(cls,))[cls]
    rankings, scores, shown = {}, {}, []
    for domain, own in zip(chosen, rows.split([len(items) for items in by_domain.values()]), strict=True):
        among = [k for k, item in enumerate(candidates) if item.domain == domain or not separate]
        offered, items = [candidates[k] for k in among], by_domain[domain]
        rankings[domain], chance = _rank(own, memory[torch.tensor(among)], items, offered)
        scores[domain] = {
            "queries": len(items), "candidates": sum(item.domain == domain for item in offered),
            "r1": float((rankings[domain].first < 1).mean()), "map": float(rankings[domain].precision.mean()),
            "chance": chance,
        }  # fmt: skip
        for k in worst(rankings[domain].first):
            finds = [offered[n] for n in rankings[domain].nearest[k][:SHOWN]]
            row = Query(items[k].sample.image, items[k].text, [(find.sample.image, find.text) for find in finds])
            shown.append((rankings[domain].first[k], row))
    if out is not None:
        depths = np.array([depth for depth, _ in shown])
        write_queries(out / "worst_queries.png", [shown[k][1] for k in worst(depths)])
    means = {key: float(np.mean([row[key] for row in scores.values()])) for key in ("r1", "map", "chance")}
    low_high = _interval([ranking.first < 1 for ranking in rankings.values()])
    return {
        "task": "instances", "data": data, "model": encoder.info.name, "resolution": resolution, "shape": shape,
        "features": cls, "index": "separate" if separate else "merged", "queries": len(asked),
        "candidates": len(candidates), "r1": round(means["r1"], 4), "map": round(means["map"], 4),
        "chance": {"r1": round(means["chance"], 4)}, "interval": {"r1": low_high} if low_high else {},
        "domains": {domain: {key: round(value, 4) for key, value in row.items()} for domain, row in scores.items()},
        "fingerprint": fingerprint((item.sample.name for item in (*asked, *candidates)), test.classes),
        "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip


def open_instances(data: str, resolution: int) -> tuple[Split, Split]:
    """The queries and their index."""
    if not is_scenes(data):
        return open_data("instances", data), open_data("instances", data, "index")
    split = split_of(data, resolution)
    classes = tuple(f"{SCENES}/{scenes.nouns()[noun].name}" for noun in split.nouns)

    def shown(styles: Sequence[str]) -> list[Drawing]:
        places = [(k, noun, style) for k, noun in enumerate(split.nouns) for style in styles]
        return [Drawing(noun, style, number_of(data), (k,), resolution) for k, noun, style in places]

    queries = Split(SCENES, "queries", shown(split.styles), classes)
    return queries, Split(SCENES, "index", shown(scenes.SEEN_STYLES), classes)


class Item(NamedTuple):
    """A sample with what it shows by name, for the numbers of two parts need not agree."""

    sample: SampleLike
    names: tuple[str, ...]

    @property
    def domain(self) -> str:
        return self.names[0].partition("/")[0]

    @property
    def text(self) -> str:
        return ", ".join(self.names)


def _items(split: Split) -> list[Item]:
    return [Item(sample, tuple(split.classes[number] for number in sample.truth())) for sample in split.samples]


def _rank(
    rows: torch.Tensor, memory: torch.Tensor, queries: Sequence[Item], candidates: Sequence[Item]
) -> tuple[Ranking, float]:
    """How the candidates come for the queries, and what recall at 1 a random order has."""
    places: dict[str, list[int]] = {}
    for number, item in enumerate(candidates):
        for name in item.names:
            places.setdefault(name, []).append(number)
    where = {item.sample.name: number for number, item in enumerate(candidates)}
    own = np.array([where.get(item.sample.name, -1) for item in queries])
    answers = [np.unique([n for name in item.names for n in places.get(name, ())]).astype(int) for item in queries]
    others = len(candidates) - (own >= 0)
    right = np.array([(answer != itself).sum() for answer, itself in zip(answers, own, strict=True)])
    return rank(rows, memory, answers, own, precision=True), float((right / np.maximum(others, 1)).mean())


def _interval(hits: Sequence[np.ndarray]) -> list[float] | None:
    """The 95 % interval of the mean over domains of the share of hits, the queries of all drawn anew."""
    domain, hit = np.repeat(np.arange(len(hits)), [len(own) for own in hits]), np.concatenate(hits)
    if len(hit) < 2:
        return None

    def share(weights: np.ndarray) -> float:
        drawn = np.bincount(domain, weights)
        return float((np.bincount(domain, weights * hit)[drawn > 0] / drawn[drawn > 0]).mean())

    return [round(bound, 4) for bound in bootstrap(len(hit), share)]


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
