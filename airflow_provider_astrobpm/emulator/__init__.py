"""A local Astro Zero: a real HTTP server for demos, tests and authors of DAGs. State is in memory."""

from airflow_provider_astrobpm.emulator.remote import EmulatorControl, EmulatorError
from airflow_provider_astrobpm.emulator.running import EmulatorServer

__all__ = ["EmulatorControl", "EmulatorError", "EmulatorServer"]
