"""python -m demos.segment: this tab alone."""

from demos.launch import run

if __name__ == "__main__":
    run(["segment"], program="python -m demos.segment")
