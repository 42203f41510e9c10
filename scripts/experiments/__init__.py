"""The evidence behind defaults and claims: real trainings, and searches replayed from them.

Real trainings:

- `measure_baselines.py`: hand-tuned systems by their authors' protocols, claimed beside measured
- `compare_recipes.py`: recipes changed one thing at a time
- `compare_steps.py`: the native step against PyTorch's, same recipes and seeds
- `compare_searches.py`: ours and Optuna as its users write it, on MNIST
- `preset_table.py`: the shipped networks as tables, from their cards

Searches replayed, in seconds instead of hours:

- `record_curves.py`: trains random points of the spaces and keeps every epoch's accuracy
- `recorded.py`: what these curves say by themselves
- `surrogate.py`: what a recipe that was never trained would have reached
- `policies.py`: samplers, pruners and spaces by name, and one search in simulated time
- `replay.py`: policies compared over many such searches, as tables and pictures
"""
