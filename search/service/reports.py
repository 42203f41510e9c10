"""Reports for who asks over HTTP: drawn one at a time, away from what answers all other calls."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

from optuna.storages import BaseStorage

from search.report.facts import read_report
from search.report.loading import load_matplotlib
from search.study.open import open_study
from search.study.trials import standing_of

_N_KEPT = 8  # pages, of the studies that were asked for last


class Reports:
    """Draws reports in a thread of its own, as each takes a core for seconds.

    May be used by several threads.
    """

    def __init__(self, storage: BaseStorage) -> None:
        self._storage = storage
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="report")
        self._lock = threading.Lock()
        self._asked: tuple[str, Future[str]] | None = None
        self._kept: dict[str, tuple[str, str]] = {}  # by name: how the study stood, and the page

    def ask(self, name: str) -> Future[str] | None:
        """The page of a study, to come; None while that of another one is drawn.

        Who asks for what is being drawn gets the same page.
        """
        with self._lock:
            if self._asked is not None and not self._asked[1].done():
                return self._asked[1] if self._asked[0] == name else None
            future = self._thread.submit(self._page, name)
            self._asked = name, future
            return future

    def _page(self, name: str) -> str:
        from search.report.page import render_page
        from search.report.pictures import draw_pictures

        study = open_study(self._storage, name)
        standing = standing_of(study)
        stood, page = self._kept.pop(name, ("", ""))
        if stood != standing:
            facts = read_report(study)
            load_matplotlib()
            page = render_page(facts, draw_pictures(facts, lambda _text: None), None)
        self._kept[name] = standing, page
        while len(self._kept) > _N_KEPT:
            del self._kept[next(iter(self._kept))]
        return page
