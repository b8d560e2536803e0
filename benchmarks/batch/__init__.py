"""Measure the cost of starting thousands of instances from one task, and of waiting for them in one trigger.

The operator runs as a task in Airflow's task runner (``worker``), alternating with a bare aiohttp loop that sends the same
requests (``bare``). Its trigger runs in Airflow's ``TriggerRunner`` (``triggerer``). In addition, an Airflow with a
scheduler and a database starts the same launches with mapped tasks of the http provider, and with one task of this
provider (``deployed``). One emulator serves them all. ``--write`` writes the tables into ``docs/performance.md``. The exit
code is 1 if the operator exceeds a limit.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

sys.path.append(str(ROOT / "scripts"))  # for local_stack, which starts processes and always ends them
