"""Files, bytes, PIL images and arrays -> RGB pictures and tensors, or one sentence saying why not.

TIPSv2 takes RGB in [0, 1] without mean or std (github.com/google-deepmind/tips, pytorch/README), any aspect ratio, with
sides that are multiples of the patch size. Everything untrusted is checked here: the size is read from the header
before a single pixel is decoded, formats that start other programs are off, and whatever a decoder raises becomes an
ImageError.

    from tipsv2.images import open_image, fit_size, to_tensor
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

if TYPE_CHECKING:
    import torch

MAX_PIXELS = 50_000_000
MAX_SIDE = 65_535  # pixels, as in JPEG: a strip of few rows and millions of columns costs gigabytes on its way through
MAX_RESOLUTION = 4096
MAX_PATCHES = 16_384  # as many as the official Space allows, 1792 x 1792 pixels; more needs minutes on a CPU
OPEN_BATCHES = 8  # how many batches of pictures of different sizes are kept in memory until they are full
MAX_ASPECT = 4  # long side of the network's input, in short sides

# EPS would start Ghostscript; ICO, ICNS and PSD hide further pictures behind a header that says nothing about their
# size.
FORMATS = tuple("PNG JPEG MPO WEBP GIF BMP DIB TIFF AVIF JPEG2000 PPM TGA PCX SGI QOI".split())

ORIENTATION, SIDEWAYS = 274, (5, 6, 7, 8)  # EXIF's tag, and its values by which width and height change places
BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8")  # JPEG, PNG, GIF


class ImageError(ValueError):
    """An image that cannot be used, in one sentence: which one, what is wrong, what to do."""


def open_image(source: str | Path | bytes | Image.Image | np.ndarray) -> Image.Image:
    """Open one picture as RGB, turned as its EXIF says, first frame of an animation, transparency over white.

    source: a path, the bytes of a file, a PIL image, or an array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4] holding
        uint8, uint16 (scaled to 8 bits), booleans, other integers in 0..255, or floats in [0, 1].
    Raises ImageError on anything else, before decoding where the header already tells (more than MAX_PIXELS,
    or a side beyond MAX_SIDE).
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        return _to_rgb(source, "the image")
    if isinstance(source, bytes | bytearray | memoryview):
        return _to_rgb(_opened(io.BytesIO(bytes(source)), "the uploaded data", len(source)), "the uploaded data")
    if isinstance(source, str | Path):
        return _from_path(source)
    raise ImageError(
        f"An image must be a path, the bytes of a file, a PIL image or a numpy array, not {type(source).__name__}."
    )


def open_stored(source: str | Path | bytes) -> Image.Image:
    """Open one picture as its file holds it, neither turned nor brought to RGB: for values that are no colours.

    Raises ImageError as `open_image` does.
    """
    if isinstance(source, bytes):
        return _load(_opened(io.BytesIO(source), "the uploaded data", len(source)), "the uploaded data")
    return _from_path(source, _load)


def picture_size(source: str | Path, upright: bool = True) -> tuple[int, int]:
    """(width, height) as the file's header says it, nothing decoded.

    upright: turned as its EXIF says, as `open_image` gives it; False as `open_stored` does.
    Raises ImageError as `open_image` does, as far as a header tells.
    """
    image = _from_path(source, lambda image, _: image)
    try:
        turned = upright and image.getexif().get(ORIENTATION) in SIDEWAYS
    except Exception:  # a broken EXIF block turns nothing
        turned = False
    return image.size[::-1] if turned else image.size


def fit_size(width: int, height: int, resolution: int, patch_size: int = 14) -> tuple[int, int]:
    """(H, W) of the network's input for a width x height picture: the short side becomes `resolution` pixels, rounded
    to patches, the long side keeps the aspect ratio, up to MAX_ASPECT times `resolution`. Both are multiples of
    patch_size.
    """
    _check_resolution(resolution)
    scale = resolution / min(width, height)

    def patches(side: int) -> int:
        return max(1, round(min(side * scale, MAX_ASPECT * resolution) / patch_size)) * patch_size

    return patches(height), patches(width)


