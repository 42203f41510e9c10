"""Finished trials written into a study as a search leaves them, many rows at a time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import optuna
import sqlalchemy
from optuna.storages import RDBStorage
from optuna.storages._rdb import models as tables
from optuna.study import Study
from optuna.trial import TrialState

from scripts.benchmarks.playback import Curve
from scripts.experiments.record_curves import EPOCHS
from search.space.space import Space
from search.study.record import Owner, TrialRecord
from search.study.settings import identity_of
from search.training.epochs import last_epochs_mean
from search.tuner.sampler import make_sampler

_CHUNK = 1000  # trials that are written at a time
_NO_TRIAL = optuna.trial.create_trial(state=TrialState.RUNNING)


def fill(study: Study, space: Space, n_trials: int, curves: Sequence[Curve]) -> None:
    """Writes finished trials as a search leaves them, many rows at a time.

    By halving's rule two of three are stopped after five epochs.
    """
    storage = backend(study)
    middle = float(np.quantile([curve.accuracies[4] for curve in curves], 2 / 3))
    # From an earlier study's sampler, which knows nothing of this one's trials.
    sampler = make_sampler("random", space, seed=1, n_trials=0)
    source = optuna.create_study(direction="maximize", sampler=sampler)
    draws = [
        {
            name: sampler.sample_independent(source, _NO_TRIAL, name, distribution)
            for name, distribution in space.distributions.items()
        }
        for _ in range(min(n_trials, _CHUNK))
    ]
    distributions = {
        name: optuna.distributions.distribution_to_json(distribution)
        for name, distribution in space.distributions.items()
    }
    end = len(study.trials) + n_trials  # the first one waits in the queue
    for first in range(len(study.trials), end, _CHUNK):
        rows: dict[Any, list[dict[str, Any]]] = {}
        for number in range(first, min(first + _CHUNK, end)):
            curve = curves[number % len(curves)]
            values = dict(draws[number % len(draws)])
            # One recipe stands in the study once.
            values["learning_rate"] *= 1 + 1e-5 * (number // len(draws))
            _add_rows(rows, study, space, values, distributions, number, curve, middle)
        with storage.engine.begin() as connection:
            for table, written in rows.items():
                connection.execute(sqlalchemy.insert(table), written)
    if storage.engine.name == "postgresql":  # its own counter has not seen these numbers
        with storage.engine.begin() as connection:
            connection.exec_driver_sql(
                f"SELECT setval(pg_get_serial_sequence('trials', 'trial_id'), {end})"
            )


def _add_rows(
    rows: dict[Any, list[dict[str, Any]]],
    study: Study,
    space: Space,
    values: dict[str, Any],
    distributions: dict[str, str],
    number: int,
    curve: Curve,
    middle: float,
) -> None:
    def add(table: Any, **values: Any) -> None:
        rows.setdefault(table, []).append(values)

    is_pruned = curve.accuracies[4] < middle
    n_epochs = 5 if is_pruned else EPOCHS
    now, key = datetime.now(), {"trial_id": number + 1}
    state = TrialState.PRUNED if is_pruned else TrialState.COMPLETE
    add(
        tables.TrialModel,
        **key,
        number=number,
        study_id=study._study_id,
        state=state,
        datetime_start=now,
        datetime_complete=now,
    )
    for name, distribution in space.distributions.items():
        add(
            tables.TrialParamModel,
            **key,
            param_name=name,
            param_value=distribution.to_internal_repr(values[name]),
            distribution_json=distributions[name],
        )
    # No two trials are alike: a value that its epochs do not have would be a foreign trial's.
    epochs = [
        replace(result, accuracy=result.accuracy * (1 - 1e-7 * (number // 150)))
        for result in map(curve.result, range(1, n_epochs + 1))
    ]
    count = space.hyperparameters(values).spec.parameter_count
    if not is_pruned:
        kind = tables.TrialValueModel.TrialValueType.FINITE
        found = [last_epochs_mean(epochs), count][: len(study.directions)]
        for objective, value in enumerate(found):
            add(tables.TrialValueModel, **key, objective=objective, value=value, value_type=kind)
    for result in epochs if len(study.directions) == 1 else ():  # Optuna takes none of several
        add(
            tables.TrialIntermediateValueModel,
            **key,
            step=result.epoch,
            intermediate_value=result.accuracy,
            intermediate_value_type=tables.TrialIntermediateValueModel.TrialIntermediateValueType.FINITE,
        )
    record = TrialRecord(
        parameter_count=count,
        training_seed=number,
        redraws=0,
        epochs=epochs,
        seconds=n_epochs * curve.epoch_seconds,
        worker="host/0",
        owner=Owner(host="host", machine="none", pid=1, started=0.0),
        study=identity_of(study),
        number=number,
    )
    for name, attribute in record.to_attributes().items():
        add(tables.TrialUserAttributeModel, **key, key=name, value_json=json.dumps(attribute))
    for rung, epoch in enumerate((5, 15)[: 1 if is_pruned else 2]):
        add(
            tables.TrialSystemAttributeModel,
            **key,
            key=f"completed_rung_{rung}",
            value_json=json.dumps(curve.accuracies[epoch - 1]),
        )


def backend(study: Study) -> RDBStorage:
    cached: Any = study._storage
    backend: RDBStorage = cached._backend
    return backend
