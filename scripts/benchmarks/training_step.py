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
from dataclasses import dataclass
from typing import Any

from scripts.benchmarks.step_flops import step_flops
from search_models.spec import ModelSpec

NETWORKS = {
    "v36": "c3 8, c3 10, pool, c3 12, pool, c3 16, c3 16, out+bias, gap",
    "three-step-3": (
        "c3p1 10, c3p1 10, c3p1 10, pool, c3 16, c3 16, c3 8, c3 8, c1 8, c1 16, gap, out"
    ),
}
CASES = (("v36", 128), ("three-step-3", 64), ("three-step-3", 128))
AVX2_ONLY = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}


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
            [sys.executable, "-m", "scripts.benchmarks.step_process", json.dumps(order)],
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
    options = parser.parse_args()
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
