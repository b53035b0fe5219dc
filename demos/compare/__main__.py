"""python -m demos.compare: this tab alone."""

from demos.launch import run

if __name__ == "__main__":
    run(["compare"], program="python -m demos.compare")
