"""Ablation: one recipe with one thing changed at a time, and what each change makes of it.

Pure: which changes there are, and the statistics. `search.results.ablate` trains them.

Every change is trained with the same seeds as the unchanged recipe and validated by the same parts
of the data, so that the difference is taken run by run, and Student's t gives its 95 % confidence
interval. It is one over seeds and new images: differences on one part count as one, their mean.
Three things to keep in mind when reading one:

- An interval is at 95 %. Of twenty changes without any effect one is expected to look better or
  worse, so ten comparisons expect half a false alarm.
- The recipe was chosen on some of these images, which favours it a little where they validate. Of
  data with fewer than three parts, the interval is about seeds alone.
- Nothing else is tuned again. A change that is worse is worse with this recipe's learning rate.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

from search.results.folds import mean_over_parts, means_of_parts
from search.results.own_changes import own_changes
from search.results.race import mean_interval
from search.space.hyperparameters import (
    Augmentation,
    Constant,
    Cosine,
    Hyperparameters,
    OneCycle,
    Schedule,
    StepDecay,
)
from search_models.layers import Conv, DepthwiseConv, Dropout, Output, SpecError
from search_models.network import Network, in_notation
from search_models.own import OwnSpec
from search_models.spec import ModelSpec

UNCHANGED = "unchanged"
# Two have one difference between them: Student's t would be 12.7, and the interval absurd.
LEAST_SEEDS = 3
# As the standard space fixes them.
_SCHEDULES: dict[str, Schedule] = {
    "one-cycle": OneCycle(warmup_share=0.2),
    "step": StepDecay(step_share=0.4, gamma=0.1),
    "cosine": Cosine(),
    "constant": Constant(),
}

Verdict = Literal["worse", "better", "within noise", "diverged", "over budget"]


def variants(hyperparameters: Hyperparameters) -> list[tuple[str, Hyperparameters]]:
    """The recipe with one thing changed, and what that is; without changes that change nothing.

    These are: no augmentation; each kind of augmentation alone, with the recipe's own range; no
    elastic distortion; no mirroring; augmentation whose ranges do not shrink; no momentum, weight
    decay, dropout, label smoothing or weight averaging; ReLU instead of hard swish; each of the
    other schedules, with the parameters that the standard space fixes; half the width of every
    convolution; and the next simpler topology.

    The next simpler topology lacks the last convolution that can be removed. Without `out` that
    is not the last one, whose channels are the logits, unless the one before has as many. Pools,
    dropout and depthwise convolutions stay, and are not counted. Such a network may have more
    parameters, where a narrow 1×1 convolution goes.

    Of a network that a user's file builds, `own_changes` says what is changed in the place of
    dropout, activation, widths and topology.
    """
    return [
        (name, changed) for name, changed in _changes(hyperparameters) if changed != hyperparameters
    ]


def _changes(hyperparameters: Hyperparameters) -> Iterator[tuple[str, Hyperparameters]]:
    yield "no augmentation", replace(hyperparameters, augmentation=Augmentation())
    for field in fields(Augmentation):
        size = getattr(hyperparameters.augmentation, field.name)
        if size:
            alone = replace(hyperparameters, augmentation=Augmentation(**{field.name: size}))
            yield f"only {field.name.removesuffix('_degrees')}", alone
    for kind, words in (("elastic", "no elastic distortion"), ("flip", "no mirroring")):
        rest = replace(hyperparameters.augmentation, **{kind: 0.0})
        if not rest.is_identity:
            yield words, replace(hyperparameters, augmentation=rest)
    if not hyperparameters.augmentation.is_identity:
        yield "augmentation to the end", replace(hyperparameters, final_augmentation=1.0)
    yield "no momentum", _without_momentum(hyperparameters)
    yield "no weight decay", replace(hyperparameters, weight_decay=0.0)
    yield "no label smoothing", replace(hyperparameters, label_smoothing=0.0)
    yield "no weight averaging", replace(hyperparameters, ema_epochs=0.0)
    for name, schedule in _SCHEDULES.items():
        if type(schedule) is not type(hyperparameters.schedule):
            yield f"{name} schedule", replace(hyperparameters, schedule=schedule)
    for change, spec in _network_changes(hyperparameters.spec):
        yield change, replace(hyperparameters, spec=spec)


def _network_changes(spec: Network) -> Iterator[tuple[str, Network]]:
    if isinstance(spec, OwnSpec):
        yield from own_changes(spec)
        return
    spec = in_notation(spec)
    yield "no dropout", _without_dropout(spec)
    yield "ReLU instead of hard swish", _with_relu(spec)
    yield "half the width", _half_width(spec)
    yield from _simpler(spec)


def _without_momentum(hyperparameters: Hyperparameters) -> Hyperparameters:
    schedule = hyperparameters.schedule
    if isinstance(schedule, OneCycle):  # which may bring a momentum of its own
        schedule = replace(schedule, cycle_momentum=False)
    return replace(hyperparameters, momentum=0.0, schedule=schedule)


def _with_relu(spec: ModelSpec) -> ModelSpec:
    return replace(
        spec,
        layers=tuple(
            replace(layer, activation="relu") if isinstance(layer, Conv | DepthwiseConv) else layer
            for layer in spec.layers
        ),
    )


def _without_dropout(spec: ModelSpec) -> ModelSpec:
    if not any(isinstance(layer, Dropout) and layer.rate > 0 for layer in spec.layers):
        return spec
    kept = tuple(layer for layer in spec.layers if not isinstance(layer, Dropout))
    return replace(spec, layers=kept)


def _half_width(spec: ModelSpec) -> ModelSpec:
    """Every convolution with half its channels, rounded down, but at least one.

    Without `out`, the last one keeps its channels, which are the logits.
    """
    positions = _conv_positions(spec)
    if not any(isinstance(layer, Output) for layer in spec.layers):
        positions.pop()
    layers = list(spec.layers)
    for position in positions:
        conv = layers[position]
        assert isinstance(conv, Conv)
        layers[position] = replace(conv, channels=max(1, conv.channels // 2))
    return replace(spec, layers=tuple(layers))


def _simpler(spec: ModelSpec) -> Iterator[tuple[str, ModelSpec]]:
    """The network without the last convolution that can be removed, counted from 1, if any."""
    layers = spec.layers
    for number, position in reversed(list(enumerate(_conv_positions(spec), start=1))):
        try:
            kept = replace(spec, layers=layers[:position] + layers[position + 1 :])
        except SpecError:
            continue
        yield f"without conv {number}", kept
        return


def _conv_positions(spec: ModelSpec) -> list[int]:
    return [i for i, layer in enumerate(spec.layers) if isinstance(layer, Conv)]


@dataclass(frozen=True, slots=True)
class Difference:
    """How much better a change is than the unchanged recipe, as a share of the images.

    Args:
        mean: of the parts' means.
        interval: the 95 % confidence interval of the mean; None for fewer than `LEAST_SEEDS`.
    """

    mean: float
    interval: tuple[float, float] | None

    @classmethod
    def of(cls, differences: Sequence[float], parts: Sequence[int] | None = None) -> Difference:
        """From one difference a run, by Student's t.

        Args:
            parts: that of each run; of fewer than three of them, or none, each run counts.

        Raises:
            ValueError: if there is none.
        """
        if not differences:
            raise ValueError("A difference needs at least one seed, but there is none.")
        of_parts = means_of_parts(differences, [0] * len(differences) if parts is None else parts)
        told = of_parts if len(of_parts) >= LEAST_SEEDS else differences
        interval = mean_interval(told) if len(told) >= LEAST_SEEDS else None
        return cls(statistics.fmean(of_parts), interval)

    @property
    def verdict(self) -> Verdict | None:
        """What the interval says; None without one."""
        if self.interval is None:
            return None
        low, high = self.interval
        if low > 0:
            return "better"
        return "worse" if high < 0 else "within noise"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of an ablation: a change and what it makes of the recipe.

    Args:
        accuracies: mean validation accuracy of the last three epochs, as a share, one a run;
            None where the loss did not stay finite, or the run was not finished.
        mean: of the accuracies; None without any, or where the loss of one run did not stay finite.
        difference, interval: those of `Difference`, over the runs that both recipes finished;
            None for the unchanged recipe, and where either has no mean.
        verdict: None for the unchanged recipe, and where there is no interval.
    """

    change: str
    parameter_count: int
    accuracies: list[float | None]
    mean: float | None = None
    difference: float | None = None
    interval: tuple[float, float] | None = None
    verdict: Verdict | None = None


