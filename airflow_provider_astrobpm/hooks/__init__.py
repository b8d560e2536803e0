"""Airflow hooks: a connection becomes a client."""

DEFAULT_CONN_ID = "astro_zero_default"
