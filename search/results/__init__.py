"""What is done with the trials of a study that has ended.

- `retrain.py`: the best trial trained on all data, and the test set opened
- `looks.py`: looks at the test set by commands without a study before them (`pictures`,
  `baseline`), counted with theirs
- `predict.py`: what a retrained network says of pictures; `readers.py`: which it can be asked about
- `confirm.py`: `ConfirmationRun`, the best trials again over fresh seeds; `confirmation.py`: what
  came of it; `race.py`: who wins, and who gets the next run; `race_length.py`: how long that
  takes; `folds.py`: which part of the data validates which run; `confirmed.py`: what a study keeps
- `target.py`: whether the winner reaches a target, and under which cap to search next
- `ablate.py`: a trial and each change of it trained; `ablation.py`: the changes, and what they did;
  `own_changes.py`: those of a network that a user's file builds
- `compare.py`: studies side by side
"""
