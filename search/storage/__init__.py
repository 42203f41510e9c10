"""Optuna's database: opened, read and written fast, and waited for where its server is away.

Opening one:

- `open.py`: a URL opened as a storage, made where it is missing
- `urls.py`: URLs read, and shown without their secrets; what a database is called by
- `checks.py`: what is at a URL, before Optuna opens it: a file, and whose tables
- `connections.py`: timeouts, SQLite's write-ahead log, the time zone of PostgreSQL
- `errors.py`: what a database answers when it fails, in words of ours

Reading and writing:

- `retrying.py`: `RetryingStorage`, Optuna's storage whose calls wait for a server that is away
- `guard.py`: `FileGuard`, whether a SQLite file is still the one at its path
- `retry.py`: how long they wait, and who hears of it
- `cached.py`: `CachedStorage` around it, which reads each trial once and writes in batches
- `studies.py`: what studies there are, without what the dashboard keeps with them
- `study_rows.py`: studies as rows: their attributes, and trials that outlived them
- `rows.py`: trials as rows of Optuna's tables, many at a time
- `collection.py`: no search for garbage among all that is read

Beside that:

- `server_locks.py`: locks on a PostgreSQL server
- `backup.py`: a whole copy of a SQLite file, also during a search
- `mounts.py`: whether a file lies on a network file system
"""
