"""What it costs to start thousands of instances from one task, and to wait for them in one trigger.

The operator runs as a task in Airflow's own task runner (``worker``), in turns with a bare loop over aiohttp that sends
the same requests (``bare``), and its trigger in Airflow's own ``TriggerRunner`` (``triggerer``). Beside that, an Airflow
with a scheduler and a database starts the same launches by mapped tasks of the http provider, and by one task
of this one (``deployed``). One emulator serves all; ``--write`` puts the tables into ``docs/performance.md``. Exit code 1
if the operator costs more than it may.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

sys.path.append(
    str(ROOT / "scripts")
)  # for local_stack, which starts processes and ends them whatever happens
