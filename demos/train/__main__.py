"""python -m demos.train: this tab alone."""

from demos.launch import run

if __name__ == "__main__":
    run(["train"], program="python -m demos.train")
