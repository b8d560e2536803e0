"""Check that waits end as their instances do, although many answers make no sense, are late or do not arrive.

The triggers of many deferred tasks wait in one process (``waits``), with the provider's own triggers, poller and client.
Meanwhile people decide about the instances, some break, some vanish, and some start only now. The exit code is 1 if a wait
does not end as its instance did, or if a wait was without a successful poll for too long.
"""
