"""A name of an encoder becomes its weights: catalogue, download, the files of a model folder, official and
transformers formats.
"""
