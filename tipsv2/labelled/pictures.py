"""The pictures of a folder, by their names without endings."""

from __future__ import annotations

from pathlib import Path

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


def pictures(folder: Path) -> dict[str, Path]:
    """Name without its ending -> picture, by name, of whichever format; hidden files and others are left out.

    Raises ValueError where the folder is missing or two pictures have one name.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}: unpack the data set again, or name another part.")
    paths: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in PICTURES and not path.name.startswith("."):
            if path.stem in paths:
                raise ValueError(
                    f"{folder} holds both {paths[path.stem].name} and {path.name}: take the one that is not of the "
                    "data set away."
                )
            paths[path.stem] = path
    return paths
