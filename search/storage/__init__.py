"""Optuna's database: opened, read and written fast, and waited for where its server is away."""
