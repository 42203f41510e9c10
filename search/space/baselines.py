"""Five hand-tuned systems by name: their networks, their recipes, and what their authors claim.

Each tries to classify MNIST as well as possible under a cap on parameters and epochs, and was
tuned by hand. Where an author left something open, `choices` says what was chosen here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from search.exceptions import InputError
from search.space.hyperparameters import (
    Augmentation,
    Constant,
    Cosine,
    Hyperparameters,
    OneCycle,
    StepDecay,
)
from search_models.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class Claim:
    """Test accuracies in percent, as an author printed them; None where he did not."""

    last_epoch: float | None = None
    best_epoch: float | None = None
    last_three_mean: float | None = None


@dataclass(frozen=True, slots=True)
class Baseline:
    """One system to train by name: hand-made, or found by search.

    Args:
        epochs: how long its author trained.
        n_held_out: how many of the training images its author kept for validation.
        choices: what its author left open, and what is taken here.
        found_as: the trial and study, where a search found it and its claim is measured here.
    """

    name: str
    hyperparameters: Hyperparameters
    epochs: int
    claim: Claim
    n_held_out: int = 0
    choices: tuple[str, ...] = ()
    found_as: str | None = None

    @property
    def has_cycled_momentum(self) -> bool:
        """Whether the schedule moves momentum, so that the recipe's own never acts."""
        schedule = self.hyperparameters.schedule
        return isinstance(schedule, OneCycle) and schedule.cycle_momentum

    def with_own_momentum(self) -> Baseline:
        """The other reading of a OneCycle recipe: the momentum written beside it acts."""
        schedule = self.hyperparameters.schedule
        if not isinstance(schedule, OneCycle):
            raise InputError(
                f"Only a baseline with a OneCycle schedule cycles its momentum, but {self.name} "
                "has another; leave --own-momentum out."
            )
        hyperparameters = replace(
            self.hyperparameters, schedule=replace(schedule, cycle_momentum=False)
        )
        return replace(self, hyperparameters=hyperparameters)

    def on_all_images(self) -> Baseline:
        """Trained on those too that its author held out, as the networks beside it are.

        Raises:
            InputError: if its author held none out.
        """
        if not self.n_held_out:
            raise InputError(
                f"Only a baseline whose author held images out can train on more, but {self.name} "
                "trains on all; leave --all-images out."
            )
        return replace(self, n_held_out=0, choices=())  # they say which ones were held out


_V36_HYPERPARAMETERS = Hyperparameters(
    spec=ModelSpec.parse("c3 8, c3 10, pool, c3 12, pool, c3 16, c3 16, out+bias, gap"),
    optimizer="sgd",
    learning_rate=0.05,
    momentum=0.98,
    weight_decay=5e-5,
    schedule=OneCycle(
        warmup_share=0.05, div_factor=10.0, final_div_factor=100.0, cycle_momentum=True
    ),
    batch_size=128,
    augmentation=Augmentation(rotation_degrees=7.0, translation=0.1),
)
_V36_CHOICES = (
    "SGD, batch size 128 and div_factor 10: these reproduce the fifteen learning rates printed.",
    "rotation ±7° and translation ±10 %: the ranges were not published.",
    "PyTorch's OneCycleLR cycles momentum unless told otherwise, so the 0.98 written beside it "
    "never acts; --own-momentum measures the other reading.",
)

