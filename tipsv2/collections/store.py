"""A folder of embeddings: written a shard at a time, whole or not at all; read as ids and arrays.

    ids, arrays = read_embeddings("out")            # N names; arrays["cls"] and ["caption_cls"] [N, D], unit rows

    manifest.json                 model, data and settings they were made with; once complete, how many there are
    images/000000-000000.parquet  a row an image: id, name, shard, row, height, width, cls, caption_cls
    captions/...parquet           a row a caption: id of its image, role, text, vector
    patches/...safetensors        id -> patch grid [h, w, D] in float16
    unreadable/...jsonl           what could not be used and was left out, and why
    pieces/                       while it is made: of parts that are not finished (tipsv2.collections.embedding_pieces)

The two numbers are the shard of the data and the part of it; the file in images/ is written last, so where it is, the
others are. "-last" marks the end of a shard.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tipsv2.collections.parts import End
from tipsv2.collections.sources import open_source

if TYPE_CHECKING:
    import datasets

VECTORS = ("cls", "caption_cls")
NAME = re.compile(r"(\d+)-(\d+)(-last)?\.parquet")
MANIFEST = "manifest.json"
DIGESTS = ("fingerprint", "weights")  # settings that say nothing to people
COUNTED = ("complete", "images", "captions", "unreadable")  # of the manifest; all else is fixed when it is made


@dataclass
class Part:
    """What a part of the data became. images and captions: a dict a row; unreadable: a dict a problem."""

    images: list[dict] = field(default_factory=list)
    captions: list[dict] = field(default_factory=list)
    patches: dict[str, np.ndarray] = field(default_factory=dict)
    unreadable: list[dict] = field(default_factory=list)


class Folder:
    """Embeddings being written into `path` by any number of workers, with the same settings or not at all."""

    def __init__(self, path: str | Path, settings: Mapping, about: Mapping):
        """settings: all that the embeddings depend on, JSON-able; about: further entries of the manifest.

        Raises ValueError where the folder holds something else, OSError where it cannot be written.
        """
        self.path = Path(path)
        manifest = {**about, **dict.fromkeys(COUNTED), "complete": False, "settings": dict(settings)}
        wanted = json.loads(json.dumps(manifest["settings"]))
        if self.path.is_file():
            raise ValueError(f"'{self.path}' is a file: choose a folder for --out.")
        # listed before the manifest is looked for: another worker may be making both
        others = [p for p in self.path.glob("*") if p.name[0] != "." and p.name != MANIFEST]
        if not (self.path / MANIFEST).exists():
            if others:
                raise ValueError(f"'{self.path}' holds other files and no {MANIFEST}: choose a new folder for --out.")
            self.write_file(MANIFEST, _json(manifest))
        self.manifest = read_manifest(self.path)
        before = self.manifest["settings"]
        if other := [key for key in {**before, **wanted} if before.get(key) != wanted.get(key)]:
            changes = [f"{key} {before.get(key)!r} and not {wanted.get(key)!r}" for key in other if key not in DIGESTS]
            if "weights" in other and "dtype" not in other:  # the digest is of the numbers as they are rounded
                changes.insert(0, f"the weights of another model ({self.manifest['model']})")
            raise ValueError(
                f"'{self.path}' holds embeddings with {', '.join(changes) or 'other rows by the same name'}: choose "
                "another --out, or give what it was made with."
            )

    def done(self) -> dict[tuple[int, int], bool]:
        """(shard, part) of what is there and whole -> whether it is the last of its shard."""
        return whole_parts(self.path, self.manifest["settings"])[0]

    def torn(self) -> dict[str, str]:
        """Files of parts that are not whole -> what is wrong with them."""
        return whole_parts(self.path, self.manifest["settings"])[1]

    def finished(self) -> set[int]:
        """The shards of which every part is there."""
        done = self.done()
        ends = {shard: part for (shard, part), last in done.items() if last}
        return {shard for shard, end in ends.items() if all((shard, part) in done for part in range(end + 1))}

    def write(self, end: End, part: Part) -> None:
        """Write a part. Raises OSError, one sentence, where the disk does not take it; the part is not done then."""
        import pyarrow as pa
        from safetensors.numpy import save

        width, settings = self.manifest["width"], self.manifest["settings"]
        vector = pa.list_(pa.float32(), width)
        name = f"{end.shard:06d}-{end.part:06d}" + "-last" * end.last
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in part.unreadable)
        (self.path / "unreadable" / f"{name}.jsonl").unlink(missing_ok=True)  # of a try that was killed later on
        if lines:
            self.write_file(f"unreadable/{name}.jsonl", lines.encode("utf-8", "replace"))
        if settings["patches"]:
            self.write_file(f"patches/{name}.safetensors", save(part.patches))
        if settings["captions"]:
            columns = {"id": pa.string(), "role": pa.string(), "text": pa.string(), "vector": vector}
            self.write_file(f"captions/{name}.parquet", _parquet(part.captions, columns))
        columns = {"id": pa.string(), "name": pa.string(), "shard": pa.int32(), "row": pa.int64()}
        columns |= {"height": pa.int32(), "width": pa.int32(), **dict.fromkeys(VECTORS, vector)}
        self.write_file(f"images/{name}.parquet", _parquet(part.images, columns))

    def reopen(self, shards: int) -> None:
        """Do not call complete what lacks a part."""
        if self.manifest["complete"] and len(self.finished()) != shards:
            self.manifest |= {"complete": False}
            self.write_file(MANIFEST, _json(self.manifest))

    def close(self, shards: int) -> dict:
        """The manifest; where all `shards` are finished, with their counts."""
        from pyarrow.parquet import read_metadata

        if len(self.finished()) == shards:
            counts = {
                kind: sum(read_metadata(file).num_rows for file in (self.path / kind).glob("*.parquet"))
                for kind in ("images", "captions")
            }
            lost = (file.read_bytes().count(b"\n") for file in (self.path / "unreadable").glob("*.jsonl"))
            self.manifest |= {"complete": True, **counts, "unreadable": sum(lost)}
            self.write_file(MANIFEST, _json(self.manifest))
        return self.manifest

    def write_file(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all, whoever else writes the same one now or was killed while doing so."""
        path, waiting, flat = self.path / name, self.path / ".writing", name.replace("/", "-")
        part = waiting / f"{flat}.{socket.gethostname()}-{os.getpid()}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            waiting.mkdir(exist_ok=True)
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except OSError as error:
            part.unlink(missing_ok=True)
            if isinstance(error, FileNotFoundError) and path.exists():  # another worker has written it in between
                return
            reason = error.strerror or error
            raise OSError(f"'{path}' cannot be written ({reason}): mend that, and the same command goes on.") from error
        for left in waiting.glob(f"{flat}.*"):  # by workers that were killed
            left.unlink(missing_ok=True)


