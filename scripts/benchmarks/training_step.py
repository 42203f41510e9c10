"""How fast a network trains, each way of doing it, in one run on one machine.

    python -m scripts.benchmarks.training_step              # the table
    python -m scripts.benchmarks.training_step --json       # the same as JSON
    python -m scripts.benchmarks.training_step --scaling    # and how the native step's cost grows

A step is all of it: gather a batch of bytes, rotate and shift it, normalise, forward, loss,
backward, SGD. Each way runs in a process of its own, so that it has its own threads and
instruction set; the processes take turns, round by round, and the medians are compared. Images are
random bytes of MNIST's size: how fast a step is does not depend on what they show.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from search_models.spec import Conv, ModelSpec, Output

NETWORKS = {
    "v36": "c3 8, c3 10, pool, c3 12, pool, c3 16, c3 16, out+bias, gap",
    "three-step-3": (
        "c3p1 10, c3p1 10, c3p1 10, pool, c3 16, c3 16, c3 8, c3 8, c1 8, c1 16, gap, out"
    ),
}
CASES = (("v36", 128), ("three-step-3", 64), ("three-step-3", 128))
AVX2_ONLY = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
MEAN, STD = 0.1307, 0.3081
ROTATION_DEGREES, TRANSLATION = 7.0, 0.1
N_IMAGES = 10_000


@dataclass(frozen=True)
class Way:
    """One way of training: its name in the table, what runs, and under which restrictions."""

    name: str
    kind: str
    isa: str | None = None  # of the native step
    threads: int = 1
    avx2_only: bool = False


PLAIN = Way("PyTorch fp32 NCHW, in memory", "plain")
PLAIN_AVX2 = Way("PyTorch fp32 NCHW, held to AVX2", "plain", avx2_only=True)
SEEDS = Way("seeds' way: DataLoader, torchvision, 2 threads", "seeds", threads=2)
NATIVE_AVX512 = Way("native AVX-512", "native", isa="avx512")
NATIVE_AVX2 = Way("native AVX2, PyTorch held to AVX2", "native", isa="avx2", avx2_only=True)
WAYS = (
    SEEDS,
    PLAIN,
    Way("PyTorch fp32 channels_last", "channels_last"),
    Way("PyTorch bf16 autocast channels_last", "bf16"),
    NATIVE_AVX512,
    PLAIN_AVX2,
    NATIVE_AVX2,
    Way("native baseline", "native", isa="baseline"),
)


def step_flops(spec: ModelSpec) -> int:
    """Floating-point operations of the convolutions of one training step of one image.

    A multiplication and an addition each for forward, weight gradient and input gradient; the
    first convolution needs no input gradient.
    """
    flops = 0
    channels = spec.input_shape[0]
    first = True
    for layer, (out_channels, height, width) in zip(spec.layers, spec.output_shapes(), strict=True):
        if isinstance(layer, Conv | Output):
            kernel = layer.kernel if isinstance(layer, Conv) else 1
            products = kernel * kernel * channels * out_channels * height * width
            flops += 2 * products * (2 if first else 3)
            first = False
        channels = out_channels
    return flops


# --- In the process of one way ---


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

    def __getitem__(self, place: int) -> tuple[Any, int]:
        from PIL import Image

        image = Image.fromarray(self.images[place, 0].numpy(), mode="L")
        return self.transform(image), int(self.labels[place])


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


# --- In the process that compares ---


class Runner:
    """A process that measures one way, a round at a time."""

    def __init__(self, way: Way, notation: str, batch: int, core: int | None = None) -> None:
        order = {
            "kind": way.kind,
            "isa": way.isa,
            "threads": way.threads,
            "network": notation,
            "batch": batch,
            "core": core,
        }
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", json.dumps(order)],
            env={**os.environ, **(AVX2_ONLY if way.avx2_only else {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if self._read() != "ready":
            raise RuntimeError(f"{way.name} did not start.")

    def start(self, seconds: float) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()

    def finish(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._read())
        return answer

    def round(self, seconds: float) -> dict[str, Any]:
        self.start(seconds)
        return self.finish()

    def close(self) -> None:
        self._process.communicate()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def _summary(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def _alternate(runners: dict[str, Runner], rounds: int, seconds: float) -> dict[str, list[Any]]:
    answers: dict[str, list[Any]] = {name: [] for name in runners}
    try:
        for _ in range(rounds):
            for name, runner in runners.items():
                answers[name].append(runner.round(seconds))
    finally:
        for runner in runners.values():
            runner.close()
    return answers


def _available(ways: tuple[Way, ...]) -> tuple[Way, ...]:
    from search_models import native

    isas = native.available_isas()
    return tuple(way for way in ways if way.kind != "native" or way.isa in isas)


def _median_stages(answers: list[Any]) -> dict[str, float]:
    names = answers[0]["stages"]
    return {name: statistics.median(answer["stages"][name] for answer in answers) for name in names}


def measure_case(name: str, batch: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Samples per second of every way, and the native ones' share of the matrix-product peak."""
    notation = NETWORKS[name]
    flops = step_flops(ModelSpec.parse(notation))
    ways = _available(WAYS)
    core = _cores()[-1] if _cores() else None
    runners = {
        way.name: Runner(way, notation, batch, core if way.threads == 1 else None) for way in ways
    }
    for held in (False, True):
        peak = Way("peak", "peak", avx2_only=held)
        runners[f"peak {held}"] = Runner(peak, notation, batch, core)
    answers = _alternate(runners, rounds, seconds)
    peaks = {
        held: statistics.median(answer["gflops"] for answer in answers[f"peak {held}"])
        for held in (False, True)
    }
    table: dict[str, Any] = {}
    for way in ways:
        row: dict[str, Any] = {"rate": _summary([answer["rate"] for answer in answers[way.name]])}
        row["share"] = row["rate"]["median"] * flops / 1e9 / peaks[way.avx2_only]
        if way.kind == "native":
            stages = _median_stages(answers[way.name])
            convolution = sum(
                stages[kind] for kind in ("forward", "input_gradient", "weight_gradient")
            )
            row["stages"] = stages
            row["convolution_share"] = flops / convolution / 1e3 / peaks[way.avx2_only]
        table[way.name] = row
    return {
        "network": name,
        "batch": batch,
        "step_flops": flops,
        "peak_gflops": {"all": peaks[False], "avx2": peaks[True]},
        "ways": table,
        "ratios": _ratios(table, rounds, answers),
    }