BASELINES: dict[str, Baseline] = {
    baseline.name: baseline
    for baseline in (
        Baseline(
            name="three-step-1",
            hyperparameters=Hyperparameters(
                spec=ModelSpec.parse("c3 8, c3 16, c3 8, pool, c3 16, c3 8, c3 16, c3 8, gap, out"),
                optimizer="adam",
                learning_rate=0.02,
                schedule=Constant(),
                batch_size=128,
            ),
            epochs=15,
            claim=Claim(last_epoch=99.35),
            choices=("Adam and no augmentation: the text names them only in general.",),
        ),
        Baseline(
            name="three-step-2",
            hyperparameters=Hyperparameters(
                spec=ModelSpec.parse(
                    "c3 10, c3 10, c3 10, pool, c3 16, c3 16, c3 8, c3 8, c1 16, gap, out"
                ),
                optimizer="adam",
                learning_rate=0.005,
                schedule=Constant(),
                batch_size=64,
            ),
            epochs=15,
            claim=Claim(last_epoch=99.34),
            choices=("Adam: the text names it only in general.",),
        ),
        Baseline(
            name="three-step-3",
            hyperparameters=Hyperparameters(
                spec=ModelSpec.parse(
                    "c3p1 10, c3p1 10, c3p1 10, pool, c3 16, c3 16, c3 8, c3 8, c1 8, c1 16, "
                    "gap, out"
                ),
                optimizer="adam",
                learning_rate=0.005,
                schedule=StepDecay(step_share=8 / 15, gamma=0.1),
                batch_size=64,
            ),
            epochs=15,
            claim=Claim(last_epoch=99.50, best_epoch=99.52, last_three_mean=99.48),
        ),
        Baseline(
            name="under-20k",
            hyperparameters=Hyperparameters(
                spec=ModelSpec.parse(
                    "c3p1 10, c3p1 18, drop 0.05, pool, c3p1 18, c3p1 28, drop 0.05, pool, "
                    "c3p1 28, c3p1 10, gap"
                ),
                optimizer="sgd",
                learning_rate=0.1,
                momentum=0.9,
                weight_decay=1e-4,
                schedule=OneCycle(warmup_share=0.2, cycle_momentum=True, total_epochs=15),
                batch_size=512,
                augmentation=Augmentation(rotation_degrees=7.0, translation=0.1),
            ),
            epochs=12,
            claim=Claim(last_epoch=99.42, best_epoch=99.42, last_three_mean=99.32),
            choices=(
                "PyTorch's OneCycleLR cycles momentum unless told otherwise, so the 0.9 written "
                "beside it never acts; --own-momentum measures the other reading.",
            ),
        ),
        Baseline(
            name="v36",
            hyperparameters=_V36_HYPERPARAMETERS,
            epochs=15,
            claim=Claim(last_epoch=99.44, last_three_mean=99.42),
            choices=_V36_CHOICES,
        ),
        Baseline(
            name="v36-bias",
            hyperparameters=replace(
                _V36_HYPERPARAMETERS,
                spec=ModelSpec.parse(
                    "c3+bias 8, c3+bias 10, pool, c3+bias 12, pool, c3+bias 16, c3+bias 16, "
                    "out+bias, gap"
                ),
            ),
            epochs=15,
            claim=Claim(last_epoch=99.44, last_three_mean=99.42),
            choices=(
                "a bias on every convolution, which is how the author of v36 counted it.",
                *_V36_CHOICES,
            ),
        ),
        Baseline(
            name="one-epoch",
            hyperparameters=Hyperparameters(
                spec=ModelSpec.parse(
                    "c3p1 16, pool, c3p1 32, pool, c3p1 64, pool, gap, drop 0.1, out"
                ),
                optimizer="adam",
                learning_rate=0.015,
                weight_decay=1e-4,
                schedule=Cosine(final_learning_rate=0.001),
                batch_size=64,
                gradient_clip=1.0,
            ),
            epochs=1,
            claim=Claim(last_epoch=97.68, best_epoch=97.68, last_three_mean=97.68),
            n_held_out=6_000,
            choices=(
                "6,000 training images held out, drawn evenly over the classes: which ones its "
                "author took was not published.",
            ),
        ),
        Baseline(
            name="step-lr",
            hyperparameters=Hyperparameters(
                spec=ModelSpec.parse("c3 8, c3 10, pool, c3 14, pool, c3 18, c3 18, out+bias, gap"),
                optimizer="sgd",
                learning_rate=0.05,
                momentum=0.9,
                schedule=StepDecay(step_share=6 / 15, gamma=0.1),
                batch_size=128,
            ),
            epochs=15,
            claim=Claim(last_epoch=99.43, last_three_mean=99.45),
            choices=(
                "its author published neither network nor optimiser: this is a network of ours "
                "under 8,000 parameters, with SGD at 0.05 and momentum 0.9.",
                "StepLR with step 6 and gamma 0.1: the jump in its curve comes after six epochs.",
            ),
        ),
    )
}
