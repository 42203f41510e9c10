"""A network taken elsewhere: as an ONNX file, or as one plain PyTorch program."""
