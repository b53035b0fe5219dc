"""Features become maps, label maps, numbers and pictures. Nothing in here loads a checkpoint of its own accord."""
