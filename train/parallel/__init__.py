"""Several processes: what crosses them, and encoders that do not fit one device."""
