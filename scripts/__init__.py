"""What contributors run, from the top of a checkout.

- `check`: before each commit; CI runs it as well
- `audit`: known vulnerabilities of all that is installed
- `sanitize_native`: the tests of the compiled step under ASan and UBSan
- `chaos.py`: a search whose processes are killed at random, and an audit of what it stored
- `queue_chaos.py`, `queue_audit.py`: the same of a queue, its servers and searches
- `run_notebook.py`: runs `docs/python.ipynb` and writes it anew
- `picture_of_run.py`: makes the README's picture anew
- `benchmarks/`, `experiments/`: as `python -m scripts.benchmarks.NAME`; their faces say which
"""
