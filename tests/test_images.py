"""tipsv2.images: hostile and unusual files each give the right picture or one sentence. All files are made here.

python -m pytest tests/test_images.py
"""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps

from tipsv2.images import MAX_PIXELS, ImageError, fit_size, open_image, to_tensor

# Pillow warns about damage and size before it gives up or goes on.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")


def saved(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def random_rgb(height: int = 6, width: int = 9, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(width: int, height: int, color: int = 2, depth: int = 8, data: bytes = b"") -> bytes:
    """A PNG written by hand: any header, any data."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def one_sentence(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text and text.endswith(".") and 20 < len(text) < 300, text
    return text


# The right picture


@pytest.mark.parametrize("wrap", [str, Path, Path.read_bytes, Image.open, lambda path: np.asarray(Image.open(path))])
def test_every_kind_of_source(tmp_path, wrap):
    pixels = random_rgb()
    path = tmp_path / "picture.png"
    path.write_bytes(saved(Image.fromarray(pixels)))
    image = open_image(wrap(path))
    assert image.mode == "RGB" and (np.asarray(image) == pixels).all()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "TGA", "JPEG2000", "WEBP", "GIF", "JPEG", "AVIF"])
def test_formats(kind):
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100}, "AVIF": {"quality": 100}}.get(kind, {})
    pixels = np.full((16, 24, 3), (200, 100, 50), np.uint8)
    image = open_image(saved(Image.fromarray(pixels), kind, **options))
    assert image.size == (24, 16) and np.abs(np.asarray(image).astype(int) - pixels).max() <= 3


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F", "I;16", "PA", "La", "RGBa"]
)
def test_pil_modes_of_a_grey_picture(mode):
    """The same middle grey, opaque, whatever way it is stored."""
    grey = 255 if mode == "1" else 128
    image = Image.new("L", (5, 4), grey)
    if mode == "I;16":
        image = Image.fromarray(np.full((4, 5), grey * 257, np.uint16))
    elif mode == "F":
        image = Image.fromarray(np.full((4, 5), grey / 255, np.float32))
    elif mode in ("La", "RGBa", "PA"):
        image = image.convert({"La": "LA", "RGBa": "RGBA", "PA": "P"}[mode]).convert(mode)
    elif mode in ("HSV", "YCbCr"):
        image = image.convert("RGB").convert(mode)
    else:
        image = image.convert(mode)
    assert image.mode == mode
    found = open_image(image)
    assert found.mode == "RGB" and np.abs(np.asarray(found).astype(int) - grey).max() <= 1


def test_cmyk_jpeg_keeps_its_colours():
    pixels = np.full((16, 16, 3), (220, 40, 30), np.uint8)
    found = np.asarray(open_image(saved(Image.fromarray(pixels).convert("CMYK"), "JPEG", quality=98))).astype(int)
    assert np.abs(found - pixels).max() <= 6


def test_sixteen_bit_png_is_scaled_not_clipped():
    values = np.array([[0, 1, 128, 257, 32768, 65535, 65000]], np.uint16)
    expected = np.round(values / 65535 * 255)
    assert (np.asarray(open_image(saved(Image.fromarray(values))))[..., 0] == expected).all()
    assert (np.asarray(open_image(values))[..., 1] == expected).all()
    wide = Image.fromarray(values.astype(np.int32))  # mode I, as 16-bit PGM files open
    assert wide.mode == "I" and (np.asarray(open_image(wide))[..., 2] == expected).all()
    big_endian = png(2, 1, color=0, depth=16, data=b"\0" + struct.pack(">HH", 0x8000, 0xFFFF))
    assert np.asarray(open_image(big_endian))[0, :, 0].tolist() == [128, 255]
    tiff = saved(Image.fromarray(values), "TIFF")
    assert (np.asarray(open_image(tiff))[..., 0] == expected).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
@pytest.mark.parametrize("bits", [8, 12])
def test_fewer_bits_in_a_sixteen_bit_file_are_not_black(kind, bits):
    most = 2**bits - 1
    values = np.array([[0, most // 4, most // 2, most]], np.uint16)
    found = np.asarray(open_image(saved(Image.fromarray(values), kind)))[..., 0]
    assert np.abs(found - values / most * 255).max() <= 0.5
    assert np.asarray(open_image(values))[..., 0].max() <= 16  # an array's type says its range


def test_sixteen_bit_rgb_png():
    data = b"\0" + struct.pack(">HHH", 0xFFFF, 0x8080, 0)
    assert np.asarray(open_image(png(1, 1, color=2, depth=16, data=data))).tolist() == [[[255, 128, 0]]]


def test_transparency_is_over_white():
    half = Image.new("RGBA", (3, 2), (200, 0, 0, 51))  # one fifth
    expected = np.array([244, 204, 204])
    for image in (half, half.convert("RGBa")):
        assert np.abs(np.asarray(open_image(image)).astype(int) - expected).max() <= 2
    assert (np.asarray(open_image(Image.new("LA", (2, 2), (10, 0)))) == 255).all()
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    for kind in ("PNG", "GIF"):
        found = np.asarray(open_image(saved(palette, kind, transparency=0)))
        assert found.tolist() == [[[255, 255, 255], [0, 0, 255]]]
    keyed = saved(Image.fromarray(np.array([[[1, 2, 3], [9, 9, 9]]], np.uint8)), transparency=(1, 2, 3))
    assert np.asarray(open_image(keyed)).tolist() == [[[255, 255, 255], [9, 9, 9]]]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animations_give_their_first_frame(kind):
    frames = [Image.new("RGB", (8, 6), color) for color in ("red", "blue", "lime")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert (np.asarray(open_image(data)) == (255, 0, 0)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    """Oracle: the eight orientations of the EXIF standard (tag 0x0112) as array operations."""
    upright = random_rgb()
    stored = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    assert (np.asarray(open_image(data)) == upright).all()


def test_broken_exif_is_ignored():
    pixels = random_rgb()
    data = saved(Image.fromarray(pixels), exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert (np.asarray(open_image(data)) == pixels).all()


@pytest.mark.parametrize("shape", [(1, 1), (5000, 1), (1, 5000)])
def test_extreme_shapes(shape):
    image = open_image(saved(Image.fromarray(random_rgb(*shape))))
    assert image.size == shape[::-1]
    height, width = fit_size(*image.size, resolution=56)
    pixels = to_tensor(image, (height, width))
    assert pixels.shape == (3, height, width) and max(height, width) <= 4 * 56 and min(height, width) == 56


def test_arrays():
    pixels = random_rgb()
    for array in (pixels, pixels / 255, (pixels / 255).astype(np.float32), (pixels / 255).astype(np.float16)):
        assert (np.asarray(open_image(array)) == pixels).all()
    for array in (pixels.astype(np.int64), pixels.astype(np.uint16) * 257, pixels[:, ::-1][:, ::-1]):
        assert (np.asarray(open_image(array)) == pixels).all()
    grey = pixels[..., 0]
    for array in (grey, grey[..., None], np.dstack([grey] * 3), np.dstack([grey] * 3 + [np.full_like(grey, 255)])):
        assert (np.asarray(open_image(array)) == grey[..., None]).all()
    assert set(np.unique(np.asarray(open_image(grey > 127)))) == {0, 255}
    assert (np.asarray(open_image(np.array([[-1e-4, 1 + 1e-4]]))) == np.array([0, 255])[:, None]).all()


def test_the_source_is_left_as_it_was():
    array = random_rgb().astype(np.float32) / 255
    before = array.copy()
    open_image(array)
    assert (array == before).all()
    image = Image.fromarray(random_rgb()).convert("RGBA")
    open_image(image)
    assert image.mode == "RGBA"


# One sentence


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"hello, this is text", "not a picture"),
        (b"\x89PNG\r\n\x1a\n", "truncated or damaged"),
        (b"RIFF\x00\x00\x00\x00WAVE", "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not a picture"),  # would start Ghostscript
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
        (png(4, 4, data=b"\0" * 3), "truncated or damaged"),
        (png(0, 5), "damaged"),
        (png(20_000, 20_000), "pixels"),
        (png(12_000, 9_000), "12000 x 9000"),
        (png(2**31 - 1, 2**31 - 1), "pixels"),
    ],
)
def test_bad_bytes(tmp_path, data, words):
    with pytest.raises(ImageError) as error:
        open_image(data)
    assert words in one_sentence(error)
    path = tmp_path / "upload.png"
    path.write_bytes(data)
    with pytest.raises(ImageError) as error:
        open_image(path)
    assert words in one_sentence(error) and "upload.png" in str(error.value)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
def test_truncated_files(kind):
    data = saved(Image.fromarray(random_rgb(64, 64)), kind)
    with pytest.raises(ImageError) as error:
        open_image(data[: len(data) // 2])
    one_sentence(error)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "TGA", "PPM", "JPEG2000", "AVIF"])
def test_flipped_bytes_never_raise_anything_else(kind):
    """Two hundred damaged files of each kind: a picture or an ImageError, no other exception."""
    random = np.random.default_rng(0)
    data = np.frombuffer(saved(Image.fromarray(random_rgb(24, 24)), kind), np.uint8)
    for _ in range(200):
        damaged = data.copy()
        damaged[random.integers(0, min(len(data), 300), 4)] = random.integers(0, 256, 4)
        try:
            assert open_image(damaged.tobytes()).mode == "RGB"
        except ImageError:
            pass


@pytest.mark.slow
def test_a_bomb_is_refused_before_decoding():
    """A 400 megapixel PNG of zeros: refused from the header, in little memory (a process apart, to measure it)."""
    code = (
        "import resource, struct, zlib, sys; sys.path.insert(0, 'tests')\n"
        "from test_images import png\n"
        "from tipsv2.images import ImageError, open_image\n"
        "bomb = png(20000, 20000, color=0, data=b'\\0' * (20001 * 20000 // 100))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: open_image(bomb)\n"
        "except ImageError: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    root = Path(__file__).parent.parent
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True).stdout
    assert int(out) < 20_000  # kB


def test_pixel_limit_also_holds_for_arrays_and_pil():
    side = int(MAX_PIXELS**0.5) + 1
    for source in (np.broadcast_to(np.uint8(0), (side, side)), Image.new("1", (side, side))):
        with pytest.raises(ImageError) as error:
            open_image(source)
        assert f"{side} x {side}" in one_sentence(error)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((3, 32, 32), np.uint8), "shape (3, 32, 32)"),
        (np.zeros((1, 32, 32, 3), np.uint8), "shape (1, 32, 32, 3)"),
        (np.zeros((0, 32, 3), np.uint8), "shape (0, 32, 3)"),
        (np.zeros(7, np.uint8), "shape (7,)"),
        (np.zeros((4, 4, 2), np.uint8), "shape (4, 4, 2)"),
        (np.full((4, 4, 3), 200.0), "0 to 1"),
        (np.full((4, 4, 3), np.nan), "nan"),
        (np.full((4, 4, 3), -1), "0 to 255"),
        (np.full((4, 4), 70_000), "0 to 255"),
        (np.full((4, 4), 1j), "complex"),
        (np.full((4, 4), "a"), "integers or floats"),
        (np.full((4, 4), None), "integers or floats"),
    ],
)
def test_wrong_arrays(array, words):
    with pytest.raises(ImageError) as error:
        open_image(array)
    assert words in one_sentence(error)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nowhere/dog.jpg", "no file 'nowhere/dog.jpg'"),
        ("https://example.org/dog.jpg", "download"),
        (".", "folder"),
        ("a\0b.png", "cannot be read"),
        ("x" * 5000, "cannot be read"),
        (None, "NoneType"),
        (torch.zeros(3, 4, 4), "Tensor"),
        (12, "int"),
    ],
)
def test_wrong_sources(source, words):
    with pytest.raises(ImageError) as error:
        open_image(source)
    assert words in one_sentence(error)


# Sizes and tensors


@pytest.mark.parametrize(
    ("width", "height", "resolution", "expected"),
    [
        (448, 448, 448, (448, 448)),
        (640, 480, 448, (448, 602)),  # 597.3 -> 42.7 patches -> 43
        (480, 640, 448, (602, 448)),
        (100, 100, 450, (448, 448)),
        (10, 10, 1, (14, 14)),
        (1, 5000, 448, (1792, 448)),
        (5000, 1, 224, (224, 896)),
        (4000, 1000, 224, (224, 896)),
    ],
)
def test_fit_size(width, height, resolution, expected):
    assert fit_size(width, height, resolution) == expected


def test_fit_size_of_another_patch_size_and_bad_resolutions():
    assert fit_size(300, 200, 224, patch_size=16) == (224, 336)
    for resolution in (0, -14, 100_000):
        with pytest.raises(ValueError, match="resolution"):
            fit_size(10, 10, resolution)


def test_to_tensor_is_one_antialiased_bilinear_resize():
    """Oracle: torch's own antialiased bilinear interpolation, which rounds to no bytes."""
    pixels = random_rgb(90, 130)
    found = to_tensor(Image.fromarray(pixels), (28, 42))
    exact = F.interpolate(
        torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255, (28, 42), mode="bilinear", antialias=True
    )[0]
    assert found.dtype == torch.float32 and found.shape == (3, 28, 42)
    assert (found - exact).abs().max() < 1.5 / 255
    same = to_tensor(Image.fromarray(pixels), (90, 130))
    assert torch.equal(same, torch.from_numpy(pixels).permute(2, 0, 1) / 255)


def test_rotation_matches_pillow():
    """A photograph with orientation 6 and one turned beforehand give the same tensor."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(Image.fromarray(random_rgb(40, 60)), "JPEG", exif=exif, quality=95)
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    image = open_image(data)
    assert image.size == (40, 60) == turned.size
    assert torch.equal(to_tensor(image, (28, 14)), to_tensor(turned.convert("RGB"), (28, 14)))
