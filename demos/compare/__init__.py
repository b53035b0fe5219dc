"""The tab Compare. Two encoders, or two kinds of features of one, side by side on the same picture and queries.

`tab` lays it out; `python -m demos.compare` runs it alone.
"""
