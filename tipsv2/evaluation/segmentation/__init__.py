"""Zero-shot and linear segmentation: protocol, scores, pictures, and the comparison of two encoders."""
