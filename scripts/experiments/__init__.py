"""The evidence behind defaults and claims: real trainings, and searches replayed from them.

Real trainings:

- `measure_baselines.py`: hand-tuned systems by their authors' protocols, claimed beside measured
- `trainings.py`: trainings that are kept in a file, over folds of the development images
- `yardstick.py`: first recipes and hand-made winners side by side, over folds
- `default_space.py`: the values with which the default space begins, changed one at a time
- `draws.py`: networks drawn evenly from the default space, or near its first values; `effects.py`:
  what each hyperparameter brings there, from all draws at once
- `situations.py`: searches where nobody wrote a space: caps, epochs, sizes, kinds of images
- `varied_images.py`: folders of images of many kinds and sizes, of Debian's fonts and icons
- `compare_recipes.py`: recipes changed one thing at a time
- `compare_steps.py`: the native step against PyTorch's, same recipes and seeds
- `several_digits.py`: how often `predict` takes one digit for several, and several for one
- `race_coverage.py`: how often the interval of a race's winner holds its true mean, simulated
- `fold_coverage.py`: how often such an interval holds the accuracy on new images, of real networks
- `compare_searches.py`: ours and Optuna as its users write it, on MNIST
- `preset_table.py`: the shipped networks as tables, from their cards

Recorded trainings, and searches replayed from them in a second each:

- `record_curves.py`: trains random points of the spaces and keeps every epoch's accuracy
- `recorded.py`: what these curves say by themselves
- `replay.py`: policies compared over many searches
    - `policies.py`: samplers, pruners and spaces by name, and one search in simulated time
    - `comparisons.py`, `measures.py`, `replay_pictures.py`: which, what each is worth, drawn
- `peers/`: ours and other libraries on recorded tasks of the default space, at equal seconds
- `compare_windows.py`: what TPE loses by learning from some of a long study's trials
- `surrogate.py`: what a recipe that was never trained would have reached
    - `recorded_points.py`, `recipe_features.py`, `regressors.py`: from what it learns, and how

Picture files:

- `fuzz_pictures.py`: files of each kind, damaged at random, and how they are read
"""
