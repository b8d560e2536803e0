"""Measure how costs grow with an Airflow and with a tenant.

- ``triggerers``: 1,000 deferred tasks spread over 1, 2 and 4 triggerers that wait on one endpoint.
- ``searches``: polls, searches and lists in a tenant in which up to 100,000 instances of one BPM have ended (``tenant``).

``--write`` writes the tables into ``docs/performance.md`` and draws their plot. The exit code is 1 if a search holds the event
loop for too long, or if the requests are not those of the formula in the page.
"""

from __future__ import annotations

import benchmarks.batch  # noqa: F401 - lets Python find the modules of scripts/
