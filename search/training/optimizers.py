"""PyTorch's optimisers, without the compiler behind them.

Making or stepping an optimiser imports `torch._dynamo`, for the sake of those who compile theirs,
which takes longer than importing all the rest of PyTorch. Their arithmetic stands in functions of
their own that the hooks of the compiler wrap; these classes call it directly.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from torch import nn
from torch.optim import Optimizer

from search.space.hyperparameters import Hyperparameters


class _Sgd(torch.optim.SGD):
    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    step = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))


class _Adam(torch.optim.Adam):
    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))


class _AdamW(torch.optim.AdamW):
    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


def make_optimizer(
    hyperparameters: Hyperparameters, parameters: Sequence[nn.Parameter]
) -> Optimizer:
    """The optimiser of a recipe, on the device of its parameters."""
    rate, decay = hyperparameters.learning_rate, hyperparameters.weight_decay
    # On a GPU, one kernel for all parameters.
    fused = True if parameters[0].is_cuda else None
    match hyperparameters.optimizer:
        case "sgd" | "nesterov" as name:
            return _Sgd(
                parameters,
                lr=rate,
                momentum=hyperparameters.momentum,
                weight_decay=decay,
                nesterov=name == "nesterov" and hyperparameters.momentum > 0,
                fused=fused,
            )
        case "adam" | "adamw" as name:
            cls = _Adam if name == "adam" else _AdamW
            betas = (hyperparameters.momentum, 0.999)
            return cls(parameters, lr=rate, betas=betas, weight_decay=decay, fused=fused)
