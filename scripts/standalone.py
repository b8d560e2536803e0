"""A complete Airflow for trying things out, as ``airflow standalone`` starts it."""

from __future__ import annotations

import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING

from local_stack import free_port

if TYPE_CHECKING:
    from local_stack import Child, Stack


@dataclass(frozen=True)
class Standalone:
    """An Airflow that is starting.

    :param child: its processes.
    :param url: the address of its user interface and its API.
    """

    child: Child
    url: str

    def answers(self) -> bool:
        """Return whether its API answers."""
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(f"{self.url}/api/v2/version", timeout=5):
                return True
        except OSError:
            return False


def start_standalone(stack: Stack, env: dict[str, str]) -> Standalone:
    """Start a complete Airflow on free ports. Does not wait until it is ready.

    :param env: its environment, without ports. Its working directory is the scratch folder.
    """
    url = f"http://127.0.0.1:{(port := free_port())}"
    settings = {
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": "8",
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
    }
    child = stack.start("airflow", ["airflow", "standalone"], {**env, **settings}, stack.home)
    return Standalone(child, url)
