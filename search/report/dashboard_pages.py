"""What optuna-dashboard's pages are told of studies of ours, beside what it says of any study."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna_dashboard._serializer import serialize_frozen_trial

from search.exceptions import SearchError
from search.report.artifact_files import entries_of_copy
from search.report.facts import read_report
from search.report.note import is_outdated, note_text
from search.study.next_steps import who_searches
from search.study.open import rebuild
from search.study.record import is_long
from search.study.settings import stored_settings
from search.study.summary import ABLATES, CONFIRMS, chosen_trial
from search.study.trials import trials_of

_LONGEST_SECONDS = 1.0  # for the networks of a page: what is left comes with the next look
_NETWORK = "network"


class StudyPages:
    """A plugin of the dashboard's web framework.

    - The list leaves out the studies that keep the single runs of races and ablations.
    - The best trial of a study is the one that it stands for, as in its note.
    - A note that names another as the best, or another search than runs, as it does between two of
      its writings and where the search was killed, is shown as it would be written now.
    - Each trial has its network as built as the first of its attributes, of which its page shows
      six: its widths as drawn are shares, which are scaled to the budget.
    - Attributes with an entry for each epoch are left out: they make a trial's page some thousand
      pixels wide, and its row in the table as high. The database keeps them.
    - A study that is renamed keeps its artifacts: the dashboard copies the study and its trials,
      deletes the original, and leaves behind which files are whose.

    Args:
        storage: from which the dashboard reads as well.
    """

    name, api = "study-pages", 2

    def __init__(self, storage: BaseStorage) -> None:
        self._storage = storage
        self._networks: dict[int, str | None] = {}  # by Optuna's identifier of a trial

    def apply(self, callback: Callable[..., Any], route: Any) -> Callable[..., Any]:
        if (route.method, route.rule) == ("POST", "/api/studies/<study_id:int>/rename"):
            return self._keeping_artifacts(callback)
        changes = {"/api/studies": self._list, "/api/studies/<study_id:int>": self._detail}
        change = changes.get(route.rule) if route.method == "GET" else None
        if change is None:
            return callback

        def changed(*args: Any, **kwargs: Any) -> Any:
            answer = callback(*args, **kwargs)
            change(answer)
            return answer

        return changed

    def _keeping_artifacts(self, rename: Callable[..., Any]) -> Callable[..., Any]:
        def renamed(study_id: int) -> Any:
            try:
                attributes = self._storage.get_study_system_attrs(study_id)
                before = self._storage.get_all_trials(study_id, deepcopy=False)
            except KeyError:  # it is gone, which the dashboard says
                attributes, before = {}, []
            answer = rename(study_id=study_id)
            if isinstance(answer, dict) and "study_id" in answer:
                copy_id = answer["study_id"]
                copies = self._storage.get_all_trials(copy_id, deepcopy=False)
                ids = {b._trial_id: c._trial_id for b, c in zip(before, copies, strict=False)}
                for key, value in entries_of_copy(attributes, ids).items():
                    self._storage.set_study_system_attr(copy_id, key, value)
            return answer

        return renamed

    def _list(self, answer: dict[str, Any]) -> None:
        answer["study_summaries"] = [
            study
            for study in answer["study_summaries"]
            if not {CONFIRMS, ABLATES}.intersection(each["key"] for each in study["user_attrs"])
        ]

    def _detail(self, detail: dict[str, Any]) -> None:
        if "trials" not in detail:  # it says what went wrong
            return
        study = optuna.load_study(study_name=detail["name"], storage=self._storage)
        if stored_settings(study) is not None:
            trials = trials_of(study)
            chosen = chosen_trial(study, trials)
            self._choose(detail, study, chosen)
            self._renew_note(detail, study, chosen)
            self._add_networks(detail, study, trials)
        for trial in (*detail["trials"], *detail["best_trials"]):
            trial["user_attrs"] = self._short(trial["user_attrs"])
        detail["union_user_attrs"] = self._short(detail["union_user_attrs"])

    def _choose(self, detail: dict[str, Any], study: Study, chosen: FrozenTrial | None) -> None:
        if len(study.directions) > 1:  # there is no one best
            return
        attributes = self._storage.get_study_system_attrs(study._study_id)
        detail["best_trials"] = (
            [] if chosen is None else [serialize_frozen_trial(study._study_id, chosen, attributes)]
        )

    def _renew_note(self, detail: dict[str, Any], study: Study, chosen: FrozenTrial | None) -> None:
        note = detail["note"]
        if is_outdated(note["body"], chosen, who_searches(study)):
            with suppress(SearchError):
                report = read_report(study, with_influences=False)
                note["body"] = note_text(report, note["body"])

    def _add_networks(
        self, detail: dict[str, Any], study: Study, trials: list[FrozenTrial]
    ) -> None:
        latest = time.monotonic() + _LONGEST_SECONDS
        by_id = {trial._trial_id: trial for trial in trials}
        # The newest first, which are the ones that are looked at.
        for shown in (*detail["best_trials"], *reversed(detail["trials"])):
            number = shown["trial_id"]
            if number not in self._networks and number in by_id and time.monotonic() < latest:
                self._networks[number] = _network(study, by_id[number])
            network = self._networks.get(number)
            if network is not None:
                shown["user_attrs"].insert(0, {"key": _NETWORK, "value": network})

    def _short(self, attributes: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [attribute for attribute in attributes if not is_long(attribute["key"])]


def _network(study: Study, trial: FrozenTrial) -> str | None:
    """A trial's layers with their widths; None where it ended before it had them."""
    try:
        return str(rebuild(study, trial).spec)
    except SearchError:
        return None
