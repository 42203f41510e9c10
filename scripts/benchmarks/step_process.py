"""One way of training in a process of its own, which measures a round whenever it is told to.

`training_step.py` starts it, so that each way has its own threads and instruction set.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from scripts.benchmarks.step_flops import map_bytes
from search_models.spec import ModelSpec

MEAN, STD = 0.1307, 0.3081
ROTATION_DEGREES, TRANSLATION = 7.0, 0.1
N_IMAGES = 10_000


def _images() -> tuple[Any, Any]:
    import torch

    images = torch.randint(256, (N_IMAGES, 1, 28, 28), dtype=torch.uint8)
    return images, torch.randint(10, (N_IMAGES,))


def _recipe(order: dict[str, Any]) -> Any:
    """The hyperparameters of the system `order` names, with its batch and, if given, network."""
    from search.space.systems import find_system

    recipe = replace(find_system(order["system"]).hyperparameters, batch_size=order["batch"])
    if order["network"] is not None:
        recipe = replace(recipe, spec=ModelSpec.parse(order["network"]))
    return recipe


def _steps(
    recipe: Any, backward: Callable[[Any, Any], None], parameters: Any, state: Any
) -> Callable[[], None]:
    """Steps as an epoch of `search.training.train` does them, over and over."""
    import torch

    from search.training.augment import draw_warps
    from search.training.averaging import WeightAverage
    from search.training.optimizers import make_optimizer
    from search.training.train import make_scheduler

    batch = recipe.batch_size
    n_batches = N_IMAGES // batch
    generator = torch.Generator().manual_seed(0)
    optimizer = make_optimizer(recipe, parameters)
    scheduler = make_scheduler(recipe, optimizer, 10_000, steps_per_epoch=n_batches)
    horizon = recipe.ema_epochs * n_batches
    average = WeightAverage(state, horizon) if horizon else None

    def endless() -> Iterator[None]:
        while True:
            order = torch.randperm(N_IMAGES, generator=generator)
            warps = draw_warps(recipe.augmentation, N_IMAGES, generator)
            for start in range(0, n_batches * batch, batch):
                part = slice(start, start + batch)
                backward(order[part], None if warps is None else warps[part])
                optimizer.step()
                if average is not None:
                    average.update()
                scheduler.step()
                yield

    steps = endless()
    return lambda: next(steps)


def _native_steps(recipe: Any, isa: str | None) -> tuple[Callable[[], None], Any]:
    from search.data.dataset import Examples
    from search.data.normalization import Normalization
    from search.training.engines import NativeEngine
    from search_models import native
    from search_models.convnet import ConvNet

    kernel = native.kernel(isa)  # type: ignore[arg-type]
    assert kernel is not None, native.unavailable_reason()
    engine = NativeEngine(
        ConvNet(recipe.spec),
        Examples(*_images()),
        Normalization((MEAN,), (STD,)),
        kernel,
        batch_size=recipe.batch_size,
        seed=0,
    )
    return _steps(recipe, engine.backward, engine.parameters, engine.state), engine.native


def _pytorch_steps(recipe: Any, kind: str) -> Callable[[], None]:
    import torch
    from torch.nn import functional as F

    from search.training.augment import warp
    from search_models.convnet import ConvNet

    nchw = kind in ("plain", "compiled")
    layout = torch.contiguous_format if nchw else torch.channels_last
    network = ConvNet(recipe.spec).to(memory_format=layout)
    forward = torch.compile(network) if kind == "compiled" else network
    images, labels = _images()

    def backward(index: Any, warps: Any) -> None:
        pixels = images[index].float().div_(255)
        if warps is not None:
            pixels = warp(pixels, warps.matrices, warps.displacements)
        pixels = pixels.sub_(MEAN).div_(STD)
        network.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind == "bf16"):
            logits = forward(pixels.to(memory_format=layout))
        torch.autograd.backward([F.cross_entropy(logits.float(), labels[index])])

    state = [value for value in network.state_dict().values() if value.is_floating_point()]
    return _steps(recipe, backward, list(network.parameters()), state)


class _PilDigits:
    """Random digits as torchvision.datasets.MNIST hands them out."""

    def __init__(self) -> None:
        from torchvision import transforms

        self.images, self.labels = _images()
        self.transform = transforms.Compose(
            [
                transforms.RandomAffine(ROTATION_DEGREES, (TRANSLATION, TRANSLATION)),
                transforms.ToTensor(),
                transforms.Normalize((MEAN,), (STD,)),
            ]
        )

    def __len__(self) -> int:
        return N_IMAGES

    def __getitem__(self, index: int) -> tuple[Any, int]:
        from PIL import Image

        image = Image.fromarray(self.images[index, 0].numpy(), mode="L")
        return self.transform(image), int(self.labels[index])


def _seeds_steps(recipe: Any) -> Callable[[], None]:
    import torch
    from torch.nn import functional as F
    from torch.utils.data import DataLoader

    from search_models.convnet import ConvNet

    loader: Any = DataLoader(_PilDigits(), recipe.batch_size, shuffle=True, drop_last=True)  # type: ignore[arg-type]
    network = ConvNet(recipe.spec)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)

    def endless() -> Iterator[Any]:
        while True:
            yield from loader

    batches = endless()

    def step() -> None:
        pixels, labels = next(batches)
        optimizer.zero_grad()
        torch.autograd.backward([F.cross_entropy(network(pixels), labels)])
        optimizer.step()

    return step


def _matrix_product_peak() -> float:
    """GFLOP/s of a large single-precision matrix product, by the faster of PyTorch's libraries.

    `torch.mm` is MKL's, which keeps an AMD processor to AVX2; oneDNN's, behind linear layers that
    the compiler rewrote, does not.
    """
    import torch

    size = 1024
    a, b = torch.randn(size, size), torch.randn(size, size)

    def onednn() -> Any:
        return torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")

    rates = []
    for product in (lambda: torch.mm(a, b), onednn):
        try:
            product()
        except (RuntimeError, AttributeError, NotImplementedError):
            continue
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            for _ in range(4):
                product()
            seconds.append(time.perf_counter() - start)
        rates.append(4 * 2 * size**3 / statistics.median(seconds) / 1e9)
    return max(rates)


def _bandwidth(n_bytes: int) -> float:
    """GB/s read and written together, going over `n_bytes` of memory in place again and again."""
    import torch

    values = torch.zeros(n_bytes // 4)
    n_times = max(1, 2**24 // n_bytes)
    seconds = []
    for _ in range(9):
        start = time.perf_counter()
        for _ in range(n_times):
            values.add_(1)
        seconds.append(time.perf_counter() - start)
    return n_times * 2 * n_bytes / statistics.median(seconds) / 1e9


def _rate(step: Callable[[], None], batch: int, seconds: float) -> float:
    n_steps = 0
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        step()
        n_steps += 1
    return n_steps * batch / (time.perf_counter() - start)


def _stages(step: Callable[[], None], network: Any, batch: int) -> dict[str, float]:
    """Microseconds an image by kind of work, `rest` being augmentation, optimiser and Python."""
    start = time.perf_counter()
    with network.profile() as seconds:
        for _ in range(10):
            step()
    whole = time.perf_counter() - start
    seconds["rest"] = whole - sum(seconds.values())
    return {name: value / (10 * batch) * 1e6 for name, value in seconds.items()}


def serve(order: dict[str, Any]) -> None:
    """Set one way up, then measure a round for each line of the standard input."""
    import torch

    if order["core"] is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {order["core"]})
    torch.set_num_threads(order["threads"])
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    recipe, kind = _recipe(order), order["kind"]
    batch = recipe.batch_size
    network = None
    step: Callable[[], None] | None = None
    if kind == "native":
        step, network = _native_steps(recipe, order["isa"])
    elif kind == "seeds":
        step = _seeds_steps(recipe)
    elif kind != "peak":
        step = _pytorch_steps(recipe, kind)
    if step is not None:
        for _ in range(5):
            step()
    print("ready", flush=True)
    for line in sys.stdin:
        answer: dict[str, Any] = {}
        if step is None:
            answer["gflops"] = _matrix_product_peak()
            answer["bandwidth"] = _bandwidth(batch * map_bytes(recipe.spec))
        else:
            answer["rate"] = _rate(step, batch, float(line))
        if step is not None and network is not None:
            answer["stages"] = _stages(step, network, batch)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
