"""python -m demos.inside: this tab alone."""

from demos.launch import run

if __name__ == "__main__":
    run(["inside"], program="python -m demos.inside")
