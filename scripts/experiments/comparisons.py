"""Which policies are compared with each other, and which of many are worth a colour."""

from __future__ import annotations

COMPARISONS = {
    "spaces": (
        "reference-standard",
        *(
            f"{space}/tpe/halving-5-3"
            for space in (
                "broad-drawn",
                "broad",
                "standard-drawn",
                "standard",
                "standard+width_1=8",
                "even",
                "wide-drawn",
                "wide",
            )
        ),
    ),
    "samplers": tuple(
        f"standard/{sampler}/halving-5-3"
        for sampler in ("random", "qmc", "tpe-5", "tpe", "tpe-20", "gp", "cmaes")
    ),
    "pruners": tuple(
        f"standard/tpe/{pruner}"
        for pruner in (
            "none",
            "median-0",
            "median-5",
            "percentile-25-5",
            "halving-1-2",
            "halving-1-3",
            "halving-3-2",
            "halving-3-3",
            "halving-5-2",
            "halving-5-3",
            "halving-8-3",
            "hyperband-5-3",
            "patient-2-median-5",
            "patient-1-halving-3-3",
        )
    ),
    "first-trials": (
        "standard/tpe/halving-5-3",
        "standard/tpe/halving-5-3/first",
        "standard/tpe/halving-5-3/baselines",
        "broad-drawn/tpe/halving-5-3/baselines",
    ),
    **{
        name: tuple(f"wide+{name}={choice}/tpe/halving-5-3" for choice in choices)
        for name, choices in {
            "topology": range(1, 6),
            "schedule": ("one-cycle", "step", "cosine", "constant"),
            "optimizer": ("nesterov", "adamw"),
            "batch_size": (32, 64, 128, 256, 512),
        }.items()
    },
}
CHOSEN = "standard/tpe/halving-5-3"  # what `search run` does
# Of a comparison of many: those worth a colour. The others are grey, and stand in the table.
COLOURED = {
    "pruners": (CHOSEN, *(f"standard/tpe/{name}" for name in ("none", "median-5", "halving-1-3"))),
}
