"""What devices are called, and which names can be one."""

from __future__ import annotations

import re

from search.exceptions import DeviceError

_DEVICE = re.compile(r"auto|(cpu|cuda)(:(0|[1-9]\d?))?")


def check_device_name(name: str) -> None:
    """Raises DeviceError where no machine has a device of that name."""
    if not _DEVICE.fullmatch(name):
        raise DeviceError(f"A device must be auto, cpu or cuda, but got {name!r}.")
