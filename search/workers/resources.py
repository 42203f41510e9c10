"""What each worker may use: a device with a share of its memory, or a part of a cluster."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from search.exceptions import InputError

# Of a GPU's memory; the rest is for what each process holds there outside PyTorch's allocator.
_DEALT_MEMORY = 0.9


@dataclass(frozen=True, slots=True)
class DeviceShare:
    """A device for one worker.

    Args:
        memory: the share of its memory that the worker may take; None sets no bound.
    """

    device: str
    memory: float | None = None


def deal(device: str, n_workers: int, n_gpus: int) -> list[DeviceShare]:
    """A share for each worker: `cuda` goes round all GPUs, `cuda:1` stays on that one.

    Those that share a GPU share nine tenths of its memory; one that has it alone has no bound.
    """
    if not device.startswith("cuda"):
        return [DeviceShare(device)] * n_workers
    gpus = [f"cuda:{index}" for index in range(n_gpus)] if device == "cuda" else [device]
    dealt = [gpus[index % len(gpus)] for index in range(n_workers)]
    n_sharing = Counter(dealt)
    return [
        DeviceShare(gpu, None if n_sharing[gpu] == 1 else _DEALT_MEMORY / n_sharing[gpu])
        for gpu in dealt
    ]


@dataclass(frozen=True, slots=True)
class Resources:
    """What each worker takes of a cluster: CPUs, and GPUs or a fraction of one."""

    cpu: float = 1.0
    gpu: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Resources:
        """Resources from a text such as `cpu=1` or `cpu=2,gpu=0.25`; without `cpu` it is one.

        Raises:
            InputError: if they are none.
        """
        values: dict[str, float] = {}
        for part in text.split(","):
            name, _, number = part.strip().partition("=")
            try:
                value = float(number)
            except ValueError:
                value = math.nan
            if name not in ("cpu", "gpu") or name in values or not 0 <= value < math.inf:
                raise InputError(
                    "Resources must be CPUs and GPUs for each worker, as cpu=1, gpu=0.25 or "
                    f"cpu=2,gpu=1, but got {text!r}."
                )
            values[name] = value
        resources = cls(**values)
        if not resources.cpu and not resources.gpu:
            raise InputError(
                f"A worker must have a CPU or a GPU, or parts of them, but got {text!r}; take "
                "cpu=1."
            )
        if any(value > 1 and not value.is_integer() for value in values.values()):
            raise InputError(f"What is more than one must be whole, but got {text!r}; round it up.")
        return resources

    @property
    def device(self) -> str:
        return "cuda" if self.gpu else "cpu"

    @property
    def share(self) -> DeviceShare:
        """Of the device that a cluster shows a worker, which is the first GPU that it sees."""
        is_shared = 0 < self.gpu < 1
        # By number: PyTorch bounds the memory of no other.
        device = "cuda:0" if self.gpu else "cpu"
        return DeviceShare(device, _DEALT_MEMORY * self.gpu if is_shared else None)

    def n_in(self, machine: Mapping[str, float]) -> int:
        """How many workers a machine holds, by what a cluster says of it: `CPU` and `GPU`."""
        asked = {"CPU": self.cpu, "GPU": self.gpu}
        # A ten-thousandth is what clusters count in: 1 / 0.1 must be ten.
        return min(
            int(machine.get(name, 0.0) / value + 1e-4) for name, value in asked.items() if value
        )

    def __str__(self) -> str:
        return f"cpu={self.cpu:g}" + (f",gpu={self.gpu:g}" if self.gpu else "")
