"""What can be trained: hyperparameters, the space that they are drawn from, and systems by name.

- `hyperparameters.py`: `Hyperparameters`, all that a training run needs besides data, epochs, seed
- `space.py`: `Space`, ranges under a cap: a trial's values made hyperparameters, and shrunk to fit
- `file_space.py`: `FileSpace`, the space of a user's own networks; `network_files.py`: their file,
  read and loaded; `file_runs.py`: its functions, run for a candidate; `probe.py`: the same before a
  search begins
- `shrink.py`: a candidate scaled down to fit, and the smallest designs
- `adaptive.py`: the built-in space whose ranges follow from images, cap and epochs
- `design.py`: a network as a handful of numbers, in the notation of topologies
- `toml.py`: space files, and the built-in spaces `standard` and `wide`
- `table_checks.py`: what the entries of a space must be together
- `limits.py`: what each hyperparameter may be in any space
- `distributions.py`: values of Optuna's distributions: suggested, listed, and the nearest one
- `topologies.py`: the networks whose widths are open; `widths.py`: widths scaled to fill the cap
- `effects.py`: which hyperparameters matter in a space at all
- `transfer.py`: values of one space taken over into another
- `baselines.py`: systems that were tuned by hand; `presets.py`: where shipped networks lie
- `systems.py`: both kinds by name, and what a user's file builds
"""
