"""Which sampler, pruner and shape of the space finds good networks soonest: searches replayed.

    python -m scripts.experiments.replay    # the default policies, as Markdown
    python -m scripts.experiments.replay --pictures docs/choices    # and pictures of them
    python -m scripts.experiments.replay --policies broad/tpe-5/halving-3-3    # one alone

Each replay is a search of Optuna's with its real samplers and pruners, on the spaces of the package
and with two workers, but what a trial's epochs show and cost comes from models of recorded
trainings (`surrogate.py`), so that a search takes a second. How a policy is written says
`policies.py`; each is compared with `reference`, Optuna as its users write it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from scripts.experiments.comparisons import COMPARISONS
from scripts.experiments.measures import Interval, Measures, measure
from scripts.experiments.policies import N_TRIALS, REFERENCE, Policy, Replay, make_policy, replay
from scripts.experiments.record_curves import CAP, EPOCHS, TABLE, read_table
from scripts.experiments.recorded import (
    correlations_of,
    epoch_correlations,
    markdown_of_correlations,
)
from scripts.experiments.recorded_points import points_of
from scripts.experiments.replay_pictures import draw_pictures
from scripts.experiments.surrogate import SEED_NOISE, Surrogate
from search.space.hyperparameters import OneCycle

_SLOW = {"gp": 10}  # this sampler gets one replay in so many


def _replays_of(
    policy: Policy, surrogate: Surrogate, seeds: Sequence[int], seconds: float
) -> list[Replay]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return [replay(policy, surrogate, seed, seconds=seconds) for seed in seeds]


def run_policies(
    names: Sequence[str], surrogate: Surrogate, *, n_replays: int, n_jobs: int, seconds: float
) -> dict[str, list[Replay]]:
    """The replays of each policy, with seeds from 0; a slow sampler has fewer."""
    tasks: list[tuple[Policy, Sequence[int]]] = []
    for name in names:
        policy = make_policy(name)
        share = max((n for slow, n in _SLOW.items() if f"/{slow}/" in name), default=1)
        seeds = range(max(2, n_replays // share))
        tasks += [(policy, seeds[i::n_jobs]) for i in range(min(n_jobs, len(seeds)))]
    results: dict[str, list[Replay]] = {name: [] for name in names}
    with ProcessPoolExecutor(n_jobs) as pool:
        futures = [
            (policy.name, pool.submit(_replays_of, policy, surrogate, seeds, seconds))
            for policy, seeds in tasks
        ]
        for name, future in futures:
            results[name] += future.result()
    return results


def answered_correlations(surrogate: Surrogate) -> dict[str, list[float]]:
    """The same of the recorded recipes of one-cycle, answered instead of trained."""
    recipes = [point.recipe for point in surrogate.points]
    curves = [
        np.array(surrogate.answer(recipe, 0).accuracies)
        for recipe in recipes
        if isinstance(recipe.schedule, OneCycle)
    ]
    return {f"OneCycle, answered ({len(curves)})": correlations_of(np.array(curves))}


def describe(surrogate: Surrogate) -> dict[str, Any]:
    """How answers are made, as values."""
    return {
        "points": len(surrogate.points),
        "left_out_rank_correlation": {
            kind: {"all": scores[0], "upper_half": scores[1]}
            for kind, scores in surrogate.scores.items()
        },
        "final_value_model": surrogate.chosen[0],
        "shape_models": surrogate.chosen[1:],
        "left_out_error_log": surrogate.left_out_error,
        "final_noise_log": surrogate.final_noise,
        "epoch_seconds": asdict(surrogate.cost),
    }


def markdown_of_surrogate(surrogate: Surrogate) -> str:
    cost = surrogate.cost
    lines = [
        f"{len(surrogate.points)} recorded points, {EPOCHS} epochs each, under {CAP:,} parameters. "
        f"The final value is answered by the model `{surrogate.chosen[0]}`, the three components "
        f"of the curve's shape by {', '.join(f'`{kind}`' for kind in surrogate.chosen[1:])}. A "
        f"point left out is predicted to {surrogate.left_out_error:.2f} (standard deviation, "
        "logarithm of the error). Noise of the final value: "
        f"{surrogate.final_noise:.3f} in the same unit, {100 * SEED_NOISE:.2f} percentage points "
        "in the middle of the best quarter. Seconds of an epoch: "
        f"{cost.fixed:.2f} + {1e6 * cost.per_flop:.2f} × million step operations of an image.",
        "",
        "| model of the final value | left-out rank correlation | among the upper half |",
        "| --- | --- | --- |",
        *(
            f"| {kind} | {scores[0]:.2f} | {scores[1]:.2f} |"
            for kind, scores in surrogate.scores.items()
        ),
    ]
    return "\n".join(lines)


def markdown_of_measures(measures: Sequence[Measures]) -> str:
    """A row a policy; accuracies in percent, brackets are 95 % intervals."""
    titles = (
        "policy",
        "replays",
        "named best, %",
        "seconds",
        "named at equal seconds, %",
        "reach the reference",
        "seconds until then",
        "of the reference's",
        "best tenth pruned",
        "seconds saved",
        "over the cap",
    )
    lines = [f"| {' | '.join(titles)} |", "| --- " * len(titles) + "|"]
    for row in measures:
        cells = (
            row.policy,
            str(row.n_replays),
            _brackets(row.named_best, 100, 3),
            f"{row.total_seconds:,.0f}",
            _brackets(row.named_at, 100, 3),
            f"{row.reached_share:.0%}",
            _number(row.seconds_to_reference, 0),
            _brackets(row.ratio, 1, 2),
            f"{row.false_prune_rate:.0%}",
            f"{row.saved_share:.0%}",
            f"{row.over_cap:.2f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _brackets(interval: Interval, factor: float, decimals: int) -> str:
    value, low, high = (
        _number(factor * x, decimals) for x in (interval.value, interval.low, interval.high)
    )
    return f"{value} ({low} to {high})"


def _number(value: float, decimals: int) -> str:
    return f"{value:,.{decimals}f}" if np.isfinite(value) else "never"


def _finite(value: Any) -> Any:
    """As JSON has it, which has no infinity: that becomes null."""
    match value:
        case dict():
            return {name: _finite(part) for name, part in value.items()}
        case list():
            return [_finite(part) for part in value]
        case float():
            return value if np.isfinite(value) else None
    return value


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--policies", nargs="+", metavar="NAME", help="default: all compared")
    parser.add_argument("--replays", type=int, default=100)
    parser.add_argument(
        "--seconds",
        type=float,
        default=0.0,
        help=f"compare after so many; searches go on past {N_TRIALS} trials until then "
        "(default: those of the reference, and none goes on)",
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER")
    return parser.parse_args()


def main() -> None:
    options = _options()
    surrogate = Surrogate(points_of(read_table(options.table)))
    compared = [name for names in COMPARISONS.values() for name in names]
    names = list(dict.fromkeys((REFERENCE, *(options.policies or compared))))
    results = run_policies(
        names,
        surrogate,
        n_replays=options.replays,
        n_jobs=options.jobs,
        seconds=options.seconds,
    )
    measures = [
        measure(name, results[name], results[REFERENCE], seconds=options.seconds) for name in names
    ]
    correlations = epoch_correlations(surrogate.points) | answered_correlations(surrogate)
    if options.json:
        figures = {
            "surrogate": describe(surrogate),
            "epoch_correlations": correlations,
            "policies": [asdict(row) for row in measures],
        }
        print(json.dumps(_finite(figures), indent=1))
    else:
        print(markdown_of_surrogate(surrogate), end="\n\n")
        print(markdown_of_correlations(correlations), end="\n\n")
        print(markdown_of_measures(measures))
    if options.pictures:
        draw_pictures(options.pictures, results, correlations)


if __name__ == "__main__":
    main()
