"""One training run: a network trained epoch by epoch, and its weights.

- `train.py`: `train`, the loop: batches, learning rate, one `EpochResult` an epoch
- `epochs.py`: `EpochResult`, and a trial's value, the mean of its last three epochs
- `engines.py`: the training step: in PyTorch, compiled for a CPU, or as a CUDA graph;
  `compiled.py`: a user's network as PyTorch compiles it
- `augment.py`: images turned, shifted, scaled, sheared, bent and mirrored, a batch at once
- `optimizers.py`: the optimisers
- `averaging.py`: the moving average of the weights
- `metrics.py`: accuracy, and balanced accuracy for classes of uneven size
- `weights.py`: weights on disk, written and loaded; `card.py`: the card beside them
- `devices.py`: what devices are called
- `doctor.py`: how fast each step is on this machine
"""
