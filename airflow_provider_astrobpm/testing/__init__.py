"""What tests of DAGs use: the emulator as the fixture ``astro_zero_emulator`` hands it out, and a run of a DAG."""
