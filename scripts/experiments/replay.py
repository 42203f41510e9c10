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
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray

from scripts.experiments.policies import (
    N_TRIALS,
    REFERENCE,
    Floats,
    Policy,
    Replay,
    make_policy,
    replay,
)
from scripts.experiments.record_curves import CAP, EPOCHS, TABLE, read_table
from scripts.experiments.recorded import (
    correlations_of,
    epoch_correlations,
    markdown_of_correlations,
)
from scripts.experiments.surrogate import SEED_NOISE, Surrogate, points_of
from search.report.palette import RIGHT, STOPPED, WRONG
from search.space.hyperparameters import OneCycle

# Matplotlib's own but for blue, orange and grey, which have a meaning.
_COLOURS = ("C2", "C4", "C5", "C6", "C8", "C9", "C3")
_N_BOOTSTRAPS = 500
_SLOW = {"gp": 10}  # this sampler gets one replay in so many
Chosen = NDArray[np.intp]  # replays by number, some twice

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


# --- Many searches ---


@dataclass(frozen=True)
class Interval:
    """A figure, and the 95 % interval of it over bootstraps of the replays."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Measures:
    """What a policy is worth, over its replays.

    Args:
        named_best: median, over the replays, of the true value of the trial that the search names
            best at its end: accuracy, from 0 to 1.
        total_seconds: median training seconds of all its trained trials.
        named_at: median true value of the trial that it names best once it has trained so many
            seconds as all are compared after, or at its end if that is sooner.
        reached_share: of the replays that name a trial at least as good as the reference's median
            at its end.
        seconds_to_reference: median training seconds until then; infinite where most never do.
        ratio: of those to the seconds that the reference trains in all.
        false_prune_rate: of the best tenth of a search's trials, by true value, the share that was
            pruned; the mean over replays.
        saved_share: of the seconds that its trials would train to their end; the mean.
        over_cap: trials over the cap for each trained one; the mean.
    """

    policy: str
    n_replays: int
    named_best: Interval
    total_seconds: float
    named_at: Interval
    reached_share: float
    seconds_to_reference: float
    ratio: Interval
    false_prune_rate: float
    saved_share: float
    over_cap: float


class Paths:
    """The named best of several replays as matrices, padded at the end with its last entry."""

    def __init__(self, replays: Sequence[Replay]) -> None:
        paths = [replay.named_best() for replay in replays]
        width = max(len(spent) for spent, _ in paths)
        self.spent, self.named = (
            np.array([np.pad(path[i], (0, width - len(path[i])), mode="edge") for path in paths])
            for i in (0, 1)
        )
        self.total = np.array([replay.spent for replay in replays])

    def __len__(self) -> int:
        return len(self.total)

    def seconds_to(self, value: float) -> Floats:
        """Of each replay until it names a trial of that true value; infinite where it does not."""
        is_reached = self.named >= value
        first = self.spent[np.arange(len(self)), is_reached.argmax(axis=1)]
        return np.where(is_reached.any(axis=1), first, np.inf)

    def named_at(self, spent: Floats) -> Floats:
        """Of each replay, what it names after so many seconds; 0 before its first trial's end."""
        values = []
        for row, named in zip(self.spent, self.named, strict=True):
            place = np.searchsorted(row, spent, side="right")
            values.append(np.concatenate(([0.0], named))[place])
        return np.array(values)


def _interval(value: float, samples: Sequence[float]) -> Interval:
    # An order statistic, because infinite samples cannot be interpolated.
    low, high = np.quantile(samples, (0.025, 0.975), method="nearest")
    return Interval(value, float(low), float(high))


def measure(
    name: str, replays: Sequence[Replay], reference: Sequence[Replay], *, seconds: float = 0.0
) -> Measures:
    """A policy's figures. For the intervals its replays and the reference's are drawn anew.

    They are drawn apart, although replays of one seed and sampler begin with the same trials, so
    two policies differ more surely than their intervals say.

    Args:
        seconds: after which policies are compared; 0: those that the reference trains in all.
    """
    own, other = Paths(replays), Paths(reference)
    at_seconds = own.named_at(np.array([seconds or np.median(other.total)]))[:, 0]

    def ratio(chosen: Chosen, references: Chosen) -> float:
        target = float(np.median(other.named[references, -1]))
        seconds = np.median(own.seconds_to(target)[chosen])
        return float(seconds / np.median(other.total[references]))

    random = np.random.default_rng(0)
    draws = [
        (random.integers(len(own), size=len(own)), random.integers(len(other), size=len(other)))
        for _ in range(_N_BOOTSTRAPS)
    ]
    until = own.seconds_to(float(np.median(other.named[:, -1])))
    return Measures(
        policy=name,
        n_replays=len(own),
        named_best=_median_interval(own.named[:, -1], draws),
        total_seconds=float(np.median(own.total)),
        named_at=_median_interval(at_seconds, draws),
        reached_share=float(np.isfinite(until).mean()),
        seconds_to_reference=float(np.median(until)),
        ratio=_interval(
            ratio(np.arange(len(own)), np.arange(len(other))), [ratio(*draw) for draw in draws]
        ),
        false_prune_rate=float(np.mean([_false_prune_rate(replay) for replay in replays])),
        saved_share=float(np.mean([_saved_share(replay) for replay in replays])),
        over_cap=float(np.mean([replay.n_over / len(replay.records) for replay in replays])),
    )


