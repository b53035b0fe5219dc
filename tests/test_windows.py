"""Joined windows of tipsv2.network.view against windows cut, encoded and averaged one by one.

python -m pytest tests/test_windows.py
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tipsv2.analysis.heatmap import similarity
from tipsv2.images import to_tensor
from tipsv2.network.view import View, count_windows, look, window_sizes, windowed


@pytest.fixture
def image():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8))


def test_window_sizes_are_the_notebooks_proportions(tiny_encoder):
    assert window_sizes(tiny_encoder) == (56, 42)  # as 448 and 336


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_a_grid_of_windows_equals_a_loop(tiny_encoder, image, batch_size):
    found = look(tiny_encoder, [image], windowed(tiny_encoder, 112), batch_size=batch_size)[0]
    assert count_windows(tiny_encoder, tuple(found.patches.shape[:2])) == 12
    assert found.size == (90, 130) and found.values.shape == (8, 12, 48)  # 112 x 168 pixels
    pixels = to_tensor(image, (112, 168))
    for kind in ("patches", "values"):
        total, count = torch.zeros(8, 12, 48), torch.zeros(8, 12, 1)
        for top in (0, 42, 56):
            for left in (0, 42, 84, 112):
                window = tiny_encoder.encode_pixels(pixels[None, :, top : top + 56, left : left + 56])[kind][0]
                for row in range(4):
                    for column in range(4):
                        total[top // 14 + row, left // 14 + column] += F.normalize(window[row, column], dim=0)
                        count[top // 14 + row, left // 14 + column] += 1
        torch.testing.assert_close(getattr(found, kind), total / count, atol=1e-5, rtol=1e-4)


def test_classes_keep_the_order_of_the_mean_cosine(tiny_encoder, image):
    text = tiny_encoder.encode_text(["dog", "cat", "grass", "sky"])
    grid = tiny_encoder.look(image, windowed(tiny_encoder, 112)).values
    mean = torch.einsum("hwd,nd->nhw", grid, text)
    assert (similarity(grid, text).argmax(dim=0) == mean.argmax(dim=0)).all()


def test_what_fits_into_one_window_is_the_whole_image(tiny_encoder, image):
    small = image.crop((0, 0, 90, 90))
    whole = tiny_encoder.encode_image(small, 56)
    for name in ("cls", "caption_cls", "patches", "values"):
        torch.testing.assert_close(
            getattr(tiny_encoder.look(small, windowed(tiny_encoder, 56)), name), getattr(whole, name)
        )
    assert tiny_encoder.look(small, windowed(tiny_encoder)).values.shape == (4, 4, 48)  # as trained


def test_a_narrow_side_has_one_window(tiny_encoder, image):
    assert tiny_encoder.look(image.crop((0, 0, 130, 20)), windowed(tiny_encoder, 28)).values.shape == (2, 8, 48)


def test_views_that_do_not_exist(tiny_encoder, image):
    with pytest.raises(ValueError, match="'nearest': use bilinear or bicubic"):
        View(resample="nearest")
    with pytest.raises(ValueError, match="stride"):
        tiny_encoder.look(image, View(112, 56, 70))
    with pytest.raises(ValueError, match="layers of this encoder are 1 to 3"):
        tiny_encoder.look(image, layer=9)
    for resample in ("bilinear", "bicubic"):
        with pytest.raises(ValueError, match="resolution must lie between"):
            tiny_encoder.look(image, View(0, resample=resample))


def test_only_what_was_asked_for(tiny_encoder, image):
    (some,) = look(tiny_encoder, [image], View(56), only=("values",))
    assert some.cls is None and some.patches is None
    torch.testing.assert_close(some.values, tiny_encoder.look(image, View(56)).values)
