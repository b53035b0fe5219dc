"""The papers' claims at a size a laptop can train: rows, runner, tables."""
