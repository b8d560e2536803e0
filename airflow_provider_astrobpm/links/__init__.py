"""Links from Airflow's pages to Astro Zero."""
