"""PyTorch's optimisers, without the compiler behind them, and a step that is one call.

Making or stepping an optimiser imports `torch._dynamo`, for the sake of those who compile theirs,
which takes longer than importing all the rest of PyTorch. And a step of PyTorch's sorts parameters
and states before it calls its fused arithmetic: on the few parameters of a small network that takes
several times as long as the arithmetic. These classes call it directly, one kernel for all
parameters.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from search.space.hyperparameters import Hyperparameters


def _step(arithmetic: Callable[[Any], None]) -> Callable[[Any], None]:
    """A step without gradients, and without the profiler's hook that PyTorch puts around others."""
    step = torch.no_grad()(arithmetic)
    step.hooked = True  # type: ignore[attr-defined]
    return step


class _Fused(Optimizer):
    """All parameters in one group, each with a gradient at every step, and state from the start."""

    add_param_group = inspect.unwrap(Optimizer.add_param_group)

    def __init__(self, parameters: Sequence[nn.Parameter], **settings: Any) -> None:
        super().__init__(parameters, settings)
        self._parameters: list[Tensor] = list(parameters)

    def _state(self, name: str) -> list[Tensor]:
        """A tensor of zeros for each parameter, kept under `name`."""
        tensors = [torch.zeros_like(parameter) for parameter in self._parameters]
        for parameter, tensor in zip(self._parameters, tensors, strict=True):
            self.state[parameter][name] = tensor
        return tensors

    def _gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self._parameters if parameter.grad is not None]


class _Sgd(_Fused):
    def __init__(self, parameters: Sequence[nn.Parameter], **settings: Any) -> None:
        super().__init__(parameters, **settings)
        self._momenta = self._state("momentum_buffer")
        self._is_first = True

    @_step
    def step(self) -> None:  # type: ignore[override]
        group = self.param_groups[0]
        has_momentum = group["momentum"] > 0  # which a schedule may change
        torch._fused_sgd_(
            self._parameters,
            self._gradients(),
            self._momenta if has_momentum else [],
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            lr=group["lr"],
            dampening=0.0,
            nesterov=group["nesterov"],
            maximize=False,
            is_first_step=self._is_first,
        )
        self._is_first = self._is_first and not has_momentum


class _Adam(_Fused):
    _arithmetic = staticmethod(torch._fused_adam_)

    def __init__(self, parameters: Sequence[nn.Parameter], **settings: Any) -> None:
        super().__init__(parameters, **settings)
        self._means, self._squares = self._state("exp_avg"), self._state("exp_avg_sq")
        self._n_steps = torch.zeros((), device=parameters[0].device)  # one for all parameters

    @_step
    def step(self) -> None:  # type: ignore[override]
        group = self.param_groups[0]
        beta1, beta2 = group["betas"]
        self._n_steps += 1
        self._arithmetic(
            self._parameters,
            self._gradients(),
            self._means,
            self._squares,
            [],
            [self._n_steps] * len(self._parameters),
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=group["weight_decay"],
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )


class _AdamW(_Adam):
    _arithmetic = staticmethod(torch._fused_adamw_)


def make_optimizer(
    hyperparameters: Hyperparameters, parameters: Sequence[nn.Parameter]
) -> Optimizer:
    """The optimiser of a recipe, on the device of its parameters."""
    rate, decay = hyperparameters.learning_rate, hyperparameters.weight_decay
    momentum = hyperparameters.momentum
    match hyperparameters.optimizer:
        case "sgd" | "nesterov" as name:
            nesterov = name == "nesterov" and momentum > 0
            return _Sgd(
                parameters, lr=rate, momentum=momentum, weight_decay=decay, nesterov=nesterov
            )
        case "adam" | "adamw" as name:
            cls = _Adam if name == "adam" else _AdamW
            return cls(parameters, lr=rate, betas=(momentum, 0.999), weight_decay=decay)