def make_row(
    change: str,
    parameter_count: int,
    accuracies: Sequence[float | None],
    *,
    parts: Sequence[int] | None = None,
    is_diverged: bool,
    reference: Row | None,
) -> Row:
    """The line of a change.

    Args:
        accuracies: as `Row` has them.
        parts: that validated each run, as `Difference.of` takes them.
        is_diverged: whether the loss of any run did not stay finite. Then there is no mean: that
            of the runs that are left would flatter the change.
        reference: the line of the unchanged recipe, over the same runs; None for itself.
    """
    row = Row(change, parameter_count, list(accuracies))
    if is_diverged:
        return replace(row, verdict="diverged")
    parts = [0] * len(accuracies) if parts is None else parts
    known = {i: accuracy for i, accuracy in enumerate(accuracies) if accuracy is not None}
    if known:
        row = replace(row, mean=mean_over_parts(list(known.values()), [parts[i] for i in known]))
    pairs = _paired_differences(accuracies, reference)
    if not pairs:
        return row
    found = Difference.of(list(pairs.values()), [parts[i] for i in pairs])
    return replace(row, difference=found.mean, interval=found.interval, verdict=found.verdict)


def _paired_differences(
    accuracies: Sequence[float | None], reference: Row | None
) -> dict[int, float]:
    """By the index of the run."""
    if reference is None or reference.mean is None:
        return {}
    pairs = zip(accuracies, reference.accuracies, strict=True)
    return {
        index: ours - theirs
        for index, (ours, theirs) in enumerate(pairs)
        if ours is not None and theirs is not None
    }