def read_manifest(folder: str | Path) -> dict:
    """manifest.json of a folder of embeddings. Raises ValueError where it is not one."""
    file = Path(folder) / MANIFEST
    try:
        manifest = json.loads(file.read_text("utf-8"))
        if isinstance(manifest["settings"], dict) and isinstance(manifest["width"], int):
            return manifest
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise ValueError(f"'{folder}' has no readable {MANIFEST}: give a folder that python -m tipsv2 embed has written.")


def whole_parts(folder: Path, settings: Mapping) -> tuple[dict[tuple[int, int], bool], dict[str, str]]:
    """(shard, part) of the parts that are there and whole -> whether it is the last of its shard; and the files that
    make others torn -> what is wrong. Every file's end is read, or where a table ends, its length.
    """
    done: dict[tuple[int, int], bool] = {}
    torn: dict[str, str] = {}
    for file in sorted((folder / "images").glob("*.parquet")):
        if not (match := NAME.fullmatch(file.name)):
            continue
        needed = [file]
        needed += [folder / "captions" / file.name] if settings["captions"] else []
        needed += [folder / "patches" / f"{file.stem}.safetensors"] if settings["patches"] else []
        wrong = {str(path.relative_to(folder)): reason for path in needed if (reason := _torn(path))}
        torn |= wrong
        if not wrong:
            done[int(match[1]), int(match[2])] = bool(match[3])
    return done, torn


def _torn(file: Path) -> str:
    """Why a parquet or safetensors file cannot be read; "" where it can, as far as its own record of itself says."""
    import pyarrow as pa
    from pyarrow.parquet import read_metadata
    from safetensors import SafetensorError, safe_open

    try:
        if file.suffix == ".parquet":
            read_metadata(file)
        else:
            with safe_open(file, framework="numpy"):
                pass
    except FileNotFoundError:
        return "it is missing"
    except (OSError, pa.ArrowException, SafetensorError) as error:
        return str(error).strip().splitlines()[0].rstrip(".")[:100]
    return ""


