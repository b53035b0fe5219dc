"""The tab Segment in a real headless Chromium: the main path, bad input, a phone; and a client of its API.

python -m pytest tests/test_segmentation_page.py
"""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def picture(tmp_path):
    """A noisy picture of 90 x 60 pixels."""
    path = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)).save(path)
    return str(path)


@pytest.fixture(scope="module")
def url(serving, tiny_folder):
    yield from serving(["segment"], tiny_folder)


@pytest.fixture(scope="module")
def expect():
    return pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect


def opened(visit, expect, width=1440):
    page = visit(width)
    expect(page.locator(".tips-segments tbody tr").first).to_be_visible()
    return page


def alpha(page, x, y):
    """Opacity of the paint at a place of the picture, 0 to 255."""
    script = """([x, y]) => { const canvas = document.querySelector(".tips-segments canvas");
      return canvas.getContext("2d").getImageData(x * canvas.width, y * canvas.height, 1, 1).data[3]; }"""
    return page.evaluate(script, [x, y])


def test_isolate_a_class_and_see_where_it_is_wrong(visit, expect):
    page = opened(visit, expect)
    expect(page.locator(".score")).to_contain_text("mIoU")  # a scene comes with its true mask
    legend = page.locator(".tips-segments .legend")
    buttons = legend.locator("button")
    assert alpha(page, 0.5, 0.5) == 255
    buttons.first.hover()
    expect(page.locator(".tips-segments[data-alone]")).to_be_visible()
    assert {alpha(page, x / 10, y / 10) for x in range(10) for y in range(10)} == {0, 189}
    page.mouse.move(2, 2)
    expect(page.locator(".tips-segments[data-alone]")).to_have_count(0)
    page.get_by_role("button", name="Found").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.locator(".tips-segments .legend button.on")).to_have_count(1)
    page.keyboard.press("Enter")
    expect(buttons.first).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Escape")
    expect(buttons.first).to_have_attribute("aria-pressed", "false")
    page.get_by_role("button", name="Differences").click()
    expect(page.get_by_role("button", name="Differences")).to_have_attribute("aria-pressed", "true")
    page.locator(".tips-segments .stage").hover(position={"x": 30, "y": 30})
    expect(page.locator(".tips-segments .tag")).not_to_be_empty()


def test_a_list_of_171_stays_small_and_comes_back(visit, expect):
    page = opened(visit, expect)
    page.get_by_label("Lists").click()
    page.get_by_role("option", name="COCO-Stuff · 171").click()
    expect(page.locator(".sum")).to_contain_text("of 171 classes found")
    assert page.locator(".tips-classes").bounding_box()["height"] < 260
    assert page.locator(".tips-segments").bounding_box()["height"] < 800
    page.get_by_label("Lists").click()
    page.get_by_role("option", name="Names of this example").click()
    expect(page.locator(".sum")).to_contain_text("of 5 classes found")


def test_draw_a_mask_upload_another_and_a_bad_one(visit, expect, tmp_path):
    page = opened(visit, expect)
    page.get_by_role("button", name="True mask").click()
    page.get_by_role("button", name="Remove", exact=True).click()
    expect(page.locator(".score")).to_have_count(0)
    page.get_by_label("Draw", exact=True).click()
    page.get_by_role("option", name="banana").click()
    canvas = page.locator(".tips-mask canvas")
    expect(canvas).to_be_visible()
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    for x, y in ((120, 20), (120, 120), (20, 120)):
        page.mouse.move(box["x"] + x, box["y"] + y, steps=3)
    page.mouse.up()
    expect(page.locator(".score")).to_contain_text("of one class")
    expect(page.get_by_text("Drawn by hand.")).to_be_visible()
    chooser = page.locator("input[type=file]").nth(1)
    (tmp_path / "mask.png").write_bytes(b"no picture")
    chooser.set_input_files(tmp_path / "mask.png")
    expect(page.locator(".toast-body")).to_contain_text("not a picture")
    expect(page.locator(".score")).to_contain_text("of one class")
    Image.fromarray(np.full((30, 30), 2, np.uint8)).save(tmp_path / "numbers.png")
    chooser.set_input_files(tmp_path / "numbers.png")
    expect(page.get_by_text("30 × 30 pixels, the image 448 × 448: resized")).to_be_visible()
    expect(page.locator(".score")).to_contain_text("mIoU")


def test_a_long_name_is_a_sentence_and_a_phone_needs_no_sideways_scroll(visit, expect):
    page = opened(visit, expect, 400)
    wide = "document.documentElement.scrollWidth"
    assert page.evaluate(wide) <= 400
    page.get_by_label("Classes").fill("dog, " + "x" * 300)
    page.get_by_label("Classes").press("Enter")
    expect(page.locator(".tips-refused:visible")).to_contain_text("300 characters")
    page.get_by_label("Classes").fill("dog, " + "a very long name of a dog " * 7)
    page.get_by_label("Classes").press("Enter")
    expect(page.locator(".sum")).to_contain_text("of 2 classes found")
    assert page.evaluate(wide) <= 400
    for drawer in page.locator(".tips-more > button").all():
        drawer.click()
    expect(page.get_by_text("Sliding windows")).to_be_visible()
    assert page.evaluate(wide) <= 400


def test_a_client_of_the_api(url, picture, tmp_path):
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    client = Client(url, verbose=False)
    Image.fromarray(np.ones((60, 90), np.uint8)).save(tmp_path / "mask.png")
    given = dict(image=handle_file(picture), classes="dog, cat", api_name="/segmentation")
    _, labels, told = client.predict(**given, mask=handle_file(tmp_path / "mask.png"), resolution=56)
    share = float((np.asarray(Image.open(labels)) == 1).mean())
    assert told["classes"][0]["iou"] == pytest.approx(share, abs=1e-5) == told["shares"]["dog"]
    assert "miou" not in client.predict(**given, resolution=56)[2]
    assert len(client.predict(api_name="/class_lists")["Cityscapes"]) == 19
    with pytest.raises(AppError, match="at least one class"):
        client.predict(**given | dict(classes=" , "))
