"""How encoders are made: recipes, losses, heads, data and the one training loop."""
