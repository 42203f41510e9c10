"""What a search takes where it is not told: a command that is told again leaves these out."""

from __future__ import annotations

SPACE = "adaptive"
OBJECTIVE = "accuracy"
METRIC = "accuracy"
SAMPLER = "tpe"
PRUNER = "halving"
SEED = 0
