"""Maps and labels -> pictures. A leaf: numpy arrays in, uint8 arrays out; the same input gives the same bytes.

Colormaps are matplotlib's, looked up when first used. Images are uint8 [H, W, 3] and anything numpy can turn into that.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import ImageFont

# Perceptually even ones first; turbo and jet are here because people ask for them.
COLORMAPS = ("viridis", "inferno", "magma", "plasma", "cividis", "turbo", "jet", "gray", "coolwarm", "RdBu_r")

# First eight: Okabe and Ito's colour-blind-safe set (jfly.uni-koeln.de/color). The other forty were chosen greedily,
# each as far as possible from all before it (CIEDE2000, lightness 22 to 93, chroma above 14): any two are at least 14
# apart.
PALETTE: tuple[tuple[int, int, int], ...] = tuple(
    (red, green, blue)
    for red, green, blue in map(
        bytes.fromhex,
        (
            "E69F00 56B4E9 009E73 F0E442 0072B2 D55E00 CC79A7 000000 "
            "6900A5 5A5A00 87001E C3F0E1 F0E1FF 00FF4B 004B4B FFA596 "
            "879600 FF0F4B 9669FF 785A69 783C00 D2C3A5 2D3C5A C30087 "
            "9696B4 00692D 96784B 00C3C3 008796 690F4B 96C378 E1A5FF "
            "FF00F0 A55A4B 2D3C1E 2D4BE1 788769 4B2D2D 00FFC3 C3E1FF "
            "00A500 FFB4D2 B49687 875AA5 7896FF 4B3C1E E10000 FF964B"
        ).split(),
    )
)

# For long class lists: PALETTE and 152 more, chosen the same way (chroma above 10); any two are at least 7.9 apart.
WIDE_PALETTE: tuple[tuple[int, int, int], ...] = PALETTE + tuple(
    (red, green, blue)
    for red, green, blue in map(
        bytes.fromhex,
        (
            "87A5A5 A500F0 FF694B FF0F87 4B695A C30F4B E1F0B4 697887 4BFFFF A5E100 C3B45A FFE1D2 D27878 4B7800 "
            "78C3A5 3C5A69 A58700 78E1FF 5A3C69 FFD287 00D278 5A5A78 7878B4 C3A5B4 B4B4FF 785A4B 69694B 967878 "
            "961E00 B45A78 875A00 C37800 1E2D96 FF78E1 873C4B B4C3A5 B4785A 967896 4B8778 A5FFA5 C3965A B478D2 "
            "0000F0 872D87 78782D 4B874B FF87A5 004B96 E1B496 C34BB4 004B2D 0096FF 1E78FF A59678 78B400 783C2D "
            "0F3C4B F0C3C3 F0C31E 1E4B00 00A5C3 5A4B96 A54B0F 78A578 4B3C4B 2DD200 B42D2D 96965A 690F2D B496C3 "
            "00785A 877869 006978 698787 4B69B4 4BA596 5A0F69 4B87A5 C3D269 96C3D2 3C3C00 4B5A2D C33CFF 965A87 "
            "A50F5A FF5A78 C3C3E1 785AD2 D25A3C B4E1B4 FFC3FF 96C3FF 9687E1 B40FB4 B48796 69963C F04BB4 A5692D "
            "691E00 F0E196 00E1C3 87D2D2 FF3C00 695A3C 5A3C2D A5B400 96E169 E1E1C3 5AB45A 873C69 FFB45A 783CB4 "
            "694B4B 786987 C3F0FF 00870F 6987B4 3C2D69 D29696 FF690F E178FF 7896A5 2DC3E1 E18769 692DF0 007878 "
            "D2874B 78E1A5 789687 D2B4E1 966978 87FFE1 96A587 C3A500 E196D2 C34B5A 5A69FF 1EFF96 694B0F 3C5A5A "
            "875A5A 2D4B3C D22D78 FF9600 C3C387 2DE1F0 87FF00 009696 005A4B 968796 5A4B3C 00C396"
        ).split(),
    )
)


def colorize(
    values: np.ndarray, colormap: str = "viridis", low: float | None = None, high: float | None = None
) -> np.ndarray:
    """A map [H, W] of any range -> uint8 [H, W, 3]; low, high: as in `shades`."""
    return color_table(colormap)[shades(values, low, high)]


def shades(values: np.ndarray, low: float | None = None, high: float | None = None) -> np.ndarray:
    """A map [H, W] of any range -> uint8 [H, W], the place of every value in a table of 256 colours.

    low, high: the values that get the first and the last colour, by default the map's own least and greatest; values
    beyond them are clipped, values that are not numbers get the first colour, and a map of one value is all first
    colour.
    """
    values = np.asarray(values, dtype=np.float32)
    if low is None or high is None:
        finite = values[np.isfinite(values)]
        low = (float(finite.min()) if finite.size else 0.0) if low is None else low
        high = (float(finite.max()) if finite.size else 0.0) if high is None else high
    if not high > low:
        return np.zeros(values.shape, np.uint8)
    share = (values - np.float32(low)) * np.float32(255 / (high - low)) + np.float32(0.5)
    return np.minimum(np.fmax(share, 0), 255).astype(np.uint8)  # fmax: what is not a number becomes 0


def overlay(
    image: np.ndarray,
    values: np.ndarray,
    colormap: str = "viridis",
    opacity: float = 0.6,
    low: float | None = None,
    high: float | None = None,
) -> np.ndarray:
    """The image [H, W, 3] under its map [H, W] in colours -> uint8 [H, W, 3]. opacity of the colours: 0 to 1."""
    return _blend(image, colorize(values, colormap, low, high), opacity)


def paint_labels(
    image: np.ndarray,
    labels: np.ndarray,
    colors: Sequence[tuple[int, int, int]] = PALETTE,
    opacity: float = 0.6,
) -> np.ndarray:
    """The image [H, W, 3] with every pixel tinted by its label [H, W] -> uint8 [H, W, 3].

    Label i gets colors[i], again from the start where there are more labels than colours; negative labels (background)
    stay as they are in the image.
    """
    labels = np.asarray(labels)
    painted = _blend(image, np.asarray(colors, dtype=np.uint8)[labels % len(colors)], opacity)
    return np.where((labels >= 0)[..., None], painted, np.asarray(image, dtype=np.uint8))


def legend(
    names: Sequence[str],
    colors: Sequence[tuple[int, int, int]] = PALETTE,
    shares: Sequence[float] | None = None,
    width: int | None = None,
    text_size: int = 16,
) -> np.ndarray:
    """One row per name with its colour, and its share in percent if given -> uint8 [h, w, 3], black on white.

    width: of the picture; by default as wide as the longest row.
    """
    from PIL import Image, ImageDraw

    font = _font(text_size)
    rows = [
        name if shares is None else f"{name}  {100 * share:.1f} %"
        for name, share in zip(names, shares or [0.0] * len(names), strict=True)
    ]
    step, box = round(text_size * 1.6), text_size
    if width is None:
        width = 3 * box + max((int(font.getlength(row)) for row in rows), default=0)
    picture = Image.new("RGB", (max(1, width), max(1, step * len(rows))), "white")
    draw = ImageDraw.Draw(picture)
    for index, row in enumerate(rows):
        top = index * step + (step - box) // 2
        color = tuple(colors[index % len(colors)])
        draw.rectangle((box // 2, top, box // 2 + box, top + box), fill=color, outline=(96, 96, 96))
        draw.text((2 * box, index * step + step // 2), row, fill="black", font=font, anchor="lm")
    return np.asarray(picture)


def label_colors(labels: np.ndarray, colors: Sequence[tuple[int, int, int]] = PALETTE) -> list[tuple[int, int, int]]:
    """A colour for each label from 0 to the greatest of `labels`, an integer map of any shape; negative ones need none.

    Label i has colors[i], again from the start where there are more labels than colours. Of labels in this map that
    would share one, the most frequent keeps it, and the others get the first colours nobody in the map has.
    """
    labels = np.asarray(labels)
    counts = np.bincount(labels[labels >= 0].ravel())
    chosen = [(red, green, blue) for red, green, blue in (colors[index % len(colors)] for index in range(len(counts)))]
    taken: set[tuple[int, int, int]] = set()
    doubled = []
    for label in np.argsort(-counts, kind="stable"):
        if not counts[label]:
            break
        if chosen[label] in taken:
            doubled.append(label)
        taken.add(chosen[label])
    spare = [(red, green, blue) for red, green, blue in colors if (red, green, blue) not in taken]
    for label, color in zip(doubled, spare, strict=False):
        chosen[label] = color
    return chosen


def paint_normals(normals: np.ndarray) -> np.ndarray:
    """Unit vectors [H, W, 3] -> uint8 [H, W, 3]: x, y and z from -1 to 1 as red, green and blue from 0 to 255."""
    return ((np.clip(np.nan_to_num(normals), -1, 1) + 1) * 127.5 + 0.5).astype(np.uint8)


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """At most `count` round numbers from low to high, evenly apart (1, 2, 2.5 or 5 times a power of ten)."""
    from matplotlib.ticker import MaxNLocator

    if not (np.isfinite([low, high]).all() and low <= high):
        raise ValueError(f"A scale must go from a number to one that is not smaller, not from {low} to {high}.")
    if low == high:
        return [float(low)]
    values = MaxNLocator(nbins=max(1, count - 1), steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    slack = 1e-9 * (high - low)
    return [float(value) for value in values if low - slack <= value <= high + slack]


def color_bar(
    low: float, high: float, height: int, colormap: str = "viridis", unit: str = "", text_size: int = 16
) -> np.ndarray:
    """The colours of `colorize` from low (at the bottom) to high, with round numbers -> uint8 [height, w, 3]."""
    from PIL import Image, ImageDraw

    font = _font(text_size)
    values = ticks(low, high, max(2, height // (2 * text_size)))
    rows = [f"{value:.6g} {unit}".strip() for value in values]
    bar = text_size
    width = 3 * bar + max((int(font.getlength(row)) for row in rows), default=0)
    picture = Image.new("RGB", (width, height), "white")
    column = colorize(np.linspace(high, low, height)[:, None], colormap, low, high)
    picture.paste(Image.fromarray(np.repeat(column, bar, axis=1)), (bar // 2, 0))
    draw = ImageDraw.Draw(picture)
    for value, row in zip(values, rows, strict=True):
        share = (value - low) / (high - low) if high > low else 0.0
        y = round((1 - share) * (height - 1))
        draw.line((bar // 2 + bar, y, bar // 2 + bar + bar // 2, y), fill="black")
        inside = min(max(y, text_size // 2), max(text_size // 2, height - 1 - text_size // 2))
        draw.text((bar // 2 + 2 * bar, inside), row, fill="black", font=font, anchor="lm")
    return np.asarray(picture)


def beside(pictures: Sequence[np.ndarray], gap: int = 12) -> np.ndarray:
    """Pictures uint8 [h, w, 3] of any sizes from left to right, their tops in line, on white -> uint8 [H, W, 3]."""
    height = max(picture.shape[0] for picture in pictures)
    white = np.full((height, gap, 3), 255, np.uint8)
    parts: list[np.ndarray] = []
    for picture in pictures:
        below = ((0, height - picture.shape[0]), (0, 0), (0, 0))
        parts += [white, np.pad(np.asarray(picture, np.uint8), below, constant_values=255)]
    return np.concatenate(parts[1:], axis=1)


def contact_sheet(
    pictures: Sequence[np.ndarray], titles: Sequence[str], columns: int = 5, side: int = 224, text_size: int = 14
) -> np.ndarray:
    """Pictures uint8 [h, w, 3] of any sizes row by row, each shrunk or enlarged into a square of `side` pixels with
    its title, cut to one line, below -> uint8 [H, W, 3], on white.
    """
    from PIL import Image, ImageDraw

    font, gap = _font(text_size), text_size // 2
    columns = min(columns, len(pictures))
    width, height = side + gap, side + 2 * text_size + gap
    sheet = Image.new("RGB", (columns * width + gap, -(-len(pictures) // columns) * height + gap), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (picture, title) in enumerate(zip(pictures, titles, strict=True)):
        left, top = gap + index % columns * width, gap + index // columns * height
        image = Image.fromarray(np.asarray(picture, np.uint8))
        scale = side / max(image.size)
        image = image.resize([max(1, round(length * scale)) for length in image.size], Image.Resampling.BICUBIC)
        sheet.paste(image, (left + (side - image.width) // 2, top + (side - image.height) // 2))
        draw.text((left, top + side + text_size), _cut(title, side, font), fill="black", font=font, anchor="lm")
    return np.asarray(sheet)


def headed(picture: np.ndarray, title: str, text_size: int = 14) -> np.ndarray:
    """A picture uint8 [h, w, 3] under its title, cut to one line, on white -> uint8 [h + 2 * text_size, w, 3]."""
    from PIL import Image, ImageDraw

    head = Image.new("RGB", (picture.shape[1], 2 * text_size), "white")
    gap, font = text_size // 3, _font(text_size)
    title = _cut(title, head.width - 2 * gap, font)
    ImageDraw.Draw(head).text((gap, text_size), title, fill="black", font=font, anchor="lm")
    return np.concatenate([np.asarray(head), np.asarray(picture, np.uint8)])


@lru_cache(maxsize=32)
def color_table(colormap: str) -> np.ndarray:
    """A colormap as uint8 [256, 3], from low to high. Raises ValueError on an unknown one."""
    import matplotlib

    try:
        colors = matplotlib.colormaps[colormap]
    except KeyError:
        raise ValueError(
            f"Unknown colormap '{colormap}': use {', '.join(COLORMAPS)} or another of matplotlib's."
        ) from None
    return (colors(np.linspace(0, 1, 256))[:, :3] * 255 + 0.5).astype(np.uint8)


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and knows Latin, Greek, Cyrillic and Arabic; Pillow's own knows Latin
    only.
    """
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)


def _cut(title: str, width: int, font: ImageFont.FreeTypeFont) -> str:
    """As much of a title as `width` pixels hold."""
    while font.getlength(title) > width and title != "…":
        title = title.removesuffix("…")[:-1] + "…"
    return title


def _blend(image: np.ndarray, colors: np.ndarray, opacity: float) -> np.ndarray:
    image = np.asarray(image)
    if image.shape != colors.shape:
        raise ValueError(f"The image {image.shape} and the map {colors.shape[:2]} must cover the same pixels.")
    if not 0 <= opacity <= 1:
        raise ValueError(f"The opacity must lie between 0 and 1, not {opacity}.")
    return (image * np.float32(1 - opacity) + colors * np.float32(opacity) + 0.5).astype(np.uint8)
