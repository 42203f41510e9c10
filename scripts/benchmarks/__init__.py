"""How fast it is, and how it grows: what is measured on one machine, for the figures in `docs/`.

- `help_latency.py`: how long each command takes to answer `--help`
- `training_step.py`: how fast a network trains, each way of doing it
- `scale.py`: what coordinator and database cost a trial, by workers and trials
"""
