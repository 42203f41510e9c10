"""Searches by other libraries and ours, replayed on recorded trainings of the default space.

    python -m scripts.experiments.peers.play --environments FOLDER    # searches, kept one by one
    python -m scripts.experiments.peers.table                         # what they found

- `tasks.py`: recorded tasks, on which any configuration is answered
- `play.py`: one search by each way, at equal training seconds, with one race at the end of all
- `ways.py`: ours, ours without one of its parts, Optuna as its users write it, random search
- `client.py`: the line between `play.py` and a peer, which runs in an environment of its own
- `neps_peer.py`, `smac_peer.py`, `syne_peer.py`: NePS, SMAC3, Syne Tune
- `table.py`: means and paired differences

FOLDER holds an environment for each peer, which no other needs:

    uv venv neps && uv pip install --python neps/bin/python neural-pipeline-search==0.17.0
    uv venv smac && uv pip install --python smac/bin/python smac==2.4.0 "scikit-learn<1.8"
    uv venv syne && uv pip install --python syne/bin/python "syne-tune[gpsearchers]==0.16.0" \\
        huggingface_hub
"""
