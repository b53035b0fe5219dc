"""One file per task over whole images, and depth and normals; segmentation has a room of its own."""
