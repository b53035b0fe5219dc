"""Makes the files of assets/scenes from public emoji packages: python -m tipsv2.scenes.build --npm FOLDER

FOLDER is where this was run (it then holds node_modules), with the versions the committed files were made from:

    npm install --ignore-scripts @lobehub/fluent-emoji-3d@1.1.0 @iconify-json/noto@1.2.9 \\
        @iconify-json/twemoji@1.2.5 @iconify-json/fluent-emoji-flat@1.2.6 \\
        @iconify-json/openmoji@1.2.29 emojibase-data@17.0.0

and `pip install resvg_py` (0.5.0) gives the rasteriser of the vector styles, which nothing else here needs. Fluent
comes as 256 px WebP, the others as SVG; translations come from emojibase, whose source is Unicode CLDR.
Only needed again after a change of vocabulary.py or translations.py (then --names-only is enough).
"""

import argparse
import json
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tipsv2.scenes.sprites import ASSETS, STYLES
from tipsv2.scenes.translations import CORRECTIONS, LANGUAGES
from tipsv2.scenes.vocabulary import NOUNS

CELL = 160  # pixels; a sprite is drawn at most about this large in a 224 px scene
MARGIN = 1  # empty pixels around a drawing, so that turning or shrinking it bleeds into no neighbour
COLUMNS = 24
RASTER = 320  # pixels at which SVG is drawn before it is cropped and brought to the cell
QUALITY = 88  # WebP colour quality; alpha is kept exactly


def rasters(npm: Path, style: str, codes: list[str]) -> list[Image.Image]:
    """RGBA drawings of the codes in one style, in order; ValueError naming the code that the style lacks."""
    if style == "fluent":
        files = {plain_code(path.stem): path for path in (npm / "@lobehub/fluent-emoji-3d/assets").glob("*.webp")}
        return [Image.open(_drawing_of(files, code, style)).convert("RGBA") for code in codes]
    import resvg_py

    folder = npm / "@iconify-json" / ("fluent-emoji-flat" if style == "flat" else style)
    names = {plain_code(code): name for code, name in _json(folder / "chars.json").items()}
    icons = _json(folder / "icons.json")
    side = icons.get("height", 16)
    images = []
    for code in codes:
        body = icons["icons"][_drawing_of(names, code, style)]["body"]
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
    size = max(1, round(box.width * scale)), max(1, round(box.height * scale))
    cell = Image.new("RGBA", (CELL, CELL))
    cell.paste(box.resize(size, Image.Resampling.LANCZOS), ((CELL - size[0]) // 2, (CELL - size[1]) // 2))
    return cell


def write_atlas(images: list[Image.Image], path: Path) -> None:
    atlas = Image.new("RGBA", (COLUMNS * CELL, -(-len(images) // COLUMNS) * CELL))
    for index, image in enumerate(images):
        atlas.paste(fit_cell(image), (index % COLUMNS * CELL, index // COLUMNS * CELL))
    atlas.save(path, quality=QUALITY, alpha_quality=100, method=6)


def translations(npm: Path) -> dict[str, dict[str, str]]:
    """name -> language -> name: the Unicode label of the first emoji, or what translations.py has instead."""
    names: dict[str, dict[str, str]] = {name: {} for name, *_ in rows()}
    for column, language in enumerate(LANGUAGES):
        entries = _json(npm / "emojibase-data" / language / "data.json")
        labels = {plain_code(entry["hexcode"]): plain_label(entry["label"]) for entry in entries}
        for name, _, codes, _ in rows():
            correction = CORRECTIONS[name].split("|")[column] if name in CORRECTIONS else ""
            names[name][language] = correction or labels[codes.split()[0]]
    return names


def write_names(npm: Path, path: Path) -> None:
    """One line per noun, so that a change of one noun is a change of one line."""
    names = translations(npm)
    texts = {
        name: {"keywords": words.split(", ") if words else [], "translations": names[name]}
        for name, _, _, words in rows()
    }
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(text, ensure_ascii=False)}" for name, text in texts.items())
    path.write_text(f'{{"cell": {CELL}, "columns": {COLUMNS}, "nouns": {{\n{lines}\n}}}}\n', encoding="utf-8")


def rows() -> list[tuple[str, str, str, str]]:
    """(name, plural, codes, keywords) of every noun, in order."""
    return [row for table in NOUNS.values() for row in table]


def plain_code(code: str) -> str:
    """Upper case, without the variation selector that some packages write and others leave out."""
    return "-".join(part for part in code.upper().split("-") if part != "FE0F")


def plain_label(label: str) -> str:
    """The first of several readings, without what stands in brackets."""
    return re.split(r"[,،、;/]", re.sub(r"\s*[(（\[].*?[)）\]]", "", label))[0].strip()


def _json(path: Path) -> Any:
    if not path.is_file():
        raise SystemExit(f"{path} is missing: --npm must name the folder where the npm install of --help was run")
    return json.loads(path.read_text(encoding="utf-8"))


def _drawing_of(table: dict, code: str, style: str) -> Any:
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
    parser.add_argument(
        "--names-only", action="store_true", help="write names.json and leave the atlases, which take minutes"
    )
    options = parser.parse_args()
    npm = options.npm.expanduser() / "node_modules"
    options.out.mkdir(parents=True, exist_ok=True)

    write_names(npm, options.out / "names.json")
    if options.names_only:
        return
    codes = [code for _, _, codes, _ in rows() for code in codes.split()]
    for style in STYLES:
        path = options.out / f"{style}.webp"
        write_atlas(rasters(npm, style, codes), path)
        print(f"{path.name}: {len(rows())} nouns, {len(codes)} drawings, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
