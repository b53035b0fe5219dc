"""The Python that repeats a view of the tab Inside, as text with gaps: `python` fills them. Runs as it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from demos.export import snippets
from demos.export.snippets import IMAGE, call, literal
from demos.inside.work import AXES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tipsv2.network.encoder import Encoder

_HEAD = """\
import numpy as np
from PIL import Image

from tipsv2 import load
from tipsv2.analysis.feature_picture import shown_at
"""
COMPONENTS = f"""{_HEAD}from tipsv2.analysis.projection import components_as_rgb, pca, project

{{opening}}

basis = pca([patches], {AXES})
scores = project(patches, basis)
(colors,) = components_as_rgb([scores], {{shown}})

picture = shown_at((colors * 255 + 0.5).astype("uint8"), features.size)
Image.fromarray(picture).save("pca.png")
np.savez_compressed("pca.npz", scores=scores, explained=basis.explained, patches=patches)"""
FOREGROUND = f"""{_HEAD}from tipsv2.analysis.projection import components_as_rgb, foreground, pca, project

{{opening}}

basis = pca([patches], {AXES})
masks = foreground([project(patches, basis)])
if masks[0].any():
    basis = pca([patches], {AXES}, masks)
scores = project(patches, basis)
(colors,) = components_as_rgb([scores], {{shown}}, masks=masks)

picture = shown_at((colors * 255 + 0.5).astype("uint8"), features.size)
Image.fromarray(picture).save("pca.png")
np.savez_compressed("pca.npz", scores=scores, explained=basis.explained, patches=patches)"""
CLUSTERS = f"""{_HEAD}from tipsv2.analysis.projection import kmeans
from tipsv2.analysis.render import PALETTE

{{opening}}

clusters = kmeans(patches, {{k}})

picture = shown_at(np.array(PALETTE, "uint8")[clusters.labels], features.size)
Image.fromarray(picture).save("clusters.png")
np.savez_compressed("clusters.npz", labels=clusters.labels, shares=clusters.shares, patches=patches)"""
NORMS = f"""{_HEAD}from tipsv2.analysis.projection import patch_norms
from tipsv2.analysis.render import colorize

{{opening}}

lengths = patch_norms(patches)

picture = shown_at(colorize(lengths.norms), features.size)
Image.fromarray(picture).save("norms.png")
np.savez_compressed("norms.npz", norms=lengths.norms, outliers=lengths.outliers, patches=patches)"""
MAP = """\
import matplotlib.pyplot as plt
import numpy as np

from tipsv2 import load
from tipsv2.analysis.projection import components_as_rgb, joint_map, pca, project

{opening}

words = {words}
places, word_places = {layout}
(colors,) = components_as_rgb([project(patches, pca([patches]))])

plt.figure(figsize=(8, 8))
plt.scatter(*places.reshape(-1, 2).T, c=colors.reshape(-1, 3), s=14)
for word, place in zip(words, word_places):
    plt.annotate(word, place)
plt.savefig("map.png")
np.savez_compressed("map.npz", places=places, word_places=word_places, words=words, patches=patches)"""


def python(
    view: str,
    encoder: Encoder,
    layer: int,
    resolution: int,
    features: str,
    shown: Sequence[int],
    foreground: bool,
    k: int,
    words: Sequence[str],
    neighbors: int,
    gap: str,
) -> str:
    """shown: three components counted from 0. Points of a map are coloured by component in the code, whatever the page
    does.
    """
    text = {"pca": FOREGROUND if foreground else COMPONENTS, "clusters": CLUSTERS, "norms": NORMS, "map": MAP}[view]
    seen = call("encoder.encode_image", literal(IMAGE), resolution=resolution)
    if layer != encoder.num_layers:
        seen = f"{call('encoder.encode_layers', literal(IMAGE), f'[{layer}]', resolution=resolution)}[{layer}]"
    grid = "values" if features == "values" else "patches"
    return text.format(
        opening=f"{snippets.load(encoder.info)}\nfeatures = {seen}\npatches = features.{grid}",
        shown=tuple(shown),
        k=k,
        words=literal(list(words)),
        layout=call("joint_map", "patches", "encoder.encode_text(words)", neighbors=neighbors, gap=gap),
    )
