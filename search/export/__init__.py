"""A network taken elsewhere, where this package is not.

- `onnx_file.py`: as an ONNX file, and the proof that the file does what the network does
- `python_program.py`: as one plain PyTorch program that trains it, by the template
  `network.py.jinja`
"""