def shortened(image: Image.Image, resolution: int) -> torch.Tensor:
    """An RGB picture with its short side made `resolution` pixels, bicubic, the long side rounded down -> [3, H, W] in
    [0, 1], as TIPSv2's notebook resizes.
    """
    _check_resolution(resolution)
    short = min(image.size)
    width, height = (side if short == resolution else int(resolution * side / short) for side in image.size)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return to_tensor(image, (height, width))


def _check_resolution(resolution: int) -> None:
    if not 1 <= resolution <= MAX_RESOLUTION:
        raise ValueError(f"The resolution must lie between 1 and {MAX_RESOLUTION} pixels, not {resolution}.")


def to_tensor(image: Image.Image, size: tuple[int, int]) -> torch.Tensor:
    """An RGB picture resized to size (H, W) -> [3, H, W] float32 in [0, 1]: one antialiased bilinear resize, no
    mean/std.
    """
    import torch

    height, width = size
    resized = image.resize(
        (width, height), Image.Resampling.BILINEAR
    )  # Pillow's filters widen when shrinking: antialias
    return torch.from_numpy(np.array(resized, dtype=np.uint8)).permute(2, 0, 1).float().div_(255.0).contiguous()


def preprocessor_settings(side: int) -> dict:
    """preprocessor_config.json of a model folder: `to_tensor` for a square of `side` pixels, by plain transformers."""
    return {
        "image_processor_type": "Tipsv2ImageProcessor", "do_convert_rgb": True, "do_resize": True, "resample": 2,
        "size": {"height": side, "width": side}, "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": False,
    }  # fmt: skip


def by_size(pictures: Iterable[tuple[Any, torch.Tensor]], batch_size: int) -> Iterator[tuple[list[Any], torch.Tensor]]:
    """Pictures [3, H, W], each with anything that says which it is -> (which, [B, 3, H, W]): those of one size
    together, `batch_size` at a time, what is left over at the end. At most OPEN_BATCHES batches wait to be full.
    """
    import torch

    waiting: dict[tuple[int, ...], list[tuple[Any, torch.Tensor]]] = {}

    def batch(size: tuple[int, ...]) -> tuple[list[Any], torch.Tensor]:
        which, pixels = zip(*waiting.pop(size), strict=True)
        return list(which), torch.stack(pixels)

    for which, pixels in pictures:
        same = waiting.setdefault(pixels.shape, [])
        same.append((which, pixels))
        if len(same) == batch_size:
            yield batch(pixels.shape)
        elif sum(map(len, waiting.values())) >= OPEN_BATCHES * batch_size:
            yield batch(max(waiting, key=lambda size: len(waiting[size])))
    for size in list(waiting):
        yield batch(size)


def _from_path(source: str | Path, finish: Callable[[Image.Image, str], Image.Image] | None = None) -> Image.Image:
    """finish: what is done with the opened picture and its name in sentences while the file is open; by default it is
    made RGB.
    """
    name = str(source)
    if name.startswith(("http://", "https://")):
        raise ImageError(f"'{_short(name)}' is a web address: download the picture and give the path of the file.")
    path = Path(os.path.expanduser(source))
    try:
        if os.path.isdir(path):
            raise ImageError(f"'{_short(name)}' is a folder: give the path of one picture in it.")
        with path.open("rb") as file:
            short = f"'{path.name}'"
            return (finish or _to_rgb)(_opened(file, short, path.stat().st_size), short)
    except FileNotFoundError:
        raise ImageError(f"There is no file '{_short(name)}': check the path.") from None
    except ImageError:
        raise
    except (OSError, ValueError) as error:  # no permission, name too long, a null byte in the name
        reason = getattr(error, "strerror", None) or "not a file name"
        raise ImageError(f"'{_short(name)}' cannot be read: {reason}.") from error


def _opened(file: io.BufferedIOBase, name: str, num_bytes: int) -> Image.Image:
    """A picture of which nothing but the header is read, and of a size that may be decoded."""
    if num_bytes == 0:
        raise ImageError(f"{_start(name)} is empty (0 bytes): save or upload it again.")
    try:
        Image.init()  # loads the decoders, once
        image = Image.open(file, formats=[kind for kind in FORMATS if kind in Image.OPEN])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"{_start(name)} has far more than {_million(MAX_PIXELS)} pixels: make it smaller.") from None
    except Exception as error:  # decoders raise whatever they like on broken headers
        if _begins_as_picture(file):
            raise ImageError(_damaged(name)) from error
        raise ImageError(
            f"{_start(name)} is not a picture that can be read: use PNG, JPEG, WebP, GIF, BMP, TIFF or AVIF."
        ) from error
    _check_size(*image.size, name)
    return image


