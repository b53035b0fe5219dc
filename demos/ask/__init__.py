"""The tab Ask. Phrases, or the words of a sentence, as maps over a picture; what resembles a patch, and which words
are nearest to it.

`tab` lays it out; `python -m demos.ask` runs it alone.
"""
