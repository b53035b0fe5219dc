"""The flags of `python -m train`."""
