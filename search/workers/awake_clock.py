"""Time as a process lives it: what passes while it is stopped, or the machine sleeps, is left out.

By the monotonic clock, so that setting the time of day changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class AwakeClock:
    """Seconds that this process has been awake since the clock was made.

    Ask it more often than every `longest_gap` seconds: a longer gap counts as that much, because
    in it the process did not run.

    Args:
        now: seconds of the clock that goes on meanwhile.
    """

    def __init__(self, *, longest_gap: float, now: Callable[[], float] = time.monotonic) -> None:
        self._longest_gap = longest_gap
        self._now = now
        self._asked = now()
        self._seconds = 0.0

    def seconds(self) -> float:
        now = self._now()
        self._seconds += min(now - self._asked, self._longest_gap)
        self._asked = now
        return self._seconds