def lacking(folder: str | Path) -> str:
    """One sentence on the parts that a folder of embeddings does not have, or has torn; "" where it has them all.

    Raises ValueError where it is not such a folder.
    """
    manifest = read_manifest(folder)
    settings = manifest["settings"]
    done, torn = whole_parts(Path(folder), settings)
    if settings["rows"] is not None:
        total = -(-settings["rows"] // settings["shard_size"])
        missing = total - len(done)
        what = f"{missing} of {total} parts"
    else:
        ends = {shard: part for (shard, part), last in done.items() if last}
        finished = [s for s, end in ends.items() if all((s, part) in done for part in range(end + 1))]
        missing = settings["shards"] - len(finished)
        what = f"parts of {missing} of {settings['shards']} shards"
    if not missing:
        return ""
    named = f" ({', '.join(f'{file}: {why}' for file, why in torn.items())})" if torn else ""
    return f"'{folder}' lacks {what}{named}; the command that made it goes on: {manifest.get('command', 'embed')}"


def open_table(folder: str | Path, kind: str = "images") -> datasets.Dataset:
    """The rows of images/ or captions/ as one `datasets.Dataset`, memory-mapped: parquet becomes Arrow files in the
    cache of `datasets` when it is first read. Raises ValueError where there are none, or one is torn.
    """
    manifest = read_manifest(folder)
    for file, reason in whole_parts(Path(folder), manifest["settings"])[1].items():
        raise ValueError(
            f"'{Path(folder) / file}' is torn ({reason}): the command that made it mends it: "
            f"{manifest.get('command', 'embed')}"
        )
    if not any((Path(folder) / kind).glob("*.parquet")):
        why = "no shard is finished" if kind == "images" else f"it was made without --{kind}"
        raise ValueError(f"'{folder}' holds no {kind} yet: {why}.")
    return open_source(Path(folder) / kind).data


def read_embeddings(folder: str | Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """The ids of N images and {"cls": [N, D], "caption_cls": [N, D]} float32 with rows of length one, in the order of
    the data. Raises ValueError where there are none.
    """
    table = open_table(folder)
    return table["id"][:], {name: np.concatenate(list(chunks(table, name))) for name in VECTORS}


def read_captions(folder: str | Path) -> tuple[list[dict[str, str]], np.ndarray]:
    """N captions as {"id": of the image, "role", "text"}, and their vectors [N, D] float32 with rows of length one."""
    table = open_table(folder, "captions")
    return table.remove_columns("vector").to_list(), np.concatenate(list(chunks(table, "vector")))


def read_patches(folder: str | Path, image: Mapping) -> np.ndarray:
    """The patch grid [h, w, D] float16 of an image, given as its row of `open_table`. Raises ValueError without one."""
    from safetensors import safe_open

    part = image["row"] // read_manifest(folder)["settings"]["shard_size"]
    files = list((Path(folder) / "patches").glob(f"{image['shard']:06d}-{part:06d}*.safetensors"))
    if not files:
        raise ValueError(f"'{folder}' holds no patch grids: it was made without --patches.")
    with safe_open(files[0], framework="numpy") as file:
        return file.get_tensor(image["id"])


def chunks(table: datasets.Dataset, column: str) -> Iterator[np.ndarray]:
    """A column of vectors as arrays [n, D], in order, without copies: what is read comes from the disk as needed."""
    for chunk in table.data.column(column).chunks:
        yield chunk.flatten().to_numpy().reshape(len(chunk), -1)


def _parquet(rows: Sequence[Mapping], columns: Mapping) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = []
    for name, kind in columns.items():
        values = [row[name] for row in rows]
        if pa.types.is_fixed_size_list(kind):  # from one array: a list of lists would be a Python object a number
            flat = np.stack(values).ravel() if values else np.empty(0, np.float32)
            arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float32()), kind.list_size))
        elif pa.types.is_string(kind):  # a file's name may not be valid text
            arrays.append(pa.array([value.encode("utf-8", "replace").decode() for value in values], kind))
        else:
            arrays.append(pa.array(values, kind))
    out = pa.BufferOutputStream()
    pq.write_table(pa.table(arrays, schema=pa.schema(list(columns.items()))), out, use_dictionary=["shard"])
    return out.getvalue().to_pybytes()


def _json(content: dict) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "replace")
