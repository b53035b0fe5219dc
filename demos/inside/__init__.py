"""The tab Inside. What is inside the patches of a picture, layer by layer: components, clusters, norms, a map of
patches and words.

`tab` lays it out; `python -m demos.inside` runs it alone.
"""
