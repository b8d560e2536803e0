"""Let 2,000 tasks wait for half an hour while everything else fails, and check that each wait ends as its instance does.

Two of Airflow's own triggerers run the waits, on PostgreSQL. One of them is killed every five minutes and replaced. The server
fails every few seconds. Instances end all the time, and a new wait takes the place of each that has ended.

The task instances are created in Airflow's database, deferred with this provider's trigger. Airflow's triggerers find them there, run
their triggers, and write the event of each into the database, as for any task. So a wait counts as ended when Airflow has made its
task ready to resume. No scheduler and no worker runs: 2,000 task processes would need more than two cores. ``make test-ha`` tests
those.

The exit code is 1 if a wait was lost or ended with a false outcome, or if the memory of a triggerer has grown.
"""

from __future__ import annotations

import benchmarks.batch  # noqa: F401 - lets Python find the modules of scripts/