def _ratios(table: dict[str, Any], rounds: int, answers: dict[str, list[Any]]) -> dict[str, Any]:
    """Medians of the rounds' own ratios, so that what slows a whole round down drops out."""
    pairs = {
        "native AVX-512 / PyTorch": (NATIVE_AVX512, PLAIN),
        "native / PyTorch, both held to AVX2": (NATIVE_AVX2, PLAIN_AVX2),
        "native AVX-512 / seeds' way": (NATIVE_AVX512, SEEDS),
    }
    return {
        title: _summary(
            [answers[a.name][i]["rate"] / answers[b.name][i]["rate"] for i in range(rounds)]
        )
        for title, (a, b) in pairs.items()
        if a.name in table and b.name in table
    }


def measure_workers(rounds: int, seconds: float) -> dict[str, Any]:
    """Two native workers, each on a core of its own, against one of them alone."""
    cores = _cores()
    if len(cores) < 2:
        return {}
    way, *_ = _available((NATIVE_AVX512, NATIVE_AVX2, Way("native baseline", "native", "baseline")))
    result = {}
    for name, batch in CASES:
        pair = [Runner(way, NETWORKS[name], batch, core) for core in cores[:2]]
        ratios, rates = [], []
        for i in range(rounds):
            alone = pair[i % 2].round(seconds)["rate"]
            for runner in pair:
                runner.start(seconds)
            together = sum(runner.finish()["rate"] for runner in pair)
            rates.append(together)
            ratios.append(together / alone)
        for runner in pair:
            runner.close()
        result[f"{name}, batch {batch}"] = {"rate": _summary(rates), "ratio": _summary(ratios)}
    return result


