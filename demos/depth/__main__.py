"""python -m demos.depth: this tab alone."""

from demos.launch import run

if __name__ == "__main__":
    run(["depth"], program="python -m demos.depth")
