"""An encoder for others: ONNX and torch.export programs, a repository on the Hub, a model card."""
