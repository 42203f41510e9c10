"""Studies as rows of Optuna's tables: their attributes, and trials that outlived them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import sqlalchemy
from optuna.storages._rdb import models
from sqlalchemy import Connection
from sqlalchemy.orm import Session


def write_system_attributes(session: Session, study_id: int, attributes: Mapping[str, Any]) -> None:
    """Writes attributes of a study.

    Raises:
        KeyError: if there is no such study.
    """
    models.StudyModel.find_or_raise_by_id(study_id, session)
    found = models.StudySystemAttributeModel.where_study_id(study_id, session)
    known = {str(attribute.key): attribute for attribute in found}
    for key, value in attributes.items():
        text = json.dumps(value)
        if key in known:
            cast(Any, known[key]).value_json = text
        else:
            session.add(
                models.StudySystemAttributeModel(study_id=study_id, key=key, value_json=text)
            )


def delete_orphans(connection: Connection) -> None:
    """Deletes trials whose study is gone.

    SQLite gives the identifier of a study that was deleted to the next one, and with it the trials
    that a search has made at that moment.
    """
    trials = models.TrialModel
    studies = sqlalchemy.select(models.StudyModel.study_id)
    orphans = sqlalchemy.select(trials.trial_id).where(trials.study_id.not_in(studies))
    if connection.scalar(orphans.limit(1)) is None:
        return
    for table in reversed(models.BaseModel.metadata.sorted_tables):  # what belongs to them first
        if "trial_id" in table.c:
            connection.execute(table.delete().where(table.c.trial_id.in_(orphans)))
