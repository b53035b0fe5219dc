"""The tab Depth. Depth in metres, surface normals and classes, from the DPT heads released for TIPSv2.

`tab` lays it out; `python -m demos.depth` runs it alone.
"""
