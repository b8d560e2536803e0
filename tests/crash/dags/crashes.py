"""DAGs of one task that starts an instance and waits for it. The conf of a run says where its processes die.

The external effects of a task process go through two places: requests to Astro Zero through ``Transport.send``,
and messages to Airflow through its supervisor. Both are wrapped in the process of a run, and only there. Each effect is
noted in a file before and after it happens. A process that should die at one of them is killed there, as the kernel
would do it.

Effects have names, not numbers: the number of polls in a wait depends on the time, and would shift all later numbers.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from airflow.sdk import DAG

from airflow_provider_astrobpm.operators.bpm import AstroZeroStartBpmInstanceOperator

WAYS: dict[str, dict[str, Any]] = {"on_worker": {"deferrable": False}, "deferred": {"deferrable": True}}
KINDS: dict[str, dict[str, Any]] = {
    "plain": {"retries": 3},
    "stubborn": {"retries": 1},
    "keeps": {"retries": 3, "terminate_on_kill": False},
    "leaves": {"retries": 0, "timeout": 8, "on_timeout": "leave"},
    "terminates": {"retries": 0, "timeout": 8, "on_timeout": "terminate"},
    "impatient": {"retries": 0, "max_poll_failure_time": 2},
}


class Effects:
    """The external effects of one task process.

    :param path: the file of the notes.
    :param crashes: where the process dies: ``effect``, ``when`` (``before`` or ``after`` it), and ``whom`` the kill hits:
        the ``task``, its ``supervisor``, or ``both``.
    """

    def __init__(self, path: Path, crashes: list[dict[str, Any]]) -> None:
        self._crashes = crashes
        self._seen: Counter[str] = Counter()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        self._note(pid=os.getpid())

    def happen(self, kind: str, act: Callable[[], Any]) -> Any:
        """Perform and note an effect, or die before or after it."""
        self._seen[kind] += 1
        effect = f"{kind} #{self._seen[kind]}"
        self._pass("before", effect)
        try:
            return act()
        finally:
            self._pass("after", effect)

    def _pass(self, when: str, effect: str) -> None:
        self._note(effect=effect, when=when)
        for crash in self._crashes:
            if (crash["effect"], crash["when"]) == (effect, when):
                self._note(crash=crash)
                if crash["whom"] != "task":
                    os.kill(os.getppid(), signal.SIGKILL)
                if crash["whom"] != "supervisor":
                    os.kill(os.getpid(), signal.SIGKILL)

    def _note(self, **entry: Any) -> None:
        os.write(self._file, json.dumps({"at": time.time(), **entry}).encode() + b"\n")


def watch(context: Any) -> None:
    """Wrap the two places in a process that is about to run the task."""
    from airflow.sdk.execution_time import task_runner  # noqa: PLC0415

    from airflow_provider_astrobpm.client.sync_transport import Transport  # noqa: PLC0415

    ti = context["ti"]
    leg = "resumed" if ti._ti_context_from_server.next_method else "first"
    name = f"{ti.try_number:02}-{leg}"
    conf = context["dag_run"].conf or {}
    crashes = [each for each in conf.get("crashes", []) if each["process"] == name]
    path = Path(os.environ["AIRFLOW_HOME"], "effects", ti.run_id, name)
    effects = Effects(path, crashes)
    send, tell = Transport.send, type(task_runner.SUPERVISOR_COMMS).send

    def noted_send(transport: Any, request: Any) -> Any:
        return effects.happen(_request(request), lambda: send(transport, request))

    def noted_tell(comms: Any, msg: Any) -> Any:
        if type(msg).__name__ == "MaskSecret":  # only changes the logs
            return tell(comms, msg)
        return effects.happen(_message(msg), lambda: tell(comms, msg))

    setattr(Transport, "send", noted_send)  # noqa: B010 - the wrapper ignores the types
    setattr(type(task_runner.SUPERVISOR_COMMS), "send", noted_tell)  # noqa: B010


def _request(request: Any) -> str:
    path, _, query = request.target.partition("?")
    about = path.rpartition("/")[2]
    if path.endswith("/instances"):
        about = ",".join(parse_qs(query).get("states", [])) if query else "start"
    elif "/instances/" in path:
        about = json.loads(request.body)["action"] if request.body else "by id"
    return f"{request.method} {about}"


def _message(message: Any) -> str:
    key = getattr(message, "key", None) or getattr(message, "conn_id", None)
    return " ".join(filter(None, (type(message).__name__, key)))


for kind, arguments in KINDS.items():
    for way, mode in WAYS.items():
        with DAG(
            f"{kind}_{way}", schedule=None, catchup=False, is_paused_upon_creation=False, max_active_runs=1000
        ):
            AstroZeroStartBpmInstanceOperator(
                task_id="wait",
                bpm_name="PublishApproval",
                # Identifies the instances of a run; the business key is the provider's own.
                title="{{ run_id }}",
                astro_zero_conn_id="{{ dag_run.conf['connection'] }}",
                failed_bp_statuses=["Rejected"],
                poll_interval=1,
                retry_delay=1,
                pre_execute=watch,
                **mode,
                **arguments,
            )
