"""Optuna's own suite for storages, on both of ours, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from optuna.storages import BaseStorage
from optuna.testing.pytest_storages import StorageTestCase

from search.storage.cached import CachedStorage
from search.storage.open import opened_storage
from search.storage.retrying import RetryingStorage
from tests.support.servers import shown


@pytest.fixture(scope="module", params=["SQLite", "PostgreSQL"])
def database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RetryingStorage]:
    """One database for all: to make one takes longer than a test."""
    if request.param == "SQLite":
        url = f"sqlite:///{tmp_path_factory.mktemp('suite') / 'suite.db'}"
    else:
        server = request.getfixturevalue("postgres")
        url = shown(server.url(server.new_database()))
    with opened_storage(url, create=True) as storage:
        yield storage


@pytest.fixture
def empty(database: RetryingStorage) -> RetryingStorage:
    for study in database.get_all_studies():
        database.delete_study(study._study_id)
    return database


class TestRetryingStorage(StorageTestCase):
    @pytest.fixture
    def storage(self, empty: RetryingStorage) -> BaseStorage:
        return empty


class TestCachedStorage(StorageTestCase):
    @pytest.fixture
    def storage(self, empty: RetryingStorage) -> BaseStorage:
        return CachedStorage(empty)
