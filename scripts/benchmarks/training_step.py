"""How fast a network trains, each way of doing it, in one run on one machine.

    python -m scripts.benchmarks.training_step              # the tables
    python -m scripts.benchmarks.training_step --json       # the same as JSON
    python -m scripts.benchmarks.training_step --scaling    # and how the native step's cost grows
    python -m scripts.benchmarks.training_step --against OLD.so --cases expert-8k expert-small

A step is all of it, as the system's recipe has it: gather a batch of bytes, warp it, normalise,
forward, loss, backward, optimiser, schedule and weight average. Each way runs in a process of its
own, so that it has its own threads and instruction set; the processes take turns, round by round,
and the medians are compared. Images are random bytes of MNIST's size: how fast a step is does not
depend on what they show.

The limit of a network is what no step can go below that computes its convolutions by multiplying
and keeps its maps: their arithmetic at the peak of a matrix product, then each map written once and
read once at the bandwidth of memory of their size.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import Any

from scripts.benchmarks.step_flops import map_bytes, step_flops
from scripts.benchmarks.step_tables import print_report
from search.space.systems import find_system
from search_models.network import in_notation
from search_models.spec import ModelSpec

CASES = (
    *(("expert-8k", 32), ("expert-small", 32)),
    *(("v36", 128), ("three-step-3", 64), ("three-step-3", 128)),
)
AVX2_ONLY = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}


@dataclass(frozen=True)
class Way:
    """One way of training: its name in the table, what runs, and under which restrictions."""

    name: str
    kind: str
    isa: str | None = None  # of the native step
    threads: int = 1
    avx2_only: bool = False
    library: str | None = None  # another build of the native step

    @property
    def is_pytorch(self) -> bool:
        return self.kind not in ("native", "seeds", "peak")


SEEDS = Way("seeds' way: DataLoader, torchvision, 2 threads", "seeds", threads=2)
NATIVE_AVX512 = Way("native AVX-512", "native", isa="avx512")
NATIVE_AVX2 = Way("native AVX2", "native", isa="avx2", avx2_only=True)
NATIVE_BASELINE = Way("native baseline", "native", isa="baseline")
WAYS = (
    SEEDS,
    Way("PyTorch fp32 NCHW, in memory", "plain"),
    Way("PyTorch fp32 channels_last", "channels_last"),
    Way("PyTorch bf16 autocast channels_last", "bf16"),
    Way("PyTorch fp32, torch.compile", "compiled"),
    NATIVE_AVX512,
    Way("PyTorch fp32 NCHW, held to AVX2", "plain", avx2_only=True),
    Way("PyTorch fp32 channels_last, held to AVX2", "channels_last", avx2_only=True),
    NATIVE_AVX2,
    NATIVE_BASELINE,
)


class Runner:
    """A process that measures one way, a round at a time."""

    def __init__(
        self,
        way: Way,
        system: str,
        batch: int,
        core: int | None = None,
        *,
        network: str | None = None,
    ) -> None:
        order = {
            "kind": way.kind,
            "isa": way.isa,
            "threads": way.threads,
            "system": system,
            "network": network,
            "batch": batch,
            "core": core,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "scripts.benchmarks.step_process", json.dumps(order)],
            env={
                **os.environ,
                **(AVX2_ONLY if way.avx2_only else {}),
                **({"BUDGET_SEARCH_NATIVE": way.library} if way.library else {}),
            },
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


def _of_other_build(way: Way, library: str) -> Way:
    return replace(way, name=f"{way.name}, other build", library=library)


def _ways(against: str | None) -> tuple[Way, ...]:
    ways = _available(WAYS)
    if against is None:
        return ways
    natives = [way for way in ways if way.isa in ("avx512", "avx2")]
    return (*ways, *(_of_other_build(way, against) for way in natives))


def _median_stages(answers: list[Any]) -> dict[str, float]:
    names = answers[0]["stages"]
    return {name: statistics.median(answer["stages"][name] for answer in answers) for name in names}


def measure_case(
    name: str, batch: int, rounds: int, seconds: float, *, against: str | None
) -> dict[str, Any]:
    """Samples per second of every way, and their share of the matrix-product peak and the limit."""
    spec = in_notation(find_system(name).hyperparameters.spec)
    flops = step_flops(spec)
    ways = _ways(against)
    core = _cores()[-1] if _cores() else None
    runners = {
        way.name: Runner(way, name, batch, core if way.threads == 1 else None) for way in ways
    }
    for held in (False, True):
        peak = Way("peak", "peak", avx2_only=held)
        runners[f"peak {held}"] = Runner(peak, name, batch, core)
    answers = _alternate(runners, rounds, seconds)
    peaks, bandwidths = (
        {
            held: statistics.median(answer[kind] for answer in answers[f"peak {held}"])
            for held in (False, True)
        }
        for kind in ("gflops", "bandwidth")
    )
    limits = {
        held: 1e6 * (flops / peaks[held] + 2 * map_bytes(spec) / bandwidths[held]) / 1e9
        for held in (False, True)
    }
    table: dict[str, Any] = {}
    for way in ways:
        row: dict[str, Any] = {"rate": _summary([answer["rate"] for answer in answers[way.name]])}
        rate = row["rate"]["median"]
        row["share"] = rate * flops / 1e9 / peaks[way.avx2_only]
        row["share_of_limit"] = rate * limits[way.avx2_only] / 1e6
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
        "map_bytes": map_bytes(spec),
        "peak_gflops": {"all": peaks[False], "avx2": peaks[True]},
        "bandwidth_gb": {"all": bandwidths[False], "avx2": bandwidths[True]},
        "limit_microseconds": {"all": limits[False], "avx2": limits[True]},
        "ways": table,
        "ratios": _ratios(ways, rounds, answers),
    }


def _ratios(
    ways: tuple[Way, ...], rounds: int, answers: dict[str, list[Any]]
) -> dict[str, dict[str, float]]:
    """Medians of the rounds' own ratios, so that what slows a whole round down drops out."""
    ratios = {}
    for native in (way for way in ways if way in (NATIVE_AVX512, NATIVE_AVX2)):
        others = {
            f"{native.name} / fastest PyTorch": [
                way for way in ways if way.is_pytorch and way.avx2_only == native.avx2_only
            ],
            f"{native.name} / other build": [
                way for way in ways if way.library and way.isa == native.isa
            ],
        }
        if native is NATIVE_AVX512:
            others[f"{native.name} / seeds' way"] = [SEEDS]
        for title, rivals in others.items():
            if rivals:
                ratios[title] = _summary(
                    [
                        answers[native.name][i]["rate"]
                        / max(answers[rival.name][i]["rate"] for rival in rivals)
                        for i in range(rounds)
                    ]
                )
    return ratios


