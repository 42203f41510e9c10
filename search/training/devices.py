"""What devices are called, and which names can be one."""

from __future__ import annotations

import ctypes
import functools
import re
import sys
from pathlib import Path

from search.exceptions import DeviceError

_DEVICE = re.compile(r"auto|(cpu|cuda)(:(0|[1-9]\d?))?")


def check_device_name(name: str) -> None:
    """Raises DeviceError where no machine, or surely not this one, has a device of that name."""
    if not isinstance(name, str) or not _DEVICE.fullmatch(name):
        raise DeviceError(f"A device must be auto, cpu or cuda, but got {name!r}.")
    if name.startswith("cuda") and not _may_have_gpu():
        raise DeviceError(
            f"The device {name} needs a GPU, but this machine has no driver of one; leave --device "
            "out to train on what there is."
        )


@functools.cache
def _may_have_gpu() -> bool:
    """Whether a driver that PyTorch's CUDA or ROCm builds could use is there, told without them."""
    if Path("/dev/kfd").exists():  # AMD's
        return True
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True
