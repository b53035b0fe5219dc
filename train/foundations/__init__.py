"""Foundation models of one modality and a table of names, built from packages of public registries."""
