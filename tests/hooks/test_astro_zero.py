"""The hook against the emulator: every operation, with every switch for undocumented behaviour in every position."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest

from airflow_provider_astrobpm.client import errors, operations
from airflow_provider_astrobpm.client.errors import (
    AmbiguousStartError,
    AstroZeroError,
    EffectNotShownError,
    InstanceClosedError,
    InstanceNotFoundError,
    KeysNotShownError,
    RefusedError,
    WaitFailedError,
    WaitTimeoutError,
)
from airflow_provider_astrobpm.client.sync_client import BpmClient
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer
from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook
from airflow_provider_astrobpm.waiting.condition import WaitCondition

HookMaker = Callable[..., AstroZeroHook]


@pytest.fixture
def hook_there(make_hook: HookMaker, emulator: EmulatorControl) -> Callable[[str, str, Any], AstroZeroHook]:
    """Set one switch, and create a hook with one ``instance_lookup``."""

    def there(lookup: str, switch: str, position: Any) -> AstroZeroHook:
        emulator.switch(**{"get_by_id": "action" if lookup == "by_id" else "absent", switch: position})
        return make_hook({"instance_lookup": lookup, "csrf": (switch, position) == ("csrf_required", True)})

    return there


def fails_where(condition: bool, error: type[AstroZeroError]) -> AbstractContextManager[Any]:
    return pytest.raises(error) if condition else nullcontext()


def test_state_changes(
    lookup: str, switch: str, position: Any, hook_there: Any, emulator: EmulatorControl
) -> None:
    hook = hook_there(lookup, switch, position)
    instance = hook.start_instance("SupplierOnboarding", business_key="k-1", variables={"supplier": "ACME"})
    emulator.advance(30)
    assert [row.id for row in hook.query_instances([hook.get_instance(instance.id).state])] == [instance.id]
    hook.set_variables(instance.id, {"country": "CN"})
    assert emulator.instance(instance.id)["variables"]["country"] == "CN"

    for action, suspended in [("suspend", True), ("suspend", True), ("resume", False), ("resume", False)]:
        change = getattr(hook, f"{action}_instance")(instance.id)
        assert change.is_confirmed
        emulator.advance(30)
        assert emulator.instance(instance.id)["suspended"] is suspended
        assert hook.get_instance(instance.id).suspended is suspended

    hook.terminate_instance(instance.id)
    emulator.advance(30)
    assert emulator.instance(instance.id)["state"] in ("Terminated", "User Terminated")
    gone = (switch, position) == ("keep_closed", False)
    with fails_where(gone, InstanceNotFoundError):
        assert hook.terminate_instance(instance.id).instance.is_closed
    with fails_where(gone, InstanceNotFoundError):
        assert hook.suspend_instance(instance.id).instance.is_closed
    with pytest.raises(InstanceNotFoundError if gone else InstanceClosedError):
        hook.terminate_instance(instance.id, if_closed="fail")
    with fails_where(gone, InstanceNotFoundError):
        hook.delete_instance(instance.id)
    assert [one["id"] for one in emulator.instances()] == ([instance.id] if gone else [])


def test_wait_for_instance(lookup: str, switch: str, position: Any, hook_there: Any) -> None:
    hook = hook_there(lookup, switch, position)
    instance = hook.start_instance("NightlyReconciliation")
    # The emulator deletes ended instances. It is then unknown whether the instance succeeded, so the wait must fail.
    with fails_where((switch, position) == ("keep_closed", False), InstanceNotFoundError):
        done = hook.wait_for_instance(instance, poll_interval=20)
        assert (done.state, done.bp_status) == ("Completed OK", "Done")


def test_by_id_lookup_on_an_endpoint_without_it(make_hook: HookMaker, emulator: EmulatorControl) -> None:
    instance = emulator.start("SupplierOnboarding")
    with pytest.raises(InstanceNotFoundError, match="set the extra 'instance_lookup' to \"list\""):
        make_hook({"instance_lookup": "by_id"}).get_instance(instance["id"])


def test_wait_distinguishes_rejected_from_approved(hook: AstroZeroHook, emulator: EmulatorControl) -> None:
    approved = WaitCondition.of(states=["Completed OK"], bp_statuses=["Approved"])
    for outcome, opens in [("approve", True), ("reject", False)]:
        instance = hook.start_instance("PublishApproval")
        emulator.act(instance.id, outcome)
        if opens:
            assert hook.wait_for_instance(instance, approved).bp_status == "Approved"
        else:
            with pytest.raises(WaitFailedError, match="business status 'Rejected'"):
                hook.wait_for_instance(instance, approved)


@pytest.mark.parametrize("state", ["Terminated", "User Terminated", "Broken"])
def test_failed_instance_fails_the_wait(state: str, hook: AstroZeroHook, emulator: EmulatorControl) -> None:
    instance = hook.start_instance("SupplierOnboarding")
    emulator.move(instance.id, state=state)
    with pytest.raises(WaitFailedError, match=f"ended in state '{state}'"):
        hook.wait_for_instance(instance)
    assert hook.wait_for_instance(instance, WaitCondition.of(states=[state])).state == state


def test_vanished_instance_fails_the_wait(hook: AstroZeroHook, emulator: EmulatorControl) -> None:
    instance = hook.start_instance("SupplierOnboarding")
    emulator.vanish(instance.id)
    what = f"{instance.id!r} is in none of the states, and could not be read by its id either .HTTP 404"
    with pytest.raises(InstanceNotFoundError, match=what):
        hook.wait_for_instance(instance)


def test_wait_times_out(hook: AstroZeroHook) -> None:
    instance = hook.start_instance("SupplierOnboarding")
    with pytest.raises(WaitTimeoutError, match="timed out at .*last seen: instance"):
        hook.wait_for_instance(instance, timeout=0)


def test_wait_survives_an_outage(hook: AstroZeroHook, emulator: EmulatorControl) -> None:
    instance = hook.start_instance("NightlyReconciliation")
    for kind in ("status", "drop_before", "html", "truncate", "not_json", "wrong_shape"):
        emulator.fault("query", kind, times=1)
    emulator.fault("get", "drop_before", times=3)
    assert hook.wait_for_instance(instance, poll_interval=5).state == "Completed OK"


def test_start_answer_with_an_ended_instance(hook: AstroZeroHook, emulator: EmulatorControl) -> None:
    instance = hook.start_instance("Instant")
    assert hook.wait_for_instance(instance).bp_status == "Done"
    assert emulator.counts()["query"] == 0


def test_start_sends_all_arguments(hook: AstroZeroHook, emulator: EmulatorControl) -> None:
    instance = hook.start_instance(
        "InvoiceCheck", version="1.0.0", variables={"invoice": "日本"}, business_key="k", title="T"
    )
    seen = emulator.instance(instance.id)
    assert (seen["version"], seen["business_key"], seen["title"]) == ("1.0.0", "k", "T")
    assert seen["variables"]["invoice"] == "日本"
    assert hook.start_instance("InvoiceCheck").version == "2.0.0"


class TestFindInstance:
    def test_finds_an_instance_started_elsewhere(
        self, hook: AstroZeroHook, emulator: EmulatorControl
    ) -> None:
        started = emulator.start("SupplierOnboarding", business_key="supplier-ACME")
        emulator.start("PublishApproval", business_key="supplier-ACME")
        found = hook.find_instance("supplier-ACME", bpm_name="SupplierOnboarding")
        assert found.id == started["id"]
        assert emulator.counts()["query"] == 12

    def test_raises_if_rows_show_no_keys(self, hook: AstroZeroHook, emulator: EmulatorControl) -> None:
        emulator.switch(business_keys_in_rows=False)
        emulator.start("SupplierOnboarding", business_key="supplier-ACME")
        with pytest.raises(KeysNotShownError):
            hook.find_instance("supplier-ACME")


def test_poll_of_one_instance_takes_one_request(make_hook: HookMaker, emulator: EmulatorControl) -> None:
    hook = make_hook({"instance_lookup": "list"})
    instance = hook.start_instance("SupplierOnboarding")
    state = hook.get_instance(instance.id).state
    emulator.reset_counts()
    for _ in range(5):
        hook.get_instance(instance.id, last_state=state)
    assert emulator.counts()["query"] == 5


def test_auto_probes_reading_by_id_once(hook: AstroZeroHook, emulator: EmulatorControl) -> None:
    instance = hook.start_instance("SupplierOnboarding")
    for _ in range(5):
        hook.get_instance(instance.id)
    assert emulator.counts()["get"] == 1


def test_get_definitions_and_definition(hook: AstroZeroHook) -> None:
    versions = hook.get_definitions(name="InvoiceCheck")
    assert {(row.version, row.active) for row in versions} == {("1.0.0", False), ("2.0.0", True)}
    assert len(hook.get_definitions(limit=2)) == 2
    assert {row.name for row in hook.get_definitions(name="Invoice", like=True)} == {"InvoiceCheck"}
    assert [row.version for row in hook.get_definitions(name="InvoiceCheck", active=True)] == ["2.0.0"]
    assert hook.get_definition(versions[0].id)["name"] == "InvoiceCheck"


def test_as_dict_has_url_and_utc_times(make_hook: HookMaker) -> None:
    hook = make_hook({"instance_url": "https://{host}/i/{instance_id}", "timezone": "Asia/Shanghai"})
    instance = hook.start_instance("Instant")
    passed_on = hook.as_dict(instance)
    assert passed_on["url"].endswith(f"/i/{instance.id}")
    began = datetime.fromisoformat(passed_on["start_time"])
    assert passed_on["start_time_utc"] == (began - timedelta(hours=8)).isoformat() + "+00:00"


def test_query_returns_a_moving_instance_once(
    hook: AstroZeroHook, emulator: EmulatorControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = hook.start_instance("SupplierOnboarding")
    emulator.move(instance.id, state="Running")
    call = hook.client._call

    def call_and_move(operation: Any) -> Any:
        rows = call(operation)
        emulator.move(instance.id, state="Paused")
        return rows

    monkeypatch.setattr(hook.client, "_call", call_and_move)
    assert [row.state for row in hook.query_instances(["Running", "Paused"])] == ["Paused"]


def test_unreadable_row_fails_only_the_query_that_may_select_it(
    hook: AstroZeroHook, emulator: EmulatorControl
) -> None:
    odd, other = (hook.start_instance("SupplierOnboarding", business_key=key) for key in ("odd", "other"))
    for one in (odd, other):
        emulator.move(one.id, state="Running")
    emulator.distort(odd.id, {"title": 7, "version": 2, "suspended": "false"})
    (row,) = hook.query_instances(["Running"], business_key="odd")
    assert (row.title, row.version, row.suspended) == ("7", "2", False)
    emulator.distort(odd.id, {"state": None})
    every: list[dict[str, Any]] = [{}, {"bpm_name": "SupplierOnboarding"}, {"business_key": "odd"}]
    for filters in every:
        with pytest.raises(errors.UnexpectedAnswerError) as caught:
            hook.query_instances(["Running"], **filters)
        assert f"the row of instance {odd.id!r} cannot be read, because its state is null" in str(
            caught.value
        )
        assert "'Running' on connection 'my_conn'" in str(caught.value)
    assert [row.id for row in hook.query_instances(["Running"], business_key="other")] == [other.id]
    assert hook.query_instances(["Running"], bpm_name="Instant") == []
    emulator.distort(odd.id, {"id": None})
    with pytest.raises(errors.UnexpectedAnswerError, match="a row cannot be read, because its id is null"):
        hook.query_instances(["Running"])


class TestTestConnection:
    def test_reports_success_and_changes_nothing(
        self, hook: AstroZeroHook, emulator: EmulatorControl
    ) -> None:
        ok, text = hook.test_connection()
        assert ok
        assert "Connected to http://127.0.0.1" in text
        assert {kind for kind, count in emulator.counts().items() if count} == {"token", "definitions"}

    def test_reports_errors(self, make_hook: HookMaker, emulator: EmulatorControl) -> None:
        ok, text = make_hook(password="not-the-secret").test_connection()
        assert not ok
        assert "Could not get a token on connection 'my_conn'" in text
        assert "not-the-secret" not in text
        emulator.outage()
        ok, text = make_hook().test_connection()
        assert (ok, "the connection was lost" in text) == (False, True)


class TestConnectionCheck:
    @pytest.fixture
    def slept(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        slept: list[float] = []
        monkeypatch.setattr(
            "airflow_provider_astrobpm.client.sync_client.BpmClient", partial(BpmClient, sleep=slept.append)
        )
        return slept

    @pytest.mark.parametrize(
        "fault",
        [
            {"fault": "status", "status": 403, "res_msg": "Not yours"},
            {"fault": "status", "status": 401},
            {"fault": "code_in_200"},
            {"fault": "html", "status": 200},
            {"fault": "status", "status": 500},
        ],
        ids=str,
    )
    def test_succeeds_if_only_instances_can_be_listed(
        self, fault: dict[str, Any], hook: AstroZeroHook, emulator: EmulatorControl
    ) -> None:
        emulator.fault("definitions", times=100, **fault)
        ok, text = hook.test_connection()
        assert (ok, emulator.counts()["query"]) == (True, 1), text
        assert "this user can list instances, but not BPM definitions: " in text

    def test_fails_with_the_first_error_if_neither_can_be_listed(
        self, hook: AstroZeroHook, emulator: EmulatorControl
    ) -> None:
        for kind in ("definitions", "query"):
            emulator.fault(kind, "status", status=400, res_msg=f"no {kind}", times=100)
        ok, text = hook.test_connection()
        assert not ok
        assert "no definitions" in text

    @pytest.mark.parametrize("kind", ["definitions", "token"])
    @pytest.mark.parametrize(("retry_after", "least", "most"), [(None, 0.5, 1), (2, 2, 2.5), (600, 5, 5)])
    def test_one_429_is_tolerated(
        self,
        kind: str,
        retry_after: int | None,
        least: float,
        most: float,
        make_hook: HookMaker,
        emulator: EmulatorControl,
        slept: list[float],
    ) -> None:
        emulator.fault(kind, "status", status=429, retry_after=retry_after)
        ok, text = make_hook().test_connection()
        assert ok, text
        (seconds,) = slept
        assert least <= seconds <= most

    def test_repeated_429_is_reported(
        self, make_hook: HookMaker, emulator: EmulatorControl, slept: list[float]
    ) -> None:
        emulator.fault("definitions", "status", status=429, times=100)
        ok, text = make_hook().test_connection()
        assert not ok
        assert "received too many requests" in text
        assert len(slept) == 1


@pytest.mark.parametrize("fault", ["drop_after", "truncate", "html", "wrong_shape", "not_json"])
def test_start_in_doubt_is_never_resent(fault: str, hook: AstroZeroHook, emulator: EmulatorControl) -> None:
    emulator.fault("start", fault, times=1)
    with pytest.raises(
        AmbiguousStartError, match="'k-9'.*was not started again|was not started again.*'k-9'"
    ) as caught:
        hook.start_instance("SupplierOnboarding", business_key="k-9")
    assert "my_conn" in str(caught.value)
    assert emulator.counts()["start"] == 1


def test_start_that_was_certainly_not_processed_is_resent(
    hook: AstroZeroHook, emulator: EmulatorControl
) -> None:
    emulator.fault("start", "status", status=429, retry_after=1, times=1)
    hook.start_instance("SupplierOnboarding")
    assert len(emulator.instances()) == 1


@pytest.mark.parametrize("action", ["suspend", "terminate"])
def test_accepted_action_without_effect_is_an_error(
    action: str, hook: AstroZeroHook, emulator: EmulatorControl
) -> None:
    instance = hook.start_instance("SupplierOnboarding")
    emulator.switch(action_lag=90)
    with pytest.raises(
        EffectNotShownError,
        match=f"{action} of instance '{instance.id}' was accepted, but shows no effect after 60 s",
    ):
        getattr(hook, f"{action}_instance")(instance.id)
    emulator.fault("query", "status", status=503, times=100)
    emulator.fault("get", "status", status=503, times=100)
    other = emulator.start("SupplierOnboarding", by="machine")["id"]
    with pytest.raises(
        EffectNotShownError, match=r"accepted, but then the instance could not be read \(the server"
    ):
        getattr(hook, f"{action}_instance")(other)


def test_accepted_action_is_checked_until_its_effect_shows(
    hook: AstroZeroHook, emulator: EmulatorControl
) -> None:
    instance = hook.start_instance("SupplierOnboarding")
    emulator.switch(action_lag=50)
    assert hook.terminate_instance(instance.id).instance.state == "Terminated"


@pytest.mark.parametrize("fault", ["drop_after", "status"])
def test_termination_after_a_lost_answer_counts_as_done(
    fault: str, hook: AstroZeroHook, emulator: EmulatorControl
) -> None:
    instance = hook.start_instance("SupplierOnboarding")
    emulator.fault("action", fault, status=502, work_done=fault == "status")
    done = hook.terminate_instance(instance.id, if_closed="fail")
    assert done.instance.state == "Terminated"
    assert emulator.counts()["action"] == 2, "the second one was refused, for it had ended"


@pytest.mark.parametrize("refusal_status", [400, 404, 500])
def test_deleting_a_missing_instance_is_not_a_success(
    refusal_status: int, hook: AstroZeroHook, emulator: EmulatorControl
) -> None:
    emulator.switch(refusal_status=refusal_status)
    with pytest.raises(InstanceNotFoundError, match=f"HTTP {refusal_status}, resCode '405230030'"):
        hook.delete_instance("002N-of-nobody")
    assert (
        "does not exist" in hook.delete_instance("002N-of-nobody", if_missing="succeed")
        or refusal_status < 500
    )


@pytest.mark.parametrize("missing", ["refused", "null", "object"])
@pytest.mark.parametrize("lookup", ["auto", "by_id"])
def test_every_form_of_a_missing_id_is_not_found(
    missing: str, lookup: str, make_hook: HookMaker, emulator: EmulatorControl
) -> None:
    emulator.switch(get_by_id="row", missing_by_id=missing)
    hook = make_hook({"instance_lookup": lookup})
    assert hook.get_instance(emulator.start("SupplierOnboarding")["id"]).state
    with pytest.raises(InstanceNotFoundError):
        hook.get_instance("002N-of-nobody")
    assert "did not exist" in hook.delete_instance("002N-of-nobody", if_missing="succeed")
    with pytest.raises(InstanceNotFoundError):
        hook.delete_instance("002N-of-nobody")


@pytest.mark.parametrize(
    ("fault", "options"), [("status", {"status": 502}), ("html", {}), ("drop_after", {})]
)
def test_error_says_that_variables_may_have_been_set(
    fault: str, options: dict[str, Any], make_hook: HookMaker, emulator: EmulatorControl
) -> None:
    hook = make_hook({"max_attempts": 1})
    instance = hook.start_instance("SupplierOnboarding")
    emulator.fault("variables", fault, work_done=fault == "html", **options)
    with pytest.raises(AstroZeroError, match="the variables may have been set anyway"):
        hook.set_variables(instance.id, {"country": "CN"})
    emulator.fault("variables", "status", status=400)
    with pytest.raises(RefusedError) as caught:
        hook.set_variables(instance.id, {"country": "CN"})
    assert "may have been set" not in str(caught.value)


def test_missing_csrf_token_is_reported(hook: AstroZeroHook, emulator: EmulatorControl) -> None:
    emulator.switch(csrf_required=True)
    with pytest.raises(RefusedError, match="405230050"):
        hook.start_instance("SupplierOnboarding")


@pytest.mark.parametrize("status", [401, 403, 500])
def test_failing_read_by_id_falls_back_to_lists(
    status: int, hook: AstroZeroHook, emulator: EmulatorControl
) -> None:
    instance = hook.start_instance("SupplierOnboarding")
    emulator.fault("get", "status", status=status, times=100)
    for _ in range(3):
        assert hook.get_instance(instance.id).id == instance.id
    # One poll with two attempts, each with a fresh token if the token may be at fault.
    assert emulator.counts()["get"] <= (4 if status == 401 else 2)


def test_async_client(hook: AstroZeroHook, emulator: EmulatorControl) -> None:
    instance = emulator.start("SupplierOnboarding")

    async def listed() -> list[str]:
        async with hook.async_client() as client:
            rows = await client.call(operations.query("Waiting for user interaction"))
        return [row.id for row in rows]

    assert asyncio.run(listed()) == [instance["id"]]
    assert emulator.counts()["token"] == 1
    hook.query_instances(["Running"])
    assert emulator.counts()["token"] == 1


def test_async_settings_reads_the_connection_again(
    hook: AstroZeroHook, emulator_server: EmulatorServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = asyncio.run(hook.async_settings())
    changed = {**json.loads(emulator_server.connection_json()), "password": "another-secret"}
    monkeypatch.setenv("AIRFLOW_CONN_MY_CONN", json.dumps(changed))
    after = asyncio.run(hook.async_settings())
    assert before.secrets() != after.secrets() == ("another-secret",)
