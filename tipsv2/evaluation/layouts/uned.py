"""UnED, eight domains of instance retrieval (Ypsilantis et al., ICCV 2023, arXiv 2309.01858), as its authors pack it.

    python -m tipsv2 evaluate instances --data uned:/data/uned --domains cars,sop --model opentips-nano

Their info_files/DOMAIN/test.json lists the queries, [{"path": "cars/car_ims/000001.jpg", "class_id": 7}, ...], paths
below images/; index.json lists what they are looked for in. Of cars, food2k, inat, rp2k and sop there is none: the
queries are their own index. The tree and the fields are those of github.com/nikosips/Universal-Image-Embeddings
(README, prepare_data.sh, convert_to_tfrecord_from_file.py); no copy of the data was at hand.
A class is called DOMAIN/class_id. A query may have several class_ids: an image of any of them is a right answer.
"""

from __future__ import annotations

import re
from pathlib import Path

from tipsv2.evaluation.layouts import Layout, Sample, Split, known
from tipsv2.evaluation.layouts.label_files import part_of
from tipsv2.labelled.annotations import Images, read_json, take

DOMAINS = ("food2k", "cars", "sop", "inshop", "inat", "met", "gldv2", "rp2k")
OWN_INDEX = ("cars", "food2k", "inat", "rp2k", "sop")  # the queries are what they are looked for in


def open_uned(task: str, root: Path, part: str) -> Split:
    """The queries ("test") or the index ("index") of every domain whose images are there."""
    part_of(part, {"test": "test", "index": "index"})
    samples: list[Sample] = []
    classes: dict[str, int] = {}
    for domain in DOMAINS:
        path, index = (root / "info_files" / domain / f"{name}.json" for name in ("test", "index"))
        if part == "index" and index.is_file():
            path = index
        rows = read_json(path) if path.is_file() else []
        if not isinstance(rows, list):
            raise ValueError(f"'{path}' is not a list of images: is it the file of another data set?")
        images = Images(root / "images", path)
        if not rows or not images.has(str(take(rows[0], "path", path)).split("/")[0]):
            continue  # the lists of all domains come in one archive, their images do not
        if domain not in OWN_INDEX and not index.is_file():
            raise ValueError(f"'{index}' is missing, the list of {domain}'s index: unpack info_files.zip again.")
        for row in rows:
            name = take(row, "path", path)
            name = name if images.has(name) else unzipped(name)
            named = take(row, "class_id", path)
            keys = [f"{domain}/{number}" for number in (named if isinstance(named, list) else [named])]
            truth = tuple(classes.setdefault(key, len(classes)) for key in keys)
            samples.append(Sample(name, images(name), known(truth)))
    return Split("uned", part, samples, tuple(classes))


def unzipped(name: str) -> str:
    """A name as unzip writes it where it cannot write other alphabets: RP2K's folders are Chinese."""
    return re.sub(r"[^\x00-\x7f]", lambda letter: f"#U{ord(letter[0]):04x}", name)


LAYOUTS = (
    Layout(
        name="uned",
        title="UnED",
        tasks=("instances",),
        part="test",
        tree="  info_files/cars/test.json, info_files/met/test.json, info_files/met/index.json ...\n"
        "  images/cars/car_ims/..., images/met/MET/... (the paths of the lists)",
        source="https://cmp.felk.cvut.cz/univ_emb (info_files.zip, and where each domain's images are)",
        marks=("info_files", "images"),
        open=open_uned,
    ),
)
