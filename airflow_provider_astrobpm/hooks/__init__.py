"""Airflow hooks, which create a client from an Airflow connection."""

DEFAULT_CONN_ID = "astro_zero_default"
