"""What the frozen part of a vision tower gives is computed once and kept: `python -m train keep`, then training on it.

A kept folder (`train.data.kept.folder`) holds, for square crops of pictures, the tokens after the tower's first
blocks, and
beside them what the crops show: labels of patches, an image classifier's soft names, captions. A run whose data is
`kept:FOLDER:CROPS,...` trains the blocks after them, and never sees a pixel.
"""
