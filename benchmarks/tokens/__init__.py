"""Check that waits survive an environment that invalidates a client's older token whenever it issues a new one.

The triggers of many deferred tasks wait in one process (``waits``), with the provider's own triggers, poller and client.
Every second a short process acts as another task: it requests a token, which invalidates the token of the waits, and
starts an instance (``task``). Half of the waits end during the run, the others at its end. The exit code is 1 if a wait is
lost, a task fails, or a task does not have exactly one instance.
"""
