"""The pytest plugin that comes with the provider, for tests of DAGs."""
