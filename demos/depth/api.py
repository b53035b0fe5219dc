"""What the Depth tab hands out: files and code of the picture on the page, and the endpoints /depth and /load_heads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gradio as gr
import numpy as np

from demos.depth import views as depth_views
from demos.export.files import Taken
from demos.export.snippets import IMAGE, call, command, literal, load, model_name
from demos.ui import controls
from demos.ui.controls import MODEL_WORK, answered, visitor
from demos.ui.export_row import export
from demos.ui.loading import FETCHING
from tipsv2.analysis import render

if TYPE_CHECKING:
    from demos.backend.heads import DepthMemory, Scene
    from tipsv2.checkpoints.catalogue import ModelInfo


class DepthOutputs:
    """Takes and answers; holds nothing but the memory of heads and predictions."""

    def __init__(self, memory: DepthMemory):
        self.memory = memory

    def take(
        self,
        image: str | None,
        heads: str | None,
        resolution: float,
        span: str,
        near: float,
        far: float,
        colormap: str,
        opacity: float,
        request: gr.Request = None,
    ) -> Taken | None:
        """What these heads say of the image, as in the export row; None before there is anything."""
        if image is None or heads is None:
            return None
        scene = self.memory.predict(visitor(request), heads, image, int(resolution))
        result = scene.result
        pictures, arrays = _pictures(scene, span, near, far, colormap, opacity), {}
        scores: dict = {"model": heads, "patches": list(result.grid)}
        masks: dict[str, np.ndarray] = {}
        if result.depth is not None:
            arrays["depth"] = result.depth
            scores["depth_m"] = dict(
                zip(("nearest", "median", "farthest"), np.quantile(result.depth, (0, 0.5, 1)).round(4), strict=True)
            )
        if result.normals is not None:
            arrays["normals"] = result.normals
        if result.labels is not None:
            arrays |= {"labels": result.labels, "classes": np.array(result.classes)}
            scores["shares"] = result.shares()
            masks = {name: result.labels == result.classes.index(name) for name in result.shares()}
        shown = dict(resolution=int(resolution), colormap=colormap, opacity=float(opacity))
        ends = (float(near), float(far)) if span == "fixed" else None
        info = self.memory.info(heads)
        return Taken(
            "depth",
            pictures,
            arrays,
            scores,
            masks,
            python=_python(info, pictures, ends, **shown),
            command=_command(model_name(info), ends, **shown),
            model=heads,
            image=image,
        )

    @answered
    def depth(
        self,
        image: str,
        heads: str,
        resolution: float,
        span: str,
        near: float,
        far: float,
        colormap: str,
        opacity: float,
        request: gr.Request = None,
    ) -> tuple[str, dict, list]:
        """How far is each pixel, which way does its surface face, and what is it? Returns an .npz file with depth
        ([H, W] metres), normals ([H, W, 3] unit vectors), labels ([H, W] indices) and classes (their names); the model,
        its patches, nearest, median and farthest metres and the classes' shares; and a PNG of each.

        image: the picture. heads: a model on offer that is on this machine, see /load_heads. resolution: short side in
        pixels that the network sees, 0 for as trained. span: "auto" colours depth from its least to its greatest,
        "fixed" from one distance to another. near, far: the ends of "fixed", in metres. colormap: of depth. opacity: of
        the classes' colours over the image.
        """
        shown = (int(resolution or 0), span, near, far, colormap, opacity)
        taken = self.take(image, self.memory.info(heads).name, *shown, request)
        if taken is None:
            raise ValueError("Give an image.")
        pictures = [(picture, name) for name, picture in taken.pictures.items()]
        scores = {name: dict(value) if isinstance(value, dict) else value for name, value in taken.scores.items()}
        return str(export(taken, "npz", visitor(request))), scores, pictures

    @answered
    def load_heads(self, heads: str, request: gr.Request = None) -> dict:
        """Load a model with DPT heads in place of the one before; one that is not on this machine is downloaded first,
        which takes minutes. Returns its name, heads, classes, device, training resolution and patch size in pixels.

        heads: a model on offer.
        """
        for _ in self.memory.fetch(heads, visitor(request)):
            pass
        dpt = self.memory.heads(heads)
        return {
            "model": dpt.info.name,
            "heads": list(dpt.heads),
            "classes": list(dpt.classes),
            "device": str(dpt.device),
            "resolution": dpt.info.resolution,
            "patch_size": dpt.patch_size,
        }


def _pictures(scene: Scene, span: str, near: float, far: float, colormap: str, opacity: float) -> dict[str, np.ndarray]:
    """A picture of each prediction in the image's pixels, and the bar of the depth's colours."""
    result, pictures = scene.result, {}
    low, high = depth_views.limits(result.depth, span, near, far)
    if result.depth is not None:
        pictures["depth"] = render.colorize(result.depth, colormap, low, high)
        pictures["depth scale"] = render.color_bar(low, high, max(200, scene.image.height), colormap, unit="m")
    if result.normals is not None:
        pictures["normals"] = render.paint_normals(result.normals)
    if result.labels is not None:
        colors = depth_views.class_colors(result.labels, len(result.classes))
        pictures["classes"] = render.paint_labels(np.asarray(scene.image), result.labels, colors, opacity)
    return pictures


def _python(info: ModelInfo, pictures, ends, resolution: int, colormap: str, opacity: float) -> str:
    """Code that makes the pictures there are."""
    lines = [
        "import numpy as np",
        "from PIL import Image",
        "from tipsv2.analysis.depth import load_dpt",
        "from tipsv2.images import open_image",
        "from tipsv2.analysis.render import WIDE_PALETTE, colorize, label_colors, paint_labels, paint_normals",
        "",
        load(info, "dpt", "load_dpt"),
        f"image = open_image({literal(IMAGE)})",
        f"scene = {call('dpt.predict', 'image', resolution=resolution)}",
        "",
    ]
    span = {} if ends is None else dict(low=ends[0], high=ends[1])
    made = {
        "depth": call("colorize", "scene.depth", literal(colormap), **span),
        "normals": "paint_normals(scene.normals)",
        "classes": call(
            "paint_labels", "np.asarray(image)", "scene.labels", "label_colors(scene.labels, WIDE_PALETTE)",
            opacity=opacity,
        ),
    }  # fmt: skip
    lines += [f'Image.fromarray({made[name]}).save("{name}.png")' for name in made if name in pictures]
    return "\n".join(lines)


def _command(model: str, ends, **shown) -> str:
    near, far = ends or (None, None)
    return command("depth", IMAGE, model=model, **shown, near=near, far=far, out="depth.png", arrays="depth.npz")


def endpoints(memory: DepthMemory, heads: gr.Dropdown, shown: list) -> None:
    """Add /depth and /load_heads. shown: the page's range of colours, colour map and opacity."""
    outputs = DepthOutputs(memory)
    gr.Button(visible=False).click(
        outputs.depth,
        [controls.api_image(), heads, controls.api_resolution(), *shown],
        [
            gr.File(visible=False, label="arrays"),
            gr.JSON(visible=False, label="numbers"),
            gr.Gallery(visible=False, format="png", label="pictures"),
        ],
        api_name="depth",
        **MODEL_WORK,
    )
    gr.Button(visible=False).click(
        outputs.load_heads, heads, gr.JSON(visible=False, label="model"), api_name="load_heads", **FETCHING
    )
