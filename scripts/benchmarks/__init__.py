"""How fast it is, and how it grows: what is measured on one machine, for the figures in `docs/`.

- `help_latency.py`: how long each command takes to answer `--help`
- `stop_latency.py`: how long a search takes to end once it is asked to
- `long_queue.py`: how long the first page of a long queue of searches takes
- `training_step.py`: how fast a network trains, each way of doing it: in a `step_process.py` of its
  own, beside what `step_flops.py` says that it must compute; `step_tables.py` prints it
- `gpu_trials.py`: trials on a GPU, alone and eight at once
- `scale.py`: how a search grows, whose training is played back
    - `search_cost.py`: what coordinator and database cost a trial, by workers and trials
    - `playback.py`, `finished_trials.py`, `played_search.py`: what such a search is made of
"""
