"""How a study is shown: its report, and what optuna-dashboard shows of it besides its trials."""
