"""From a recipe to a finished run: the one loop, checkpoints and exact resume, what a run costs and leaves to look
at.
"""