def _begins_as_picture(file: io.BufferedIOBase) -> bool:
    file.seek(0)
    start = file.read(12)
    return start.startswith(BEGINNINGS) or (start[:4] == b"RIFF" and start[8:] == b"WEBP")


def _damaged(name: str) -> str:
    return f"{_start(name)} is truncated or damaged and cannot be decoded: save or upload it again."


def _load(image: Image.Image, name: str) -> Image.Image:
    _check_size(*image.size, name)
    try:
        image.load()
    except Exception as error:  # as above: OSError when cut off, but also SyntaxError, struct.error, zlib.error, ...
        raise ImageError(_damaged(name)) from error
    _check_size(*image.size, name)  # a GIF's first frame may be larger than its header says
    return image


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    image = _load(image, name)
    try:
        image = ImageOps.exif_transpose(image)
    except Exception:  # a broken EXIF block says nothing about the pixels: show them unturned
        pass
    if image.mode.startswith("I"):  # 16 bits, or integers of PGM and TIFF in a 32-bit container
        return _from_array(_whole_numbers(np.asarray(image.convert("I"))), name)
    if image.mode == "F":
        return _from_array(np.asarray(image), name)
    try:
        if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
            image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
            white = Image.new("RGB", image.size, "white")
            white.paste(image, mask=image.getchannel("A"))
            return white
        return image.convert("RGB")
    except (ValueError, OSError) as error:
        raise ImageError(
            f"{_start(name)} has colours of kind {image.mode}, unsupported: save it as RGB PNG."
        ) from error


def _whole_numbers(values: np.ndarray) -> np.ndarray:
    """The integers of a picture's file in a type that says their range. Cameras, microscopes and X-rays put 12 bits
    into 16: numbers that all fit into 12 (or 8) are taken for such, and would else be all but black.
    """
    if values.min() < 0 or values.max() > 65535:
        return values
    if 255 < values.max() < 4096:
        return ((values * 255 + 2047) // 4095).astype(np.uint8)
    return values.astype(np.uint8 if values.max() <= 255 else np.uint16)


def _from_array(array: np.ndarray, name: str = "the array") -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ImageError(
            f"{_start(name)} has shape {array.shape}: an image array is [height, width], [height, width, 3] or "
            "[height, width, 4], with at least one pixel."
        )
    _check_size(array.shape[1], array.shape[0], name)
    return _to_rgb(Image.fromarray(np.ascontiguousarray(_to_uint8(array, name))), name)


def _to_uint8(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * 255
    if array.dtype == np.uint16:
        return ((array.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if array.dtype.kind in "iu":
        low, high, allowed = array.min(), array.max(), "0 to 255 (or be uint16)"
        if low >= 0 and high <= 255:
            return array.astype(np.uint8)
    elif array.dtype.kind == "f":
        low, high, allowed = array.min(), array.max(), "0 to 1"
        if low >= -1e-3 and high <= 1 + 1e-3:  # resizing with cubic filters overshoots a little; NaN fails both
            return (array.clip(0, 1) * 255 + 0.5).astype(np.uint8)
    else:
        raise ImageError(f"{_start(name)} holds {array.dtype} values: an image array holds integers or floats.")
    raise ImageError(f"{_start(name)} holds {array.dtype} values from {low:g} to {high:g}: they must lie in {allowed}.")


def _check_size(width: int, height: int, name: str) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"{_start(name)} has no pixels ({width} x {height}).")
    if max(width, height) > MAX_SIDE:
        raise ImageError(
            f"{_start(name)} is {width} x {height} pixels, and a side has {MAX_SIDE:,} at most: cut it first."
        )
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{_start(name)} is {width} x {height} pixels, more than {_million(MAX_PIXELS)}: make it smaller first."
        )


def _million(number: int) -> str:
    return f"{number / 1e6:g} million"


def _short(name: str) -> str:
    name = name.encode("utf-8", "replace").decode()
    return name if len(name) <= 120 else f"{name[:60]}...{name[-50:]}"


def _start(name: str) -> str:
    return name[:1].upper() + name[1:]
