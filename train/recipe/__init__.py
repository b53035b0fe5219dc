"""What a run is told: fields and their bounds, named recipes, `key=value` of the command line. Loads no torch."""