def measure_workers(cases: list[tuple[str, int]], rounds: int, seconds: float) -> dict[str, Any]:
    """Two native workers, each on a core of its own, against one of them alone."""
    cores = _cores()
    if len(cores) < 2:
        return {}
    way, *_ = _available((NATIVE_AVX512, NATIVE_AVX2, NATIVE_BASELINE))
    result = {}
    for name, batch in cases:
        pair = [Runner(way, name, batch, core) for core in cores[:2]]
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
    way, *_ = _available((NATIVE_AVX512, NATIVE_AVX2, NATIVE_BASELINE))
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
        runner = Runner(way, "v36", batch, core, network=notation)
        rates = _alternate({title: runner}, rounds, seconds)[title]
        median = statistics.median(answer["rate"] for answer in rates)
        flops = step_flops(ModelSpec.parse(notation))
        result[title] = {"microseconds": 1e6 / median, "gflops": median * flops / 1e9}
    return result


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:  # noqa: PTH123
            return next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one round of one way")
    parser.add_argument("--scaling", action="store_true", help="also by batch size and width")
    parser.add_argument(
        "--cases", nargs="+", choices=sorted({name for name, _ in CASES}), help="only these systems"
    )
    parser.add_argument(
        "--against", metavar="PATH", help="also another build of the native step's library"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args()
    import torch

    rounds, seconds = options.rounds, options.seconds
    cases = [case for case in CASES if not options.cases or case[0] in options.cases]
    report = {
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "rounds": rounds,
            "seconds a round": seconds,
        },
        "cases": [
            measure_case(name, batch, rounds, seconds, against=options.against)
            for name, batch in cases
        ],
        "workers": measure_workers(cases, rounds, seconds),
        "scaling": measure_scaling(rounds, seconds) if options.scaling else {},
    }
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        print_report(report)


if __name__ == "__main__":
    main()
