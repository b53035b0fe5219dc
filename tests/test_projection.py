"""tipsv2.analysis.projection and the features command: against numpy's SVD, scikit-learn, closed forms and known
answers.

python -m pytest tests/test_projection.py
"""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial import procrustes
from scipy.stats import median_abs_deviation, ortho_group
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score

from tipsv2.__main__ import main
from tipsv2.analysis.projection import (
    align,
    components_as_rgb,
    foreground,
    joint_map,
    kmeans,
    patch_norms,
    pca,
    project,
)


@pytest.fixture
def grid() -> np.ndarray:
    """[6, 5, 8] whose axes differ in variance, far from the origin."""
    rng = np.random.default_rng(0)
    scales = 2.0 ** -np.arange(8)
    return (rng.gamma(2, size=(6, 5, 8)) * scales @ ortho_group.rvs(8, random_state=0) + 3).astype(np.float32)


def blobs(count: int, per: int, width: int = 16, spread: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """Directions around `count` orthogonal centres -> grid [count, per, width] and the centres [count, width]."""
    rng = np.random.default_rng(1)
    centers = np.eye(width, dtype=np.float32)[:count]
    return centers[:, None] + rng.normal(scale=spread, size=(count, per, width)).astype(np.float32), centers


# Principal components


def test_pca_equals_svd(grid):
    rows = grid.reshape(-1, 8).astype(np.float64)
    _, lengths, axes = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    basis = pca([grid], count=8)
    assert np.allclose(np.abs((basis.components * axes).sum(axis=1)), 1)
    assert np.allclose(basis.explained, lengths**2 / (lengths**2).sum())
    assert ((basis.components**3).sum(axis=1) > 0).all()
    signs = np.sign((basis.components * axes).sum(axis=1))
    expected = ((rows - rows.mean(axis=0)) @ axes.T * signs).reshape(6, 5, 8)
    assert np.allclose(project(torch.from_numpy(grid), basis), expected, atol=1e-5)


def test_components_do_not_turn_around(grid):
    line = np.float32([-1, 0.9, 0.9]) * np.float32([0, 1, 5])[:, None]  # not the largest entry decides, all do
    assert np.allclose(pca([line[None]]).components[0], np.float32([-1, 0.9, 0.9]) / np.sqrt(2.62))
    basis = pca([grid])
    noise = np.random.default_rng(2).normal(scale=1e-3, size=grid.shape)
    for other in (grid[:, ::-1], grid[::-1], grid + noise, torch.from_numpy(grid), torch.from_numpy(grid).double()):
        assert np.allclose(pca([other]).components, basis.components, atol=0.02)
    again = pca([grid])
    assert (again.components == basis.components).all()


def test_joint_basis_is_that_of_all_patches(grid):
    other = grid[:2, :3] * 2
    joint = pca([grid, other])
    rows = np.concatenate([grid.reshape(-1, 8), other.reshape(-1, 8)])
    assert np.allclose(joint.mean, rows.mean(axis=0), atol=1e-6)
    assert np.allclose(joint.components, pca([rows[None]]).components)
    keep = np.zeros((6, 5), bool)
    keep[2:4] = True
    assert np.allclose(pca([grid], masks=[keep]).components, pca([grid[2:4]]).components)
    with pytest.raises(ValueError, match="align"):
        pca([grid, np.zeros((2, 2, 9))])
    with pytest.raises(ValueError, match="width 9"):
        project(np.zeros((2, 2, 9)), joint)
    for grids, masks in (([], None), ([grid], [np.zeros((6, 5), bool)])):
        with pytest.raises(ValueError, match="no patches"):
            pca(grids, masks=masks)


def test_axes_that_do_not_exist_are_zero(grid):
    for flat in (grid[:1, :1], np.full((4, 3, 8), 0.1, np.float32), np.zeros((2, 2, 8))):
        basis = pca([flat])
        assert not basis.components.any() and not basis.explained.any() and not project(flat, basis).any()
        assert (components_as_rgb([project(flat, basis)])[0] == 0.5).all()
        assert foreground([project(flat, basis)])[0].all()
    rounded = np.full((4, 3, 8), 3, np.float32)
    rounded[1, 1, :4] = np.nextafter(np.float32(3), np.float32(4))
    assert not pca([rounded]).components.any()
    two = pca([grid[:1, :2]])  # two points lie on a line
    assert two.explained.tolist() == pytest.approx([1, 0, 0]) and not two.components[1:].any()
    with pytest.raises(ValueError, match="at least one component"):
        pca([grid], count=0)


def test_rgb_scales_all_pictures_alike():
    scores = np.random.default_rng(0).normal(size=(10, 10, 5)).astype(np.float32)
    scores[..., 4] = 7  # the same everywhere
    parts = components_as_rgb([scores[:4], scores[4:]], components=(3, 0, 4), percentiles=(5, 95))
    whole = np.concatenate(parts)
    low, high = np.percentile(scores[..., 3], [5, 95])
    assert np.allclose(whole[..., 0], np.clip((scores[..., 3] - low) / (high - low), 0, 1), atol=1e-6)
    assert (whole[..., 2] == 0.5).all() and whole.dtype == np.float32 and whole.min() == 0 and whole.max() == 1
    mask = np.zeros((10, 10), bool)
    mask[:5] = True
    (masked,) = components_as_rgb([scores], masks=[mask])
    assert np.allclose(masked[:5], components_as_rgb([scores[:5]])[0]) and not masked[5:].any()
    assert not components_as_rgb([scores], masks=[~mask & mask])[0].any()
    for wrong in ((0, 1), (0, 1, 5), (-1, 0, 1)):
        with pytest.raises(ValueError, match="between 0 and 4"):
            components_as_rgb([scores], wrong)


@pytest.mark.parametrize("sign", (1, -1))
def test_foreground_is_what_borders_least(sign):
    square = np.zeros((8, 8), bool)
    square[2:6, 3:6] = True
    features = (
        np.where(square[..., None], sign, -sign) * np.ones(6) + np.random.default_rng(0).normal(size=(8, 8, 6)) / 9
    )
    assert (foreground([project(features, pca([features]))])[0] == square).all()


# Two models


def test_align_undoes_a_rotation_into_another_width(grid):
    turn = ortho_group.rvs(12, random_state=3)[:8]  # [8, 12], orthonormal rows
    other = 5 * grid @ turn - 2
    mine, theirs = pca([grid], count=8), pca([other], count=8)
    turned, rest = align(mine, grid, theirs, other)
    assert rest < 1e-6
    assert np.allclose(project(other, turned), project(grid, mine), atol=1e-4)
    assert np.allclose(turned.explained, mine.explained, atol=1e-6)
    # also where the second model's axes are its own, so that a rotation is really needed
    mixed = ortho_group.rvs(8, random_state=4)
    strange = type(theirs)(theirs.mean, mixed @ theirs.components, theirs.explained)
    assert np.allclose(project(other, align(mine, grid, strange, other)[0]), project(grid, mine), atol=1e-4)


def test_align_equals_procrustes(grid):
    """Axes of other importance, and a basis that also belongs to another grid, so that the scores' mean is not 0."""
    other = grid**2 * np.linspace(0.2, 3, 8, dtype=np.float32)
    mine, theirs = pca([grid, grid + 1], count=4), pca([other], count=8)
    turned, rest = align(mine, grid, theirs, other)
    first, second = project(grid, mine).reshape(-1, 4), project(other, theirs)[..., :4].reshape(-1, 4)
    first, second, expected = procrustes(first, second)
    assert rest == pytest.approx(expected, abs=1e-5) and 0.01 < expected < 0.9
    found = project(other, turned).reshape(-1, 4).astype(np.float64)
    cosines = (found / np.linalg.norm(found) * second).sum() / np.linalg.norm(second)
    assert cosines == pytest.approx(1, abs=1e-5)
    axes = turned.components / np.linalg.norm(turned.components, axis=1, keepdims=True)
    along = ((other.reshape(-1, 8) - theirs.mean) @ axes.T).var(axis=0)
    assert np.allclose(turned.explained, along / other.reshape(-1, 8).var(axis=0).sum(), atol=1e-5)


def test_align_across_grid_sizes():
    y, x = np.mgrid[0:1:24j, 0:1:24j]
    smooth = np.stack([y, 0.5 * x, 0.3 * np.sin(6 * y) * x, 0.1 * y * y], axis=-1)
    fine = np.kron(smooth, np.ones((2, 2, 1))) @ ortho_group.rvs(7, random_state=5)[:4]
    mine = pca([smooth])
    turned, rest = align(mine, smooth, pca([fine]), fine)
    assert rest < 0.01 and project(fine, turned).shape == (48, 48, 3)
    assert np.corrcoef(project(fine, turned)[::2, ::2, 0].ravel(), project(smooth, mine)[..., 0].ravel())[0, 1] > 0.99


def test_align_reports_what_differs(grid):
    noise = np.random.default_rng(6).normal(size=(40, 40, 2, 8))
    first, second = noise[:, :, 0], noise[:, :, 1]
    assert align(pca([first]), first, pca([second]), second)[1] > 0.95  # nothing in common
    flat = np.ones((6, 5, 4))
    turned, rest = align(pca([grid]), grid, pca([flat]), flat)
    assert rest == 1 and not project(flat, turned).any()


# Clusters


def test_kmeans_finds_known_clusters():
    patches, centers = blobs(4, 30)
    patches = np.concatenate([patches[3][:10], patches[0], patches[1], patches[2][:20]]).reshape(9, 10, 16)
    patches *= np.random.default_rng(0).uniform(0.5, 5, size=(9, 10, 1))  # lengths do not matter
    found = kmeans(patches, 4)
    assert found.labels.ravel().tolist() == [3] * 10 + [0] * 30 + [1] * 30 + [2] * 20
    assert np.allclose(found.shares, [1 / 3, 1 / 3, 2 / 9, 1 / 9])
    assert ((found.centers * centers).sum(axis=1) > 0.99).all()
    assert np.allclose(np.linalg.norm(found.centers, axis=1), 1)


def test_kmeans_is_as_tight_as_sklearns(grid):
    rows = grid.reshape(-1, 8) - 3
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    found = kmeans(grid - 3, 5)
    labels = found.labels.ravel()
    inertia = sum(((units[labels == k] - units[labels == k].mean(axis=0)) ** 2).sum() for k in range(5))
    assert inertia <= 1.02 * KMeans(5, n_init=50, random_state=9).fit(units).inertia_
    assert (np.diff(found.shares) <= 0).all() and found.shares.sum() == pytest.approx(1)
    assert (kmeans(grid - 3, 5).labels == found.labels).all()


def test_kmeans_with_fewer_directions_than_clusters():
    rows = np.float32([[1, 2], [2, 4], [3, 6], [-1, 0], [-2, 0], [0, 5]]).reshape(2, 3, 2)
    found = kmeans(rows, 6)
    assert found.labels.tolist() == [[0, 0, 0], [1, 1, 2]] and len(found.centers) == 3
    for flat in (np.ones((3, 3, 4)), np.ones((1, 1, 4)), np.zeros((2, 2, 4))):
        assert not kmeans(flat, 3).labels.any() and kmeans(flat, 3).shares.tolist() == [1]
    with pytest.raises(ValueError, match="at least one cluster"):
        kmeans(rows, 0)


# Norms


def test_norms_and_outliers():
    lengths = np.random.default_rng(0).normal(10, 1, size=(8, 8))
    lengths[3, 4], lengths[0, 0] = 40, 0.1  # an artefact; a short one is none
    directions = np.random.default_rng(1).normal(size=(8, 8, 12))
    patches = directions / np.linalg.norm(directions, axis=-1, keepdims=True) * lengths[..., None]
    found = patch_norms(patches, cut=5)
    assert np.allclose(found.norms, lengths, rtol=1e-5)
    mad = median_abs_deviation(lengths.ravel(), scale="normal")
    assert np.allclose(found.scores, (lengths - np.median(lengths)) / mad, atol=1e-2)
    assert found.limit == pytest.approx(np.median(lengths) + 5 * mad, rel=1e-4)
    assert np.argwhere(found.outliers).tolist() == [[3, 4]]
    assert (found.outliers == (found.norms > found.limit)).all()


def test_norms_without_spread():
    for flat in (np.full((3, 3, 4), 0.3), np.zeros((2, 2, 4)), np.ones((1, 1, 4))):
        found = patch_norms(flat)
        assert not found.outliers.any() and not found.scores.any()
    rounded = np.ones((5, 5, 3), np.float32)
    rounded[0] = np.random.default_rng(0).normal(size=(5, 3))
    rounded[0] *= np.sqrt(3) / np.linalg.norm(rounded[0], axis=-1, keepdims=True)
    assert len(np.unique(np.linalg.norm(rounded.astype(np.float64), axis=-1))) > 2
    assert not patch_norms(rounded).outliers.any()
    one = np.ones((3, 3, 4))
    one[1, 1] *= 2  # most are equal, so the median distance from the median is 0
    found = patch_norms(one)
    assert np.argwhere(found.outliers).tolist() == [[1, 1]] and np.isfinite(found.scores).all()


# Patches and words in one map


@pytest.mark.slow
def test_map_keeps_clusters_apart_and_words_with_theirs():
    patches, centers = blobs(3, 25)
    gap = np.eye(16, dtype=np.float32)[10] * 2  # text lies elsewhere, and all of it in one direction
    words = centers + gap
    points, at = joint_map(patches, words, seed=1)
    assert points.shape == (3, 25, 2) and at.shape == (3, 2) and points.dtype == at.dtype == np.float32
    labels = np.repeat(np.arange(3), 25)
    assert silhouette_score(points.reshape(-1, 2), labels) > 0.7
    nearest = np.linalg.norm(points.reshape(-1, 1, 2) - at, axis=-1).argsort(axis=0)[:5]
    assert (labels[nearest] == np.arange(3)).all()
    again = joint_map(torch.from_numpy(patches), torch.from_numpy(words), seed=1)
    assert (again[0] == points).all() and (again[1] == at).all()
    ticks = []
    ticking = joint_map(patches, words, seed=1, tick=lambda: ticks.append(1))
    assert ticks and (ticking[0] == points).all()
    with pytest.raises(ZeroDivisionError):
        joint_map(patches, words, seed=1, tick=lambda: 1 / 0)
    alone, nothing = joint_map(patches, words[:0], seed=1)
    assert nothing.shape == (0, 2) and silhouette_score(alone.reshape(-1, 2), labels) > 0.7


def test_map_shows_the_gap_when_asked():
    """As many words as patches, all nearer to each other than to any patch: kept, they are a group of their own."""
    patches, centers = blobs(3, 12)
    rng = np.random.default_rng(5)
    words = np.repeat(centers, 12, axis=0) + np.eye(16)[10] * 4 + rng.normal(scale=0.05, size=(36, 16))
    modality = np.repeat([0, 1], 36)
    apart = {}
    for gap in ("keep", "bridge"):
        points, at = joint_map(patches, words, neighbors=8, gap=gap)
        apart[gap] = silhouette_score(np.concatenate([points.reshape(-1, 2), at]), modality)
    assert apart["keep"] > 0.3 and apart["bridge"] < 0.1
    with pytest.raises(ValueError, match="bridge or keep"):
        joint_map(patches, words, gap="jump")


@pytest.mark.parametrize(
    "patches",
    [
        np.ones((1, 1, 4)),
        np.ones((3, 3, 4)),
        np.zeros((2, 2, 4)),
        np.eye(4)[None, :3],
        np.eye(4)[None],
        np.repeat(np.eye(4), 30, axis=0)[None],  # more equals than neighbours
        np.random.default_rng(0).normal(size=(2, 4, 4)),
    ],
    ids=["one", "equal", "zero", "three", "four", "duplicates", "eight"],
)
@pytest.mark.parametrize("gap", ("bridge", "keep"))
def test_map_of_few_or_equal_patches(patches, gap):
    points, at = joint_map(patches, np.eye(4)[:2], gap=gap)
    assert points.shape == (*patches.shape[:2], 2) and at.shape == (2, 2)
    assert np.isfinite(points).all() and np.isfinite(at).all()
    again = joint_map(patches, np.eye(4)[:2], gap=gap)
    assert (again[0] == points).all() and (again[1] == at).all()


# What is refused


def test_refusals(grid):
    broken = grid.copy()
    broken[2, 2, 2] = np.nan
    basis = pca([grid])
    for call in (
        lambda: pca([broken]),
        lambda: project(broken, basis),
        lambda: kmeans(broken),
        lambda: patch_norms(broken),
        lambda: joint_map(broken, []),
        lambda: joint_map(grid, np.full((1, 8), np.inf)),
    ):
        with pytest.raises(ValueError, match="NaN or infinity"):
            call()
    with pytest.raises(ValueError, match="grid"):
        pca(grid)  # a grid that is not in a list
    with pytest.raises(ValueError, match="as wide"):
        joint_map(grid, np.ones((2, 16)))
    with pytest.raises(ValueError, match="at least 2"):
        joint_map(grid, [], neighbors=1)


# python -m tipsv2 features


def test_features_command(tiny_folder, tmp_path, capsys):
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    out = tmp_path / "deep" / "features.png"
    model = ["--model", str(tiny_folder), "--device", "cpu", "--dtype", "float32"]
    arguments = ["features", str(tmp_path / "noise.png"), "--out", str(out), "--clusters", "3", *model]
    assert main(arguments) == 0
    picture = np.asarray(Image.open(out))
    assert picture.shape == (28 + 40, 3 * 60 + 2 * 12, 3)
    titles = [picture[:28, left : left + 60] for left in (0, 72, 144)]
    assert all((title < 80).any() for title in titles) and not (titles[0] == titles[1]).all()
    # 56 pixels high: 4 x 6 patches, each a block
    assert len(np.unique(picture[28:, :60].reshape(-1, 3), axis=0)) <= 4 * 6
    printed = capsys.readouterr().out
    assert "of the variance" in printed and "outliers" in printed and printed.count("%") == 6
    first = out.read_bytes()
    assert main(arguments) == 0 and out.read_bytes() == first
    assert main([*arguments[:2], "--out", str(tmp_path), *model]) == 2
    assert "features.png" in capsys.readouterr().err
    assert main([*arguments[:2], "--out", str(out), "--clusters", "0", *model]) == 2
    assert "at least one cluster" in capsys.readouterr().err
