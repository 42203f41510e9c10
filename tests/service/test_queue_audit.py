"""The audit of a queue that is tormented (`scripts/queue_chaos.py`) sees what is wrong with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.queue_audit import Asked, QueueAudit
from search.service.claims import Claims
from search.service.database import opened_database
from search.service.progress import JobEnd
from search.service.queue import JobQueue

DAMAGES = (
    ("DELETE FROM service_jobs WHERE number = 1", "lost"),
    ("UPDATE service_jobs SET number = 7 WHERE number = 1", "lost"),
    ("UPDATE service_jobs SET state = 'stopped' WHERE number = 1", "lost"),
    ("UPDATE service_jobs SET n_starts = 1 WHERE number = 1", "changed"),
    ("DELETE FROM service_events WHERE job = 1 AND state = 'cancelled'", "changed"),
    ("DELETE FROM service_events WHERE job = 1 AND number = 3", "counted_twice"),
)


@pytest.fixture
def audit(tmp_path: Path) -> QueueAudit:
    """Of a queue in which two jobs were started, one of them again as it was killed."""
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    with opened_database(url, create=True) as database:
        queue, claims = JobQueue(database), Claims(database, "only")
        queue.submit({"budget": 800, "epochs": 2}, study="one", key="one")
        assert claims.take_next([]) is not None
        claims.end(1, JobEnd(None, "it was killed"), has_trained=False)
        assert claims.take_next([]) is not None
        queue.submit({"budget": 800, "epochs": 2}, study="other", key="other")
        for number in (1, 2):
            queue.cancel(str(number))
        claims.end(1, JobEnd(130, None), has_trained=False)
    return QueueAudit(tmp_path, url, stray_seconds=0.0, gone_seconds=0.0)


ASKED = [
    Asked(name, name, is_long=True, number=number, last="cancel")
    for number, name in enumerate(("one", "other"), start=1)
]


def start_search(folder: Path, study: str) -> subprocess.Popen[bytes]:
    """A process that looks like a search, and goes on."""
    words = ["-c", "import time; time.sleep(600)", f"--worker-log={folder}/log/{study}"]
    return subprocess.Popen([sys.executable, *words], start_new_session=True)


def test_an_audit_finds_nothing_where_nothing_is_wrong(audit: QueueAudit) -> None:
    audit.look()
    audit.check(ASKED)
    assert audit.found.is_clean, audit.found
    audit.close()


@pytest.mark.parametrize(("statement", "kind"), DAMAGES)
def test_an_audit_finds_what_is_wrong(audit: QueueAudit, statement: str, kind: str) -> None:
    with opened_database(audit.url, create=False) as database:
        database.write(lambda connection: connection.exec_driver_sql(statement))
    audit.check(ASKED)
    assert vars(audit.found)[kind], audit.found
    audit.close()


def test_an_audit_finds_who_searches_twice_and_whom_no_job_has(audit: QueueAudit) -> None:
    searching = [start_search(audit.folder, "one") for _ in range(2)]
    try:
        audit.look()
        audit.look()
        assert len(audit.found.counted_twice) >= 1
        assert audit.found.left_behind
        for process in searching:  # which it has killed
            assert process.wait() < 0
    finally:
        for process in searching:
            process.kill()
            process.wait()
    (audit.folder / "jobs").mkdir()
    line = '{"event": "start", "attempt": 1}\n'
    (audit.folder / "jobs" / "1.events").write_text(2 * line)
    audit.found.counted_twice.clear()
    audit.check(ASKED)
    assert "was started twice" in audit.found.counted_twice[0]
    audit.close()
