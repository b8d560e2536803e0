"""One table decides what a change has resulted in, for one instance and for many: the same outcome after the same requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from types import SimpleNamespace
from typing import Any, cast, get_args

import pytest

from airflow_provider_astrobpm.batches.bulk_change import BulkChange, change_all
from airflow_provider_astrobpm.client import actions, search
from airflow_provider_astrobpm.client.changes import (
    CHANGES,
    ChangeAttempt,
    ChangeName,
    ChangeOutcome,
    has_effect,
)
from airflow_provider_astrobpm.client.errors import (
    AnotherInstanceError,
    AstroZeroError,
    AuthenticationError,
    CallError,
    EffectNotShownError,
    InstanceClosedError,
    InstanceNotFoundError,
    InterruptedCallError,
    NotSentError,
    RefusedError,
    ServerError,
    ThrottledError,
)
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.client.operations import Action, Operation
from airflow_provider_astrobpm.client.sameness import KnownIdentity

pytestmark = pytest.mark.usefixtures("no_jitter")

DONE, ENDED, FAILED, IN_DOUBT = ChangeOutcome
OPEN: dict[str, Any] = {"state": "Running"}
HELD: dict[str, Any] = {"state": "Running", "suspended": True}
COMPLETED: dict[str, Any] = {"state": "Completed OK"}
STOPPED: dict[str, Any] = {"state": "Terminated"}
MISSING, UNREADABLE = "missing", "unreadable"


def failure(kind: type[CallError], **facts: Any) -> CallError:
    error = kind("it failed", status=400, res_code=facts.pop("res_code", "405239999"))
    for name, value in facts.items():
        setattr(error, name, value)
    return error


REFUSED = failure(RefusedError)
LOST = failure(InterruptedCallError, res_code=None)
LOST_THEN_REFUSED = failure(RefusedError, earlier_attempt_in_doubt=True, earlier_attempt_sent=True)
LOST_THEN_NOT_SENT = failure(NotSentError, earlier_attempt_in_doubt=True, res_code=None)
NOT_SENT = failure(NotSentError, res_code=None)

# The change, the answer to it, the instance afterwards, the outcome, and the words of one and of many.
TABLE: list[tuple[Action, Any, Any, ChangeOutcome, str]] = [
    ("suspend", OPEN, HELD, DONE, "suspend: done, instance"),
    ("suspend", OPEN, OPEN, IN_DOUBT, "accepted, but shows no effect after 60 s: the instance is 'Running'"),
    ("suspend", OPEN, COMPLETED, ENDED, "suspend: nothing to do, it has already ended"),
    ("suspend", REFUSED, HELD, DONE, "suspend: nothing to do, instance"),
    ("suspend", REFUSED, OPEN, FAILED, "it failed, and the instance is 'Running'"),
    ("suspend", REFUSED, STOPPED, ENDED, "suspend: nothing to do, it has already ended"),
    ("suspend", LOST, HELD, DONE, "suspend: done, although an answer was lost"),
    ("suspend", LOST, OPEN, FAILED, "it failed, and after 60 s the instance is 'Running'"),
    ("suspend", LOST, COMPLETED, ENDED, "suspend: nothing to do, it has already ended"),
    ("resume", HELD, OPEN, DONE, "resume: done, instance"),
    ("resume", HELD, HELD, IN_DOUBT, "after 60 s: the instance is 'Running', suspended"),
    ("resume", REFUSED, OPEN, DONE, "resume: nothing to do, instance"),
    ("resume", REFUSED, HELD, FAILED, "it failed, and the instance is 'Running', suspended"),
    ("resume", LOST, OPEN, DONE, "resume: done, although an answer was lost"),
    ("terminate", STOPPED, STOPPED, DONE, "terminate: done, instance"),
    ("terminate", OPEN, STOPPED, DONE, "terminate: done, instance"),
    ("terminate", OPEN, COMPLETED, ENDED, "terminate: nothing to do, it has already ended"),
    ("terminate", OPEN, OPEN, IN_DOUBT, "accepted, but shows no effect after 60 s"),
    ("terminate", OPEN, MISSING, IN_DOUBT, "is in none of the states"),
    ("terminate", OPEN, UNREADABLE, IN_DOUBT, "accepted, but then the instance could not be read (down)"),
    ("terminate", REFUSED, STOPPED, DONE, "terminate: nothing to do, it has already ended"),
    ("terminate", REFUSED, COMPLETED, ENDED, "terminate: nothing to do, it has already ended"),
    ("terminate", REFUSED, OPEN, FAILED, "it failed, and the instance is 'Running'"),
    ("terminate", REFUSED, MISSING, IN_DOUBT, "is in none of the states (HTTP 400, resCode '405239999')"),
    ("terminate", REFUSED, UNREADABLE, FAILED, "it failed, and afterwards the instance could not be read (down)"),
    ("terminate", LOST, STOPPED, DONE, "terminate: done, although an answer was lost"),
    ("terminate", LOST, OPEN, FAILED, "it failed, and after 60 s the instance is 'Running'"),
    ("terminate", LOST, MISSING, IN_DOUBT, "is in none of the states"),
    ("terminate", LOST_THEN_REFUSED, STOPPED, DONE, "terminate: done, although an answer was lost"),
    ("terminate", LOST_THEN_REFUSED, OPEN, FAILED, "it failed, and after 60 s the instance is 'Running'"),
    ("terminate", LOST_THEN_NOT_SENT, STOPPED, DONE, "terminate: done, although an answer was lost"),
]  # fmt: skip


class Scene:
    """A server that answers a change with a fixed answer, and shows the instance only afterwards."""

    def __init__(self, stage: Any, make: Callable[..., BpmInstance], answer: Any, after: Any) -> None:
        self._after = make(**after) if isinstance(after, dict) else after
        self._answer = make(**answer) if isinstance(answer, dict) else answer
        self.stage = stage(self._reply)

    def _reply(self, operation: Operation[Any]) -> Any:
        if operation.kind != "query":
            return self._answer
        if self._after == UNREADABLE:
            return ServerError("down")
        return [self._after] if dict(operation.query)["states"] == getattr(self._after, "state", None) else []

    def one(self, flow: Generator[Any, Any, Any]) -> Any:
        """Run a flow. Return its result, or its error."""
        try:
            return self.stage.run(flow)
        except AstroZeroError as error:
            return error

    def many(self, action: ChangeName, **arguments: Any) -> BulkChange:
        """Change the instance as a group of one."""
        stage = self.stage

        class Client:
            settings = SimpleNamespace(start_grace=60, instance_lookup="list", base_url="http://table")

            async def call(self, operation: Operation[Any]) -> Any:
                def flow() -> Generator[Any, Any, Any]:
                    return (yield operation)

                return stage.run(flow())

            async def run(self, flow: Generator[Any, Any, Any]) -> Any:
                return stage.run(flow)

        client = cast("Any", Client())
        return asyncio.run(change_all(client, {"002N1": None}, action, log=lambda _note: None, **arguments))


def outcome_of(change: BulkChange) -> ChangeOutcome:
    if change.failed:
        return IN_DOUBT if change.in_doubt else FAILED
    return DONE if change.done else ENDED


def find(instance_id: str) -> Generator[Any, Any, BpmInstance]:
    return search.find_by_id(instance_id, lookup="list")


def seconds_to_search(answer: Any, after: Any, outcome: ChangeOutcome) -> int:
    """Return for how long the effect of a change is searched for: only while it may still show."""
    if answer is REFUSED or outcome in (DONE, ENDED):
        return 0
    return 1 if after == UNREADABLE else 60  # two failed searches in a row end the check


@pytest.mark.parametrize(("action", "answer", "after", "outcome", "words"), TABLE)
def test_one_and_many_have_the_same_outcome_after_the_same_requests(
    action: Action, answer: Any, after: Any, outcome: ChangeOutcome, words: str, make: Any, stage: Any
) -> None:
    alone, group = Scene(stage, make, answer, after), Scene(stage, make, answer, after)
    single = alone.one(actions.change_state("002N1", action, find=find, grace=60))
    change = group.many(action)
    assert (group.stage.asked, group.stage.paused) == (alone.stage.asked, alone.stage.paused)
    assert outcome_of(change) is outcome
    assert sum(alone.stage.paused) == seconds_to_search(answer, after, outcome)
    if outcome in (DONE, ENDED):
        assert words in single.note
        assert change.instances == [single.instance]
        return
    reason = change.failed["002N1"]
    for text in (str(single), reason):
        assert words in text
    assert "002N1" not in reason
    expected = EffectNotShownError if isinstance(answer, dict) else type(answer)
    if after is MISSING and not isinstance(answer, dict):
        expected = InstanceNotFoundError
    assert type(single) is expected
    is_open = isinstance(after, dict) and outcome is IN_DOUBT
    assert change.still_open == ({"002N1"} if is_open else set())


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (None, DONE),
        (REFUSED, FAILED),
        (LOST, IN_DOUBT),
        (LOST_THEN_REFUSED, IN_DOUBT),
        (failure(ServerError), IN_DOUBT),
    ],
    ids=repr,
)
def test_variables_are_judged_by_the_answer_alone(
    answer: Any, outcome: ChangeOutcome, make: Any, stage: Any
) -> None:
    alone, group = Scene(stage, make, answer, OPEN), Scene(stage, make, answer, OPEN)
    single = alone.one(actions.set_variables("002N1", {"a": 1}))
    change = group.many("set", variables={"a": 1})
    assert alone.stage.asked == group.stage.asked == ["variables"]
    assert outcome_of(change) is outcome
    doubt = "; the variables may have been set anyway"
    for text in [] if outcome is DONE else [str(single), change.failed["002N1"]]:
        assert (doubt in text) is (outcome is IN_DOUBT)


@pytest.mark.parametrize(
    "answer", [NOT_SENT, failure(AuthenticationError), failure(ThrottledError)], ids=repr
)
@pytest.mark.parametrize("action", ["terminate", "set"])
def test_what_was_not_done_and_would_fail_for_all_is_not_tried(
    action: ChangeName, answer: CallError, make: Any, stage: Any
) -> None:
    scene = Scene(stage, make, answer, OPEN)
    change = scene.many(action, variables={"a": 1})
    assert (change.not_tried, change.stopped_by) == (["002N1"], answer)
    assert len(scene.stage.asked) == 1


BEFORE: dict[str, Any] = {"open": OPEN, MISSING: InstanceNotFoundError("x"), UNREADABLE: ServerError("down")}


@pytest.mark.parametrize(
    ("answer", "before", "must_act", "outcome"),
    [
        (REFUSED, None, False, DONE),
        (LOST, None, False, DONE),
        (REFUSED, "open", True, IN_DOUBT),  # someone else deleted it
        (LOST, "open", True, DONE),
        (LOST_THEN_REFUSED, "open", True, DONE),
        (LOST, MISSING, True, IN_DOUBT),
        (LOST, UNREADABLE, True, IN_DOUBT),
    ],
)
def test_missing_instance_after_a_failed_deletion(
    answer: CallError, before: str | None, must_act: bool, outcome: ChangeOutcome, make: Any
) -> None:
    seen = BEFORE[before] if before else None
    attempt = ChangeAttempt(
        "002N1", "delete", answer, must_act, make(**seen) if isinstance(seen, dict) else seen
    )
    result = attempt.judge(InstanceNotFoundError("instance '002N1'"))
    assert result.outcome is outcome
    assert (result.error is None) is (outcome is DONE)
    assert attempt.judge(make()).outcome is FAILED


KNOWN = KnownIdentity(business_key="order-17")
MINE: dict[str, Any] = {"business_key": "order-17"}
GONE = InstanceNotFoundError("instance '002N1'")


@pytest.mark.parametrize(
    ("action", "before", "must_act", "begun", "result"),
    [
        ("terminate", None, True, True, None),
        ("terminate", {**OPEN, **MINE}, True, True, None),
        ("terminate", {**COMPLETED, **MINE}, False, False, None),
        ("terminate", {**COMPLETED, **MINE}, True, False, (ENDED, "nothing to do", InstanceClosedError)),
        ("terminate", {**COMPLETED, **MINE}, True, True, (ENDED, "nothing to do", InstanceClosedError)),
        ("terminate", {**STOPPED, **MINE}, True, False, (DONE, "nothing to do", InstanceClosedError)),
        ("terminate", {**STOPPED, **MINE}, True, True, (DONE, "done by an earlier try of this task", None)),
        (
            "terminate",
            {**OPEN, "business_key": "other"},
            False,
            False,
            (FAILED, "not the same", AnotherInstanceError),
        ),
        ("terminate", GONE, False, False, None),
        ("terminate", GONE, True, True, (FAILED, "in none of the states", InstanceNotFoundError)),
        ("terminate", ServerError("down"), True, False, (FAILED, "down", ServerError)),
        ("delete", {**OPEN, **MINE}, True, True, None),
        (
            "delete",
            {**OPEN, "business_key": "other"},
            True,
            True,
            (FAILED, "not the same", AnotherInstanceError),
        ),
        ("delete", GONE, True, False, None),
        ("delete", GONE, True, True, (DONE, "deleted by an earlier try of this task", None)),
        ("delete", ServerError("down"), True, True, None),
    ],
)
def test_what_is_decided_before_anything_is_sent(
    action: ChangeName, before: Any, must_act: bool, begun: bool, result: Any, make: Any
) -> None:
    seen = make(**before) if isinstance(before, dict) else before
    found = ChangeAttempt("002N1", action, None, must_act, seen).judge_before(KNOWN, begun=begun)
    if result is None:
        assert found is None
        return
    outcome, words, error = result
    assert found is not None
    assert (found.outcome, type(found.error)) == (outcome, type(None) if error is None else error)
    assert words in found.note
    assert found.seen is (None if action == "delete" and error is None else seen)


def test_an_error_that_leaves_no_doubt_is_passed_on_as_it_is(make: Any) -> None:
    assert ChangeAttempt("002N1", "set", REFUSED).judge().error is REFUSED
    lost = ChangeAttempt("002N1", "set", LOST).judge().error
    assert lost is not LOST
    assert str(lost).startswith("it failed; the variables may have been set anyway")
    shown = ChangeAttempt("002N1", "suspend", make(**OPEN)).judge(make(**OPEN))
    assert shown.note.startswith("accepted, but shows no effect yet")


GATEWAY = failure(RefusedError, res_code=None)


@pytest.mark.parametrize(
    ("action", "answer", "seen", "searched", "result"),
    [
        ("set", None, None, 0, (DONE, "set: done")),
        ("delete", None, None, 0, (DONE, "instance '002N1' deleted")),
        ("delete", None, OPEN, 0, (DONE, "instance '002N1' deleted")),
        (
            "suspend",
            OPEN,
            OPEN,
            0,
            (IN_DOUBT, "accepted, but shows no effect yet: the instance is 'Running'"),
        ),
        (
            "suspend",
            OPEN,
            OPEN,
            1,
            (IN_DOUBT, "accepted, but shows no effect after 1 s: the instance is 'Running'"),
        ),
        (
            "suspend",
            OPEN,
            OPEN,
            0.5,
            (IN_DOUBT, "accepted, but shows no effect after 0.5 s: the instance is 'Running'"),
        ),
        (
            "resume",
            HELD,
            HELD,
            0,
            (IN_DOUBT, "accepted, but shows no effect yet: the instance is 'Running', suspended"),
        ),
        ("terminate", OPEN, GONE, 0, (IN_DOUBT, "accepted, but instance '002N1' is in none of the states")),
        ("terminate", LOST, OPEN, 0, (FAILED, "it failed, and the instance is 'Running'")),
        ("terminate", LOST, OPEN, 1, (FAILED, "it failed, and after 1 s the instance is 'Running'")),
        ("terminate", LOST, OPEN, 0.5, (FAILED, "it failed, and after 0.5 s the instance is 'Running'")),
        ("terminate", REFUSED, OPEN, 1, (FAILED, "it failed, and the instance is 'Running'")),
        ("terminate", REFUSED, GONE, 0, (IN_DOUBT, "instance '002N1' is in none of the states")),
        ("delete", REFUSED, GONE, 0, (DONE, "instance '002N1' did not exist")),
        (
            "delete",
            LOST,
            GONE,
            0,
            (DONE, "instance '002N1' does not exist; it is unknown whether it existed before this deletion"),
        ),
    ],
)
def test_what_a_result_says_and_shows(
    action: ChangeName, answer: Any, seen: Any, searched: float, result: Any, make: Any
) -> None:
    answer = make(**answer) if isinstance(answer, dict) else answer
    seen = make(**seen) if isinstance(seen, dict) else seen
    found = ChangeAttempt("002N1", action, answer).judge(seen, searched)
    assert (found.outcome, found.note) == result
    assert found.seen is (None if answer is None else seen)
    if isinstance(found.error, EffectNotShownError):
        assert found.error.instance is (seen if isinstance(seen, BpmInstance) else answer)


@pytest.mark.parametrize(
    ("action", "answer", "before", "seen", "result"),
    [
        (
            "terminate",
            GATEWAY,
            OPEN,
            STOPPED,
            (DONE, "terminate: done, although the answer says otherwise, {seen}"),
        ),
        (
            "terminate",
            REFUSED,
            OPEN,
            STOPPED,
            (DONE, "terminate: nothing to do, it has already ended, {seen}"),
        ),
        ("suspend", GATEWAY, OPEN, HELD, (DONE, "suspend: nothing to do, {seen}")),
        (
            "delete",
            LOST,
            OPEN,
            GONE,
            (DONE, "instance '002N1' is gone, although the answer to its deletion was lost"),
        ),
        (
            "delete",
            GATEWAY,
            OPEN,
            GONE,
            (DONE, "instance '002N1' is gone, although the answer to its deletion was lost"),
        ),
        ("delete", REFUSED, OPEN, GONE, (IN_DOUBT, "instance '002N1' is in none of the states")),
        (
            "delete",
            LOST,
            failure(ServerError),
            GONE,
            (IN_DOUBT, "it failed; the instance does not exist, and it is unknown whether it existed before"),
        ),
    ],
)
def test_what_was_there_before_decides_whose_change_it_was(
    action: ChangeName, answer: CallError, before: Any, seen: Any, result: Any, make: Any
) -> None:
    before = make(**before) if isinstance(before, dict) else before
    seen = make(**seen) if isinstance(seen, dict) else seen
    found = ChangeAttempt("002N1", action, answer, must_act=True, before=before).judge(seen)
    outcome, words = result
    assert (found.outcome, found.note) == (outcome, words.format(seen=seen))
    assert found.seen is seen


def test_errors_that_many_share_are_left_as_they_are(make: Any) -> None:
    shared, missing = failure(RefusedError), InstanceNotFoundError("instance '002N1'")
    attempt = ChangeAttempt("002N1", "terminate", shared)
    for seen in (make(), missing):
        assert attempt.judge(seen).error not in (shared, missing)
    assert (str(shared), missing.status) == (str(REFUSED), None)


def test_each_change_has_its_row(make: Any) -> None:
    names = {name for part in get_args(ChangeName) for name in get_args(part) or (part,)}
    assert set(CHANGES) == names
    for action, row in CHANGES.items():
        assert row.do
        assert row.done
        assert (row.shows_effect is None) is (not row.already)
        assert not any(has_effect(make(**COMPLETED), each) for each in CHANGES), action
