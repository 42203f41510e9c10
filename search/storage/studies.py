"""The studies of a database, without what is stored of them for optuna-dashboard.

Optuna's `get_all_studies` parses all attributes of all studies, among them the notes and graphs of
the dashboard, which are most of what there is.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import sqlalchemy
from optuna.storages import BaseStorage
from optuna.storages._rdb import models
from sqlalchemy import Connection

from search.storage.retrying import RetryingStorage


@dataclass(frozen=True, slots=True)
class StoredStudy:
    """A study as its row and its user attributes have it; named as Optuna's `FrozenStudy` is."""

    study_name: str
    _study_id: int
    user_attrs: dict[str, Any]


def study_names(storage: BaseStorage) -> list[str]:
    """The names of all studies, oldest first."""
    database = _database(storage)
    if database is None:
        return [study.study_name for study in storage.get_all_studies()]
    return list(database.read(_read_names).values())


def stored_studies(storage: BaseStorage) -> list[StoredStudy]:
    """All studies, oldest first."""
    database = _database(storage)
    if database is None:
        return [
            StoredStudy(study.study_name, study._study_id, study.user_attrs)
            for study in storage.get_all_studies()
        ]
    return database.read(_read_studies)


def _database(storage: BaseStorage) -> RetryingStorage | None:
    """The storage of ours that it is, or that is below its cache."""
    backend = getattr(storage, "_backend", storage)
    return backend if isinstance(backend, RetryingStorage) else None


def _read_names(connection: Connection) -> dict[int, str]:
    """By Optuna's identifiers."""
    studies = models.StudyModel
    query = sqlalchemy.select(studies.study_id, studies.study_name).order_by(studies.study_id)
    return dict(connection.execute(query).all())


def _read_studies(connection: Connection) -> list[StoredStudy]:
    attributes = models.StudyUserAttributeModel
    query = sqlalchemy.select(attributes.study_id, attributes.key, attributes.value_json)
    found: dict[int, dict[str, Any]] = defaultdict(dict)
    for study_id, key, text in connection.execute(query):
        found[study_id][key] = json.loads(text)
    return [
        StoredStudy(name, study_id, found[study_id])
        for study_id, name in _read_names(connection).items()
    ]
