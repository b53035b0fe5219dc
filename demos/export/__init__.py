"""A result to take along: PNG, NPZ, JSON, COCO masks, and the code that computes the same."""
