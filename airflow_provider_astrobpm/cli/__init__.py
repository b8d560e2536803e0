"""The command line: ``airflow astro-zero`` and ``python -m airflow_provider_astrobpm``."""
