"""Linear probes on frozen patches, for segmentation, depth and normals."""
