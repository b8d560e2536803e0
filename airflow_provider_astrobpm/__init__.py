"""Apache Airflow provider for Huawei Cloud Astro Zero BPM."""

__version__ = "0.1.0"