def _median_interval(values: Floats, draws: Sequence[tuple[Chosen, Chosen]]) -> Interval:
    return _interval(
        float(np.median(values)), [float(np.median(values[chosen])) for chosen, _ in draws]
    )


def _false_prune_rate(replay: Replay) -> float:
    ranked = sorted(replay.records, key=lambda record: record.true_value, reverse=True)
    best = ranked[: max(1, len(ranked) // 10)]
    return sum(record.value is None for record in best) / len(best)


def _saved_share(replay: Replay) -> float:
    whole = sum(EPOCHS * record.epoch_seconds for record in replay.records)
    return 1 - replay.spent / whole


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


# --- Output ---


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


def draw_pictures(
    folder: Path,
    results: Mapping[str, Sequence[Replay]],
    correlations: Mapping[str, Sequence[float]],
) -> None:
    """One picture for each comparison of which two policies ran, and one of the epochs."""
    folder.mkdir(parents=True, exist_ok=True)
    for title, names in COMPARISONS.items():
        shown = {name: results[name] for name in (REFERENCE, *names) if name in results}
        if len(shown) > 2:
            _draw_paths(folder / f"{title}.png", title, shown, styles(title, list(shown)))
    _draw_correlations(folder / "epochs.png", correlations)


def pyplot() -> Any:
    """Imported where pictures are asked for, and without a screen to show them on."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def styles(title: str, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """How each policy is drawn in a comparison: what is in several of them, in the same colour."""
    fixed = {REFERENCE: WRONG, CHOSEN: RIGHT}
    coloured = COLOURED.get(title, tuple(names))
    others = [name for name in names if name not in fixed and name in coloured]
    colours = fixed | {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(others)}
    dashed = set(others[len(_COLOURS) :])
    return {
        name: {
            "color": colours.get(name, STOPPED),
            "linestyle": "--" if name in dashed else "-",
            "zorder": 2 if name in colours else 1,
        }
        for name in names
    }


def _draw_paths(
    path: Path,
    title: str,
    shown: Mapping[str, Sequence[Replay]],
    drawn_as: Mapping[str, Mapping[str, Any]],
) -> None:
    """The median of the named best's true error, and the 95 % interval of that median."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(9, 6))
    for name, replays in shown.items():
        paths = Paths(replays)
        # From where each replay has named a trial to where half of them have ended.
        spent = np.linspace(paths.spent[:, 0].max(), np.median(paths.total), 200)
        errors = 100 * (1 - paths.named_at(spent))
        style = drawn_as[name]
        is_grey = style["color"] == STOPPED
        axes.plot(spent, np.median(errors, axis=0), label=None if is_grey else name, **style)
        if is_grey:
            continue
        random = np.random.default_rng(0)
        medians = [
            np.median(errors[random.integers(len(errors), size=len(errors))], axis=0)
            for _ in range(_N_BOOTSTRAPS)
        ]
        band = np.quantile(medians, (0.025, 0.975), axis=0)
        axes.fill_between(spent, *band, color=style["color"], alpha=0.1, linewidth=0)
    axes.set(xlabel="training seconds", ylabel="true error of the named best, %", title=title)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:.2f}")
    axes.yaxis.set_minor_formatter("{x:.2f}")
    if any(style["color"] == STOPPED for style in drawn_as.values()):
        axes.plot([], [], color=STOPPED, label="others, in the table")
    axes.legend(fontsize="small", loc="upper right")
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)


def _draw_correlations(path: Path, correlations: Mapping[str, Sequence[float]]) -> None:
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(8, 5))
    for name, row in correlations.items():
        axes.plot(range(1, EPOCHS + 1), row, marker=".", label=name)
    axes.set(xlabel="epoch", ylabel="rank correlation with the final value")
    axes.legend(fontsize="small", loc="lower right")
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)


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
