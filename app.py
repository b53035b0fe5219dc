"""The explorer: what a TIPSv2 encoder sees, patch by patch, in a browser.

    python app.py                             the bundled encoder, http://127.0.0.1:7860
    python app.py --model google/tipsv2-b14   a released one (downloaded once)
    python app.py --help

A Hugging Face Space runs this file as it is. Flags are in demos/launch.py, one tab is one file in demos/.
"""

from __future__ import annotations

from demos.launch import run

TABS = ("ask", "segment", "inside", "compare", "depth", "train")


def main() -> None:
    run(TABS, program="app.py")


if __name__ == "__main__":
    main()
