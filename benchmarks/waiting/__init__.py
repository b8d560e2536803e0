"""Measure the cost of thousands of deferred tasks that wait in one triggerer process.

This compares the provider's trigger with the http provider's sensor trigger, which polls once for each task, and with
Airflow's own cost of a trigger that does nothing. Measurements run one after the other, each with a new emulator and a new
process (``runner``). ``--write`` writes the tables into ``docs/performance.md``. The exit code is 1 if the provider's
trigger exceeds a limit.
"""
