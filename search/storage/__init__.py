"""Optuna's database, fast and patient."""
