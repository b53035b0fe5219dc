"""tipsv2.network.windows against windows cut, encoded and averaged one by one.

python -m pytest tests/test_windows.py
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tipsv2.analysis.heatmap import similarity
from tipsv2.images import to_tensor
from tipsv2.network.windows import count_windows, encode_windows, window_sizes


@pytest.fixture
def image():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8))


def test_window_sizes_are_the_notebooks_proportions(tiny_encoder):
    assert window_sizes(tiny_encoder) == (56, 42)  # as 448 and 336


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_a_grid_of_windows_equals_a_loop(tiny_encoder, image, batch_size):
    found = encode_windows(tiny_encoder, image, 112, batch_size)
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
    grid = encode_windows(tiny_encoder, image, 112).values
    mean = torch.einsum("hwd,nd->nhw", grid, text)
    assert (similarity(grid, text).argmax(dim=0) == mean.argmax(dim=0)).all()


def test_what_fits_into_one_window_is_the_whole_image(tiny_encoder, image):
    small = image.crop((0, 0, 90, 90))
    whole = tiny_encoder.encode_image(small, 56)
    for name in ("cls", "caption_cls", "patches", "values"):
        torch.testing.assert_close(getattr(encode_windows(tiny_encoder, small, 56), name), getattr(whole, name))
    assert encode_windows(tiny_encoder, small).values.shape == (8, 8, 48)  # twice the training resolution


def test_a_narrow_side_has_one_window(tiny_encoder, image):
    assert encode_windows(tiny_encoder, image.crop((0, 0, 130, 20)), 28).values.shape == (2, 8, 48)