def measure_scaling(rounds: int, seconds: float) -> dict[str, Any]:
    """Microseconds an image of the native step by batch size and by width."""
    way, *_ = _available((NATIVE_AVX512, NATIVE_AVX2, Way("native baseline", "native", "baseline")))
    core = _cores()[-1] if _cores() else None
    widths = {
        factor: f"c3 {8 * factor}, c3 {10 * factor}, pool, c3 {12 * factor}, pool, "
        f"c3 {16 * factor}, c3 {16 * factor}, out+bias, gap"
        for factor in (1, 2, 4)
    }
    points = {f"batch {batch}": (widths[1], batch) for batch in (16, 32, 64, 128, 256, 512)}
    points |= {f"{factor} × the channels": (widths[factor], 128) for factor in widths}
    result = {}
    for title, (notation, batch) in points.items():
        runner = Runner(way, notation, batch, core)
        rates = _alternate({title: runner}, rounds, seconds)[title]
        median = statistics.median(answer["rate"] for answer in rates)
        flops = step_flops(ModelSpec.parse(notation))
        result[title] = {"microseconds": 1e6 / median, "gflops": median * flops / 1e9}
    return result


# --- Output ---


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:  # noqa: PTH123
            return next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def print_case(case: dict[str, Any]) -> None:
    peaks = case["peak_gflops"]
    print(
        f"\n{case['network']}, batch {case['batch']}: {case['step_flops'] / 1e6:.2f} MFLOP an image"
    )
    print(f"matrix product: {peaks['all']:.0f} GFLOP/s, held to AVX2 {peaks['avx2']:.0f}\n")
    print("| way | samples/s | least – most | share of peak | convolution |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, row in case["ways"].items():
        rate = row["rate"]
        convolution = f"{row['convolution_share']:.0%}" if "convolution_share" in row else ""
        print(
            f"| {name} | {rate['median']:,.0f} | {rate['least']:,.0f} – {rate['most']:,.0f} "
            f"| {row['share']:.0%} | {convolution} |"
        )
    print("\n| ratio of rounds | median | least – most |")
    print("| --- | ---: | ---: |")
    for name, ratio in case["ratios"].items():
        print(f"| {name} | {ratio['median']:.2f} | {ratio['least']:.2f} – {ratio['most']:.2f} |")
    for name, row in case["ways"].items():
        if "stages" in row:
            parts = ", ".join(f"{stage} {value:.2f}" for stage, value in row["stages"].items())
            print(f"\n{name}, µs an image: {parts}")


def print_report(report: dict[str, Any]) -> None:
    print(", ".join(f"{name} {value}" for name, value in report["machine"].items()))
    for case in report["cases"]:
        print_case(case)
    if report["workers"]:
        print("\n| two workers | samples/s | × one (least – most) |")
        print("| --- | ---: | ---: |")
    for name, row in report["workers"].items():
        ratio = row["ratio"]
        print(
            f"| {name} | {row['rate']['median']:,.0f} "
            f"| {ratio['median']:.2f} ({ratio['least']:.2f} – {ratio['most']:.2f}) |"
        )
    if report["scaling"]:
        print("\n| native v36 | µs an image | GFLOP/s |")
        print("| --- | ---: | ---: |")
    for name, row in report["scaling"].items():
        print(f"| {name} | {row['microseconds']:.1f} | {row['gflops']:.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one round of one way")
    parser.add_argument("--scaling", action="store_true", help="also by batch size and width")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        serve(json.loads(options.serve))
        return
    import torch

    rounds, seconds = options.rounds, options.seconds
    report = {
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "rounds": rounds,
            "seconds a round": seconds,
        },
        "cases": [measure_case(name, batch, rounds, seconds) for name, batch in CASES],
        "workers": measure_workers(rounds, seconds),
        "scaling": measure_scaling(rounds, seconds) if options.scaling else {},
    }
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        print_report(report)


if __name__ == "__main__":
    main()
