"""The errors that a user can meet.

    SearchError                     anything that is not a bug; exit code 1
    ├── InputError                  something given is wrong; exit code 2
    │   ├── SpaceError              a search space that cannot be used
    │   ├── DataError               a data set that is missing or broken
    │   │   └── DataUnavailableError    it is neither at hand nor to be downloaded
    │   ├── StorageError            a database that cannot be opened
    │   │   └── StorageUnreachableError     its server does not answer
    │   ├── StudyError              a study or trial that does not exist, or differs from this run
    │   │   └── UnknownStudyError   there is none of that name
    │   ├── DeviceError             a device that is not there
    │   ├── JobError                a job that cannot be what is asked of it
    │   │   └── UnknownJobError     there is none of that name
    │   └── CardError               weights that cannot be loaded
    ├── TrainingError               a training run that could not be finished
    ├── ServiceError                a server that does not answer, or refuses what is asked of it
    ├── ExportError                 an exported network that does not do what the original does
    ├── DatabaseError               a database that failed while it was used
    │   └── DatabaseUnreachableError    its server stays away
    ├── ArtifactError               curves or weights of trials that cannot be written
    └── StudyDeletedError           the study was deleted while it was searched

Every message states the rule, the value and the fix. The command line catches
`SearchError` once; whatever else is raised is a bug and keeps its traceback.
"""

from __future__ import annotations


class SearchError(Exception):
    """Anything that went wrong and is not a bug.

    Attributes:
        exit_code: with which a command ends that meets it.
        is_temporary: whether the same may go well later, as only a server was away.
    """

    exit_code = 1
    is_temporary = False


class InputError(SearchError):
    """Something given is wrong: an option, a file, a name."""

    exit_code = 2


class SpaceError(InputError):
    """A search space that cannot be used."""


class DataError(InputError):
    """A data set that is missing or broken."""


class DataUnavailableError(DataError):
    """A data set that is neither at hand nor to be downloaded; `reason` says why not."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class StorageError(InputError):
    """A database that cannot be opened."""


class StorageUnreachableError(StorageError):
    """A database whose server is away as it is opened, or takes no connections for a while."""

    is_temporary = True


class StudyError(InputError):
    """A study or trial that does not exist, or differs from what this run asks for."""


class UnknownStudyError(StudyError):
    """A study or trial that does not exist."""


class DeviceError(InputError):
    """A device that is not there."""


class JobError(InputError):
    """A job that cannot be what is asked of it."""


class UnknownJobError(JobError):
    """A job that does not exist."""


class CardError(InputError):
    """Weights, or the card beside them, that cannot be loaded."""


class TrainingError(SearchError):
    """A training run that could not be finished."""


class ServiceError(SearchError):
    """A server of a queue that does not answer, or refuses what is asked of it."""


class ExportError(SearchError):
    """An exported network that does not do what the original does."""


class DatabaseError(SearchError):
    """A database that failed while it was used: a server that is away, a disk that is full."""


class DatabaseUnreachableError(DatabaseError):
    """A database whose server went away while it was used, and stays away."""

    is_temporary = True


class ArtifactError(SearchError):
    """Learning curves or weights of trials that cannot be written: a disk that is full."""


class StudyDeletedError(SearchError):
    """The study was deleted while it was searched or read."""
