"""Makes the files of assets/scenes from public emoji packages: python -m tipsv2.scenes.build --npm FOLDER

FOLDER is where this was run (it then holds node_modules), with the versions the committed files were made from:

    npm install --ignore-scripts @lobehub/fluent-emoji-3d@1.1.0 @iconify-json/noto@1.2.9 \\
        @iconify-json/twemoji@1.2.5 emojibase-data@17.0.0

and `pip install resvg_py` (0.5.0) gives the rasteriser of the vector styles, which nothing else here needs. Fluent
comes as 256 px WebP, Noto and Twemoji as SVG; labels and tags come from emojibase, whose source is Unicode CLDR.
Only needed again after a change of vocabulary.py.
"""

import argparse
import json
import re
from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from .sprites import ASSETS, STYLES
from .translations import CORRECTIONS
from .vocabulary import NOUNS

CELL = 160  # pixels; a sprite is drawn at most about this large in a 224 px scene
MARGIN = 1  # empty pixels around a drawing, so that turning or shrinking it bleeds into no neighbour
COLUMNS = 24
RASTER = 320  # pixels at which SVG is drawn before it is cropped and brought to the cell
QUALITY = 88  # WebP colour quality; alpha is kept exactly
LANGUAGES = tuple("de es fr it pt nl pl sv da ru uk ja ko zh hi th vi".split())
MAX_KEYWORDS = 8
MAX_SHARED = 6  # a tag on more emoji than this ("animal", "vegetable", "tool") says too little about one of them
NOT_KEYWORDS = {"face", "person", "pet", "sport", "clothing", "emoji"}


def rasters(npm: Path, style: str, codes: list[str]) -> list[Image.Image]:
    """RGBA drawings of the codes in one style, in order; ValueError naming the code that the style lacks."""
    if style == "fluent":
        files = {plain_code(path.stem): path for path in (npm / "@lobehub/fluent-emoji-3d/assets").glob("*.webp")}
        return [Image.open(_found(files, code, style)).convert("RGBA") for code in codes]
    import resvg_py

    folder = npm / "@iconify-json" / style
    names = {plain_code(code): name for code, name in _json(folder / "chars.json").items()}
    icons = _json(folder / "icons.json")
    side = icons.get("height", 16)
    images = []
    for code in codes:
        body = icons["icons"][_found(names, code, style)]["body"]
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="0 0 {side} {side}">{body}</svg>'
        )
        png = resvg_py.svg_to_bytes(svg_string=svg, width=RASTER, height=RASTER, skip_system_fonts=True)
        images.append(Image.open(BytesIO(bytes(png))).convert("RGBA"))
    return images


