"""The tab Train. Start a training from the browser, watch it learn, stop, resume, and open what it made. Runs are
processes of their own: the tab imports the recipes of `train` and nothing else of it.

`tab` lays it out; `python -m demos.train` runs it alone.
"""
