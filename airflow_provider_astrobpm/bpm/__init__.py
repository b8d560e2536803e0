"""A client for the Astro Zero BPM REST API. It knows nothing of Airflow."""
