"""Searches by other libraries and ours: replayed on recorded trainings, or real ones.

    python -m scripts.experiments.peers.play --environments FOLDER    # searches, kept one by one
    python -m scripts.experiments.peers.table                         # what they found
    python -m scripts.experiments.peers.real --task digits-8000 --environments FOLDER   # real ones

- `tasks.py`: recorded tasks, on which any configuration is answered
- `trainer.py`: trains the configurations of a search, and counts its seconds
- `real.py`: real searches of judged tasks, at equal training seconds, with one race at their ends
- `play.py`: one replayed search by each way, at equal seconds, with one race at the end of all
- `ways.py`: ours, ours without one of its parts, Optuna as its users write it, random search
- `client.py`: the line to a peer, which runs in an environment of its own
- `neps_peer.py`, `smac_peer.py`, `syne_peer.py`: NePS, SMAC3, Syne Tune
- `table.py`: means and paired differences

FOLDER holds an environment for each peer, which no other needs:

    uv venv neps && uv pip install --python neps/bin/python neural-pipeline-search==0.17.0
    uv venv smac && uv pip install --python smac/bin/python smac==2.4.0 "scikit-learn<1.8"
    uv venv syne && uv pip install --python syne/bin/python "syne-tune[gpsearchers]==0.16.0" \\
        huggingface_hub
"""