def fit_cell(image: Image.Image) -> Image.Image:
    """Crop to what is visible, scale so that the longer side fills the cell but for the margin, and centre."""
    visible = np.asarray(image)[..., 3] > 8
    rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
    box = image.crop((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    scale = (CELL - 2 * MARGIN) / max(box.size)
    size = tuple(max(1, round(side * scale)) for side in box.size)
    cell = Image.new("RGBA", (CELL, CELL))
    cell.paste(box.resize(size, Image.Resampling.LANCZOS), ((CELL - size[0]) // 2, (CELL - size[1]) // 2))
    return cell


def write_atlas(images: list[Image.Image], path: Path) -> None:
    atlas = Image.new("RGBA", (COLUMNS * CELL, -(-len(images) // COLUMNS) * CELL))
    for index, image in enumerate(images):
        atlas.paste(fit_cell(image), (index % COLUMNS * CELL, index // COLUMNS * CELL))
    atlas.save(path, quality=QUALITY, alpha_quality=100, method=6)


def keywords(npm: Path) -> dict[str, list[str]]:
    """English words for each noun, from the labels and tags of its emoji, the most telling first.

    None is the name or plural of any noun, so that a caption made of keywords never names another one.
    """
    entries = {plain_code(entry["hexcode"]): entry for entry in _json(npm / "emojibase-data/en/data.json")}
    shared = Counter(tag.lower() for entry in entries.values() for tag in entry.get("tags", ()))
    taken = {form.lower() for _, name, plural, _ in rows() for form in (name, plural)}
    found = {}
    for category, name, _, codes in rows():
        labels = [plain_label(entries[code]["label"]) for code in codes]
        tags = [tag for code in codes for tag in entries[code].get("tags", ())]
        words = []
        for word in (*labels, *sorted(tags, key=lambda tag: shared[tag.lower()])):
            word = word.lower().replace("’", "'")
            plain = re.fullmatch(r"[a-z][a-z' -]{2,}", word)
            if not plain or word in taken or word in NOT_KEYWORDS or word == category or word in words:
                continue
            if shared[word] <= MAX_SHARED and word not in name.lower().split():
                words.append(word)
        found[name] = words[:MAX_KEYWORDS]
    return found


def translations(npm: Path) -> dict[str, dict[str, str]]:
    """The names in LANGUAGES: the Unicode label of the first emoji, or what translations.py has instead."""
    found = {name: {} for _, name, _, _ in rows()}
    for language in LANGUAGES:
        labels = {
            plain_code(entry["hexcode"]): entry["label"]
            for entry in _json(npm / "emojibase-data" / language / "data.json")
        }
        for _, name, _, codes in rows():
            correction = CORRECTIONS.get(name, {}).get(language)
            found[name][language] = correction or plain_label(labels[codes[0]])
    return found


def rows() -> list[tuple[str, str, str, list[str]]]:
    """(category, name, plural, codes) of every noun, in order."""
    return [
        (category, name, plural, codes.split()) for category, table in NOUNS.items() for name, plural, codes in table
    ]


def plain_code(code: str) -> str:
    """Upper case, without the variation selector that some packages write and others leave out."""
    return "-".join(part for part in code.upper().split("-") if part != "FE0F")


def plain_label(label: str) -> str:
    """The first of several readings, without what stands in brackets."""
    return re.split(r"[,،、;/]", re.sub(r"\s*[(（\[].*?[)）\]]", "", label))[0].strip()


def _json(path: Path) -> dict | list:
    if not path.is_file():
        raise SystemExit(f"{path} is missing: --npm must name the folder where the npm install of --help was run")
    return json.loads(path.read_text(encoding="utf-8"))


def _found(table: dict, code: str, style: str):
    if code not in table:
        raise ValueError(f"vocabulary.py: the style {style} has no drawing {code}, take another code or noun")
    return table[code]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tipsv2.scenes.build",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python -m tipsv2.scenes.build --npm ~/emoji",
    )
    parser.add_argument("--npm", type=Path, required=True, metavar="FOLDER", help="holds node_modules, see above")
    parser.add_argument("--out", type=Path, default=ASSETS, metavar="FOLDER", help="default: assets/scenes")
    options = parser.parse_args()
    npm = options.npm.expanduser() / "node_modules"
    options.out.mkdir(parents=True, exist_ok=True)

    words, names = keywords(npm), translations(npm)
    texts = ",\n".join(
        f"{json.dumps(name)}: "
        + json.dumps({"keywords": words[name], "translations": names[name]}, ensure_ascii=False)
        for _, name, _, _ in rows()
    )
    # one line per noun, so that a change of one noun is a change of one line
    head = f'"cell": {CELL}, "columns": {COLUMNS}'
    (options.out / "names.json").write_text(f'{{{head}, "nouns": {{\n{texts}\n}}}}\n', encoding="utf-8")

    codes = [code for *_, codes in rows() for code in codes]
    for style in STYLES:
        path = options.out / f"{style}.webp"
        write_atlas(rasters(npm, style, codes), path)
        print(f"{path.name}: {len(rows())} nouns, {len(codes)} drawings, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
