"""From a source of images with captions to the batches a recipe asks for."""
