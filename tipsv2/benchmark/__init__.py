"""What inference costs on this machine, beside the straightforward path."""
