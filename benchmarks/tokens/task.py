"""One short task process: request a new token and start an instance.

The arguments are the emulator's address and the business key of the instance.
"""

from __future__ import annotations

import sys

from airflow_provider_astrobpm.client import operations
from airflow_provider_astrobpm.client.settings import ClientCredentials, Settings
from airflow_provider_astrobpm.client.sync_client import BpmClient
from airflow_provider_astrobpm.emulator.emulator_state import CLIENT_ID, CLIENT_SECRET

PROCESS = "Instant"


def main() -> None:
    """Start the instance."""
    url, business_key = sys.argv[1:]
    settings = Settings("task", url, ClientCredentials(CLIENT_ID, CLIENT_SECRET))
    with BpmClient(settings) as client:
        client.call(operations.start(PROCESS, business_key=business_key))


if __name__ == "__main__":
    main()
