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
from typing import Any

from search_models.spec import ModelSpec

MEAN, STD = 0.1307, 0.3081
ROTATION_DEGREES, TRANSLATION = 7.0, 0.1
N_IMAGES = 10_000


def _random_matrices(n: int) -> Any:
    """Rotations and translations, (n, 2, 3), as affine_grid takes them."""
    import math

    import torch

    angle = (2 * torch.rand(n) - 1) * math.radians(ROTATION_DEGREES)
    shift = (2 * torch.rand(n, 2) - 1) * 2 * TRANSLATION
    cos, sin = angle.cos(), angle.sin()
    turn = torch.stack((torch.stack((cos, -sin), 1), torch.stack((sin, cos), 1)), 1)
    return torch.cat((turn, shift.unsqueeze(2)), 2)


def _images() -> tuple[Any, Any]:
    import torch

    images = torch.randint(256, (N_IMAGES, 1, 28, 28), dtype=torch.uint8)
    return images, torch.randint(10, (N_IMAGES,))


def _batches(batch: int) -> Iterator[Any]:
    import torch

    while True:
        yield from torch.split(torch.randperm(N_IMAGES)[: N_IMAGES // batch * batch], batch)


def _native_steps(spec: ModelSpec, batch: int, isa: str | None) -> tuple[Callable[[], None], Any]:
    import torch

    from search_models import native
    from search_models.convnet import ConvNet

    kernel = native.kernel(isa)  # type: ignore[arg-type]
    assert kernel is not None, native.unavailable_reason()
    network = native.NativeNetwork(ConvNet(spec), kernel, batch)
    buffer = native.Batch(kernel, spec.input_shape, batch, mean=(MEAN,), std=(STD,))
    optimizer = torch.optim.SGD([network.parameters], lr=0.01, momentum=0.9)
    images, labels = _images()
    indices = _batches(batch)

    def step() -> None:
        buffer.fill(images, labels, next(indices), _random_matrices(batch))
        network.step(buffer)
        optimizer.step()

    return step, network


def _pytorch_steps(spec: ModelSpec, batch: int, kind: str) -> Callable[[], None]:
    import torch
    from torch.nn import functional as F

    from search_models.convnet import ConvNet

    layout = torch.contiguous_format if kind == "plain" else torch.channels_last
    network = ConvNet(spec).to(memory_format=layout)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    images, labels = _images()
    indices = _batches(batch)

    def step() -> None:
        index = next(indices)
        pixels = images[index].float().div_(255)
        grid = F.affine_grid(_random_matrices(batch), list(pixels.shape), align_corners=False)
        pixels = F.grid_sample(pixels, grid, align_corners=False).sub_(MEAN).div_(STD)
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind == "bf16"):
            logits = network(pixels.to(memory_format=layout))
        torch.autograd.backward([F.cross_entropy(logits.float(), labels[index])])
        optimizer.step()

    return step


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


def _seeds_steps(spec: ModelSpec, batch: int) -> Callable[[], None]:
    import torch
    from torch.nn import functional as F
    from torch.utils.data import DataLoader

    from search_models.convnet import ConvNet

    loader: Any = DataLoader(_PilDigits(), batch, shuffle=True, drop_last=True)  # type: ignore[arg-type]
    network = ConvNet(spec)
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
    spec, batch, kind = ModelSpec.parse(order["network"]), order["batch"], order["kind"]
    network = None
    step: Callable[[], None] | None = None
    if kind == "native":
        step, network = _native_steps(spec, batch, order["isa"])
    elif kind == "seeds":
        step = _seeds_steps(spec, batch)
    elif kind != "peak":
        step = _pytorch_steps(spec, batch, kind)
    if step is not None:
        for _ in range(5):
            step()
    print("ready", flush=True)
    for line in sys.stdin:
        answer: dict[str, Any] = {}
        if step is None:
            answer["gflops"] = _matrix_product_peak()
        else:
            answer["rate"] = _rate(step, batch, float(line))
        if step is not None and network is not None:
            answer["stages"] = _stages(step, network, batch)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
