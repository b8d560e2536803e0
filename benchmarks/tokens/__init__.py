"""Whether waits survive an environment that ends a client's older token whenever it issues a new one.

The triggers of many deferred tasks wait in one process (``waits``), with the provider's own triggers, poller and client.
Beside them a short process starts each second, as a task does: it requests a token, which ends the waits' token, and starts
an instance (``task``). Half of the waits end in the course of the time, the others at its end. Exit code 1 if a wait is
lost, a task fails, or a task has not exactly one instance.
"""
