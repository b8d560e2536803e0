"""What thousands of deferred tasks cost while they wait, all in one triggerer process.

Compares the provider's trigger with the http provider's sensor trigger, which asks once for each task, and with
Airflow's own cost of a trigger that does nothing. Each measurement has a fresh emulator and a fresh process
(``runner``), one after the other; ``--write`` puts the tables into ``docs/performance.md``. Exit code 1 if
the provider's trigger costs more than it may.
"""
