"""Any images with captions as one thing: where they come from, read in order or ahead, embedded, stored and
searched.
"""
