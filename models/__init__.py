"""Small convolutional networks: as values, in closed form, as PyTorch modules, as a compiled step.

The folder is imported as `search_models`, so that no models.py of a user's stands in its way.

- `network.py`: `Network`, what is asked of a network as a value, whoever wrote it
- `spec.py`: `ModelSpec`, such a value, and the notation people write it in; `Topology`, one whose
  widths are open; `layers.py`: the layers that the notation knows
- `own.py`: `OwnSpec`, a network that a user's file builds; `network_file.py`: that file, run;
  `suggestions.py`: what its function is given as a trial;
  `module_rows.py`: the layers of any module
- `size.py`: parameter count, receptive field and layer table, by arithmetic on a spec
- `convnet.py`: `ConvNet`, the PyTorch module of a spec
- `native/`: the training step compiled for a CPU
- `presets/`: weights and cards of the shipped networks
"""
