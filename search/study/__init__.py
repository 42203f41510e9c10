"""What is stored of a search, and whose it is.

The study:

- `open.py`: studies created, opened and chosen; a trial of one and its hyperparameters
- `settings.py`: `StudySettings`, what belongs to a study and never changes
- `defaults.py`: what a search takes where it is not told
- `history.py`: its runs, which study was used last, the command that searches it again
- `length.py`: whether it has been searched for long enough, and since when nothing better came
- `findings.py`: `Findings`, what came after its trials: its race, ablations, looks at the test set
- `repeat_runs.py`: `RepeatStore`, the runs of a race or an ablation, in a study beside it

Its trials:

- `record.py`: `TrialRecord`, what is stored with a trial: its epochs, its seed, its owner
- `trials.py`: the trials of a study, each judged to be one of its searches' or foreign
- `news.py`: `TrialNews`, the trials that have finished since the last call
- `summary.py`: counts, the best trials, the front: a study as plain values
- `subset.py`: a study with only some of its trials
- `stored.py`: what a number in a database must be to be one of ours
- `repair.py`: trials that ended before their time: failed, or queued again

Who searches it:

- `sharing.py`: one search on a SQLite file, any number on PostgreSQL: locks, heartbeats, lost hosts
- `locks.py`: which process searches a study; the lock beside a SQLite file
- `owners.py`: processes that own trials, and whether they live

What follows:

- `next_steps.py`: the commands that are useful now
"""
