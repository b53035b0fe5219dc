"""What the Ask tab gives to take along: overlays at the image's size, maps, scores, masks, and the code of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from demos.ask.api import painted, parts_of, scores_of
from demos.ask.work import (
    SMALLEST,
    Answer,
    Question,
    askable,
    layer_number,
    others_of,
    ranges,
    region,
    templates_of,
)
from demos.backend.offer import shown_name
from demos.export import snippets
from demos.export.files import Taken
from demos.export.snippets import IMAGE, call, literal
from demos.ui.controls import visitor

if TYPE_CHECKING:
    import gradio as gr

    from demos.ask.tab import Heatmaps
    from tipsv2.network.encoder import Encoder

_HEATMAP = ("patch_maps", "patch_similarity", "to_pixels")


def take(tab: Heatmaps, *given, request: gr.Request = None) -> Taken | None:
    """given: the fields of a Question, then the opacity. Masks are those of the threshold, drawn or not."""
    *asked, opacity = given
    (question, _), who = askable(Question(*asked)), visitor(request)
    if question.image is None:
        return None
    answer = tab.service.answer(question, who)
    if not answer.names and question.patch is None:
        return None
    encoder, size = tab.studio.encoder(question.model), answer.seen.features.size
    lows, highs = ranges(question, answer)
    regions = [region(question, grid, size) for grid in answer.maps]
    pictures = {
        name: painted(answer.seen, grid, question.colormap, opacity, low, high)
        for name, grid, low, high in zip(answer.names, answer.maps, lows, highs, strict=True)
    }
    if question.cut:
        pictures = {name: _outlined(pictures[name], area) for name, area in zip(answer.names, regions, strict=True)}
    numbers = {"model": shown_name(encoder.info), "mode": question.mode, "features": question.features}
    numbers |= {"templates": templates_of(question), "resolution": answer.seen.resolution, "windows": question.windows}
    numbers["scores"] = [
        score | {"region": {"threshold": area.threshold, "share": area.share, "parts": parts_of(area)}}
        for score, area in zip(scores_of(answer), regions, strict=True)
    ]
    arrays = {"maps": _pixels(answer.maps, size), "names": np.array(answer.names, str), "patches": answer.grid.numpy()}
    if question.patch is not None:
        here, other, there = tab.service.similar(answer, question, who)
        low = min(here.min().item(), here.min().item() if other is None else there.min().item())
        pictures["clicked patch"] = painted(answer.seen, here, question.colormap, opacity, low, here.max().item())
        arrays["similar"] = _pixels(here[None], size)[0]
        numbers["patch"] = list(answer.patch(question))
        numbers["nearest_words"] = tab.service.near(answer, question)
        if other is not None:
            pictures["second image"] = painted(other, there, question.colormap, opacity, low, here.max().item())
            arrays["similar_second"] = _pixels(there[None], other.features.size)[0]
    return Taken(
        "heatmap",
        pictures,
        arrays,
        numbers,
        {name: area.mask for name, area in zip(answer.names, regions, strict=True)},
        python(question, answer, encoder, opacity),
        command(question, answer, encoder, opacity),
        shown_name(encoder.info),
        question.image,
    )


def python(question: Question, answer: Answer, encoder: Encoder, opacity: float) -> str:
    """Source that makes the maps, and what hangs on them, with tipsv2 alone; the images are image.png and other.png."""
    names, windows = answer.names, question.windows and layer_number(question.features) is None
    competing = question.mode == "competing" and bool(names)
    paint = f"{literal(question.colormap)}, {opacity:g}"
    body = [snippets.load(encoder.info), f"image = open_image({literal(IMAGE)})"]
    kind = "values" if answer.kind == "values" else "patches"
    body += [f"features = {_look(question, 'image', answer.seen.resolution)}", f"patches = features.{kind}"]
    if names:
        body += ["", *_maps(question, names, competing, answer.kind)]
        low, high = ("0", "1") if competing else ("float(scores.min())", "float(scores.max())")
        if not competing and question.scale == "absolute":
            low, high = (f"{bound!r}" for bound in answer.absolute)
        elif not competing and question.scale == "own":
            low, high = "float(scores[number].min())", "float(scores[number].max())"
        body += ["for number, values in enumerate(maps):"]
        body += [f"    picture = overlay(image, values, {paint}, {low}, {high})"]
        body += ['    Image.fromarray(picture).save(f"heatmap_{number}.png")']
        body += ['np.savez_compressed("heatmap.npz", maps=maps, names=names, patches=patches)']
    if names and question.cut:
        limit = f"at_share(values, {question.threshold:g})" if question.above == "range" else f"{question.threshold:g}"
        body += ["", f"regions = [find_regions(values, {limit}, smallest={SMALLEST}) for values in maps]"]
        body += ["for name, region in zip(names, regions):"]
        body += ['    print(name, f"{region.share:.1%}", [part.box for part in region.parts])']
    if question.patch is not None:
        row, column = answer.patch(question)
        body += ["", f"similar = patch_similarity(patches, {row}, {column})"]
        body += ["low, high = float(similar.min()), float(similar.max())"]
        if question.other is not None:
            body += ['other = open_image("other.png")']
            body += [
                f"others = {_look(question, 'other', answer.seen.resolution)}",
                f"there = patch_similarity(patches, {row}, {column}, others.{kind})",
                "low = min(low, float(there.min()))",
            ]
            body += ["there = to_pixels(there[None], others.size)[0].numpy()"]
            body += [f'Image.fromarray(overlay(other, there, {paint}, low, high)).save("there.png")']
        body += ["similar = to_pixels(similar[None], features.size)[0].numpy()"]
        body += [f'Image.fromarray(overlay(image, similar, {paint}, low, high)).save("similar.png")']
    used = "\n".join(body)
    exact = sorted(name for name in _HEATMAP if f"{name}(" in used)
    head = ["import numpy as np"] if names else []
    head += ["import torch"] if "torch." in used else []
    head += ["from PIL import Image", "", f"from tipsv2 import {'' if windows else 'View, '}load, open_image"]
    head += [f"from tipsv2.analysis.heatmap import {', '.join(exact)}"]
    head += ["from tipsv2.analysis.regions import at_share, find_regions"] if "find_regions(" in used else []
    head += ["from tipsv2.analysis.render import overlay"]
    head += ["from tipsv2.network.view import windowed"] if windows else []
    head += ["from tipsv2.analysis.words import words_in_context"] if "words_in_context(" in used else []
    return "\n".join([*head, "", used])


def _look(question: Question, image: str, resolution: int) -> str:
    layer = layer_number(question.features)
    view = f"windowed(encoder, {resolution})" if layer is None and question.windows else f"View({resolution})"
    return f"encoder.look({image}, {view}{'' if layer is None else f', {layer}'})"


def _maps(question: Question, names: list[str], competing: bool, kind: str) -> list[str]:
    templates = templates_of(question)
    framed = "" if templates == "none" else f", {literal(templates)}"
    if question.by == "sentence":
        lines = [f"names, text = words_in_context(encoder, {literal(question.sentence.strip())})"]
    else:
        lines = [f"names = {literal(names)}", f"text = encoder.encode_text(names{framed})"]
    others = others_of(question, names) if competing else []
    if others:
        lines += [f"text = torch.cat([text, encoder.encode_text({literal(others)}{framed})])"]
    given = dict(kind=kind) | (dict(temperature=question.temperature) if competing else {})
    lines += [f"scores = {call('patch_maps', 'features', 'text', **given)}{'[: len(names)]' if others else ''}"]
    return [*lines, "maps = to_pixels(scores, features.size).numpy()"]


def command(question: Question, answer: Answer, encoder: Encoder, opacity: float) -> str:
    """The line for the shell, "" where the command line has no such question."""
    plain = question.by == "phrases" and answer.names and not question.windows and question.patch is None
    known = layer_number(question.features) is None and question.templates != "own"
    if (
        not plain
        or not known
        or (question.mode == "competing" and (question.distractors or question.temperature != 0.05))
    ):
        return ""
    return snippets.command(
        "heatmap",
        IMAGE,
        *answer.names,
        model=snippets.model_name(encoder.info),
        mode=question.mode,
        features=question.features,
        templates=question.templates,
        resolution=answer.seen.resolution,
        colormap=question.colormap,
        opacity=opacity,
    )


def _pixels(maps, size: tuple[int, int]) -> np.ndarray:
    from tipsv2.analysis.heatmap import to_pixels

    return to_pixels(maps, size).numpy() if len(maps) else np.zeros((0, *size), np.float32)


def _outlined(picture: np.ndarray, regions) -> np.ndarray:
    """The picture with a region's outline in white and its boxes in yellow, on black."""
    from PIL import Image, ImageDraw

    from tipsv2.analysis.regions import outlines

    painted_on = Image.fromarray(picture)
    draw, width = ImageDraw.Draw(painted_on), max(1, round(max(picture.shape[:2]) / 400))
    lines = [[tuple(point) for point in line] for line in outlines(regions.mask)]
    boxes = [part.box for part in regions.parts]
    for color, wide in (("#111111", 3 * width), ("white", width)):
        for line in lines:
            draw.line(line, color, wide, joint="curve")
    for left, top, right, bottom in boxes:
        draw.rectangle((left, top, right - 1, bottom - 1), outline="#ffd166", width=width)
    return np.asarray(painted_on)
