"""A queue of searches, and the server that runs them one after another.

What is kept, in the database of the studies:

- `tables.py`: the tables of the queue, and a version that refuses what it does not know
- `database.py`: transactions on them, which wait for a server that is away
- `jobs.py`: `Job`, a search that was submitted, and what may become of it
- `queue.py`: `JobQueue`, what users do with jobs; `claims.py`: what a server does with them

What is submitted:

- `paths.py`: which files of the server's machine a client may name
- `submission.py`: the options of a search as JSON, checked, and as words of `search run`

How it is run:

- `folder.py`: where the server keeps logs and what else is not for the database
- `process.py`: `JobProcess`, one `search run` in a session of its own, which outlives its server
- `progress.py`: how far it is, and how it ended, by the events that it prints
- `supervisor.py`: starts what waits, sees what ends, adopts what an earlier server left

Who watches:

- `feed.py`: what happens in a study, read from the database, whoever searches it
- `watching.py`: the events of one search, until it is over
- `logs.py`: what the searches of jobs printed
- `plain_searches.py`: searches that no job runs, stopped

How it is reached:

- `client.py`: `search.Client`, over HTTP; `answers.py`: what a server answers, read
- `local.py`: the same as a client, on the database itself
- `server.py`: what runs searches and what answers clients, in one process
- `app.py`: the application; `job_routes.py`, `study_routes.py`: routes of the HTTP interface;
  `services.py`: what these stand on; `schemas.py`: what clients send; `pages.py`: lists a page at a
  time; `streams.py`: the events of a search
- `web.py`: the page, `page.html` with `queue.html`, `page.css` and `page.js`; `login.html`: where a
  link leads; `api.html`: what the HTTP interface has; `base.html`: what these pages share
- `reports.py`: the report of a study, drawn one at a time
- `connections.py`: those that hold their request back take nobody's room
- `guard.py`: what stands before all of it: host, origin, size, rate; `access.py`: who may do what
- `notices.py`: URLs that are told when a search ends, or finds a better network
- `channels.py`: the events of searches, for many who watch

Nothing here imports PyTorch: a search is a process of its own.
"""
