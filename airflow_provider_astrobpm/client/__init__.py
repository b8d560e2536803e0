"""A client for the REST API of Astro Zero BPM. It knows no task and nothing of Airflow."""
