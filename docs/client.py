"""Asks a running explorer from Python: python app.py, then python docs/client.py [URL]"""

import json
import sys
from pathlib import Path

from gradio_client import Client, handle_file

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7860"
try:
    client = Client(url, verbose=False)
except Exception as error:  # of the transport, whose library may change
    sys.exit(f"no explorer answers at {url} ({type(error).__name__}): start one with python app.py, or give its URL.")
image = handle_file(Path(__file__).parent.parent / "assets/examples/scene_1.png")

overlays, scores = client.predict(image=image, queries=["a banana", "a gear"], api_name="/heatmap")
for overlay, score in zip(overlays, scores, strict=True):
    print(f"{score['query']}: peak {score['peak']:.3f}, mean {score['mean']:.3f}, {overlay['image']}")

painted, labels, numbers = client.predict(image=image, classes="banana, gear, road, brick", api_name="/segmentation")
print(json.dumps(numbers, indent=1)[:400])
