"""A local Astro Zero: a real HTTP server for demos, tests and DAG authors. It keeps its state in memory."""

from airflow_provider_astrobpm.emulator.remote import EmulatorControl, EmulatorError
from airflow_provider_astrobpm.emulator.running import EmulatorServer

__all__ = ["EmulatorControl", "EmulatorError", "EmulatorServer"]
