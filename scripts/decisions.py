"""The modules that decide, each with the tests that say what it decides.

``make coverage`` asks for every branch of them, and ``make mutation`` changes them.
"""

from __future__ import annotations

_STARTS = (
    "tests/starting/test_business_keys.py",
    "tests/starting/test_decision.py",
    "tests/starting/test_decision_table.py",
    "tests/starting/test_generation.py",
    "tests/batches/test_batch_decision.py",
    "tests/batches/test_batch_results.py",
    "tests/batches/test_send_state.py",
)
_WAITS = (
    "tests/waiting/test_condition.py",
    "tests/waiting/test_wait.py",
    "tests/waiting/test_batch_wait.py",
    "tests/waiting/test_poller_schedule.py",
)
_CALLS = (
    "tests/client/test_backoff.py",
    "tests/client/test_resend_policy.py",
    "tests/client/test_changes.py",
    "tests/client/test_actions.py",
)
_EVIDENCE = (
    "tests/client/test_sameness.py",
    "tests/client/test_timestamps.py",
    "tests/client/test_search_result.py",
    "tests/client/test_key_form.py",
    "tests/client/test_key_search.py",
    "tests/client/test_search.py",
    "tests/client/test_instance.py",
)

DECISIONS: dict[str, tuple[str, ...]] = {
    "starting.decision_table": _STARTS,
    "starting.decision": _STARTS,
    "starting.generation": _STARTS,
    "starting.try_record": _STARTS,
    "starting.try_request": _STARTS,
    "batches.batch_decision": _STARTS,
    "batches.batch_record": _STARTS,
    "batches.batch_results": _STARTS,
    "batches.send_state": _STARTS,
    "waiting.condition": _WAITS,
    "waiting.wait": _WAITS,
    "waiting.batch_wait": _WAITS,
    "waiting.polling": _WAITS,
    "client.changes": _CALLS,
    "client.resend_policy": _CALLS,
    "client.backoff": _CALLS,
    "client.sameness": _EVIDENCE,
    "client.timestamps": _EVIDENCE,
    "client.states": _EVIDENCE,
    "client.search_result": _EVIDENCE,
    "client.key_form": _EVIDENCE,
    "client.key_search": _EVIDENCE,
    "watching.watch": ("tests/watching/test_watch.py", "tests/watching/test_targets.py"),
    "policies.retry": ("tests/policies/test_retry.py",),
    "_airflow.user_action": ("tests/_airflow/test_user_action.py",),
}
"""The name of each module within the package, and what pytest runs for its mutants."""
