"""Support for DAG tests: the emulator that the fixture ``astro_zero_emulator`` returns, and DAG runs."""
