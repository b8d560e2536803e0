"""Notifiers: what Airflow calls when something has failed."""
