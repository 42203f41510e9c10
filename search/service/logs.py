"""What the searches of jobs printed: it lies where they ran."""

from __future__ import annotations

import os
import socket

from search.exceptions import JobError
from search.service.folder import ServiceFolder
from search.service.jobs import Job

_LONGEST = 1 << 18  # bytes at a time


def read_log(storage: str, job: Job, offset: int) -> bytes:
    """A part of what the search of a job printed, from an offset on; nothing at its end.

    Args:
        storage: the URL of the database.
        offset: in bytes.

    Raises:
        JobError: if it ran on another machine.
    """
    path = ServiceFolder(storage).log(job.number)
    try:
        with path.open("rb") as file:
            # No further than its end: a file system refuses an offset that it could not have.
            file.seek(min(offset, os.fstat(file.fileno()).st_size))
            return file.read(_LONGEST)
    except FileNotFoundError:
        if job.host not in (None, socket.gethostname()):
            raise JobError(
                f"A log must be read where the search ran, but {job.name} ran on {job.host}; give "
                "the same command there."
            ) from None
        return b""
