"""A local Astro Zero: a real HTTP server for demos, tests and DAG authors. It keeps its state in memory."""

from airflow_provider_astrobpm.emulator.control_client import EmulatorControl, EmulatorError
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer

__all__ = ["EmulatorControl", "EmulatorError", "EmulatorServer"]
