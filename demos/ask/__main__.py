"""python -m demos.ask: this tab alone."""

from demos.launch import run

if __name__ == "__main__":
    run(["ask"], program="python -m demos.ask")
