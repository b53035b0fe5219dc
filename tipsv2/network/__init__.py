"""Pixels and words become features: the encoder, its patch grids, sliding windows, and what makes them fast on a
CPU.
"""
