"""Client of the Astro Zero BPM REST API. Imports nothing of Airflow."""
