"""One search from request to outcome: ask, hand out, report, prune, tell.

Before it begins:

- `options.py`: what may be asked, each option with its text and its default.
- `request.py`: a request checked, and its texts parsed.
- `preflight.py`: what it would meet, looked at before PyTorch is loaded.
- `plan.py`: what a search will do: its data, space, study and workers; `length.py`: how long
  it is where nobody says.
- `warm_start.py`: the best trials of an earlier study, which a new one tries first.

While it runs:

- `run.py`: the whole of it, as the command and Python call it; `watcher.py`: who is told.
- `words.py`: what both say of it.
- `target_search.py`: from cap to cap, where a target is to be reached.
- `session.py`: one study open, its trials trained, its best ones raced.
- `coordinator.py`: the loop: see what is new, start what is missing, have written what workers
  send, cancel what is to stop.
- `trial_starter.py`: how a trial begins; `sampler.py`: where its candidate is drawn, under the cap;
  `dedup.py`: not one that was tried; `near_first.py`: the first ones about what a space begins
  with; `window.py`: what a sampler sees of a long study.
- `trial_writer.py`: an epoch stored, and whether its trial is to stop; a trial's end stored, then
  told as one of `events.py`.
- `pruning.py`: whether a trial is weak; `pruners.py`: Optuna's pruners by name.
- `trackers.py`: what other programs are told, as TensorBoard.
- `known_study.py`: the study that a search goes on with which names no data set.
- `final_race.py`: the race over fresh seeds at its end.
"""
