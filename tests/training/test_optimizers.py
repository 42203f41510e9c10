"""The optimisers are PyTorch's, and do not import its compiler."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from search.space.hyperparameters import Hyperparameters
from search.training.optimizers import make_optimizer
from search_models.spec import ModelSpec

ALL = ("sgd", "nesterov", "adam", "adamw")
IMPORTS = """
import sys
from search import Hyperparameters, train
from search_models.spec import ModelSpec
from search.data.load import load_dataset
digits = load_dataset("digits", sys.argv[1])
few = digits.development[:256]
spec = ModelSpec.parse("c3 2, pool, gap, out")
for optimizer in sys.argv[2:]:
    for use_native in (False, True):
        list(train(Hyperparameters(spec, 0.01, optimizer=optimizer, gradient_clip=1.0),
                   few, few, digits.info.normalization, epochs=1, use_native=use_native))
print(*sorted({"torch", "torch._dynamo", "sympy"} & set(sys.modules)))
"""


def of_pytorch(name: str, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    settings: dict[str, Any] = {"lr": 0.05, "weight_decay": 0.1, "fused": True}
    if name in ("sgd", "nesterov"):
        return torch.optim.SGD(parameters, momentum=0.8, nesterov=name == "nesterov", **settings)
    cls = torch.optim.Adam if name == "adam" else torch.optim.AdamW
    return cls(parameters, betas=(0.8, 0.999), **settings)


@pytest.mark.parametrize("name", ALL)
def test_each_step_is_pytorchs_to_the_bit(name: Any) -> None:
    spec = ModelSpec.parse("c3 2, pool, gap, out")
    hyperparameters = Hyperparameters(spec, 0.05, optimizer=name, momentum=0.8, weight_decay=0.1)
    start = torch.randn(100, generator=torch.Generator().manual_seed(0))
    gradients = torch.randn(20, 100, generator=torch.Generator().manual_seed(1))
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizers = (make_optimizer(hyperparameters, [ours]), of_pytorch(name, [theirs]))
    for gradient in gradients:
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
        assert torch.equal(ours, theirs)
    assert not torch.equal(ours, start)


def test_training_imports_no_compiler(tmp_path: Path) -> None:
    command = [sys.executable, "-c", IMPORTS, str(tmp_path), *ALL]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("torch\n", "")
