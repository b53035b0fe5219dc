"""Text as people's programs save it: which encoding, which separator, lists written into a cell. Light.

What is not UTF-8 is recognised or refused, never read with replacement characters: those would be learned.
"""

from __future__ import annotations

import ast
import codecs
import csv
import io
import json
import re
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
LOOKED_AT = 50  # rows of a table that its separator is found from
CHUNK = 1 << 20
BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
NAMES = {"utf-16": "UTF-16", "utf-16-le": "UTF-16", "utf-16-be": "UTF-16", "cp1252": "Windows-1252"}
UTF8_CHARACTER = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
LONGEST_LIST = 100_000  # characters of a cell
NO_TEXT = {  # how files begin that are often renamed to a table, and what to do with them
    b"PK\x03\x04": "it is a spreadsheet (.xlsx, .ods) or another zip: save it as CSV where it was written",
    b"\xd0\xcf\x11\xe0": "it is an old spreadsheet (.xls): save it as CSV where it was written",
    b"\x1f\x8b": "it is packed with gzip: unpack it",
    b"PAR1": "it is parquet: name it .parquet",
}


def decode(data: bytes) -> str:
    """Text of any encoding that `encoding_of` knows. Raises ValueError, half a sentence, for others."""
    return data.decode(encoding_of(lambda: iter([data])))


def file_encoding(path: Path) -> str:
    """As `encoding_of` for a file. Raises ValueError, one sentence, and OSError.

    A file that only its name makes a table, as a spreadsheet that was renamed, is refused as what it is.
    """

    def chunks() -> Iterator[bytes]:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk

    head = next(chunks(), b"")
    for start, advice in NO_TEXT.items():
        if head.startswith(start):
            raise ValueError(f"{path}: {advice}.")
    try:
        return encoding_of(chunks)
    except ValueError as error:
        raise ValueError(f"{path}: {error}: save it as UTF-8.") from None


def encoding_of(chunks: Callable[[], Iterator[bytes]]) -> str:
    """The codec of some text: "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be" or "cp1252".

    chunks: a function that gives the text's bytes piece by piece, from the start each time it is called.
    UTF-16 is known by its mark, or by zeros in every second byte. Bytes that UTF-8 does not allow are Windows-1252 if
    nothing else in the text looks like UTF-8: a UTF-8 text with a broken character is none of both. Raises ValueError.
    """
    head = next(chunks(), b"")
    codec = next((codec for mark, codec in BOMS.items() if head.startswith(mark)), "")
    if not codec:
        start = head[:4000]
        even, odd = start[::2].count(0), start[1::2].count(0)
        codec = "utf-8" if 10 * max(even, odd) <= 4 * len(start[::2]) else "utf-16-le" if odd > even else "utf-16-be"
    if not _fails(codec, chunks()):
        return codec
    if codec == "utf-8" and not any(map(UTF8_CHARACTER.search, chunks())) and not _fails("cp1252", chunks()):
        return "cp1252"
    if codec == "utf-8":
        raise ValueError("it is neither UTF-8 nor UTF-16 nor Windows-1252")
    raise ValueError(f"it begins as {codec.upper()} and does not go on as that")


def _fails(codec: str, chunks: Iterator[bytes]) -> bool:
    decoder = codecs.getincrementaldecoder(codec)()
    try:
        for chunk in chunks:
            decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return True
    return False


def separator_of(path: Path, codec: str, usual: str) -> str:
    """The separator of a table's cells: of SEPARATORS the one by which the first rows have the most cells, as many as
    the header and more than one; `usual` where none does better.
    """
    csv.field_size_limit(10**9)

    def cells(separator: str) -> int:
        with path.open(encoding=codec, newline="") as file:
            rows = csv.reader(file, delimiter=separator)
            header = len(next(rows, []))
            try:
                even = all(len(row) in (0, header) for _, row in zip(range(LOOKED_AT), rows, strict=False))
            except csv.Error:
                even = False
        return 2 * header + even if header > 1 else 0

    return max((usual, *SEPARATORS), key=cells)


def listed(cell: str) -> tuple[str, ...] | None:
    """The texts of a list that was written into a cell: JSON, Python's own, or numpy's without commas. None for any
    other text, also one in brackets.
    """
    cell = cell.strip()
    if not (cell.startswith("[") and cell.endswith("]") and len(cell) <= LONGEST_LIST):
        return None
    try:
        values = json.loads(cell)
        return tuple(values) if isinstance(values, list) and values and all(map(_is_text, values)) else None
    except (ValueError, RecursionError):
        pass
    texts = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(cell).readline):
            if token.type == tokenize.STRING:
                texts.append(ast.literal_eval(token.string))
            elif token.string.strip() and token.string not in "[],":
                return None
    except (tokenize.TokenError, SyntaxError, ValueError):
        return None
    return tuple(texts) if texts and all(map(_is_text, texts)) else None


def _is_text(value: object) -> bool:
    return isinstance(value, str)
