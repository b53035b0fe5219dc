"""The tab Segment. Class names, and every pixel gets one; a legend with shares, and how far it agrees with a true mask.

`tab` lays it out; `python -m demos.segment` runs it alone.
"""
