"""State changes are judged by the state of the instance afterwards."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import pytest

from airflow_provider_astrobpm.client import actions, operations, search
from airflow_provider_astrobpm.client.errors import (
    AnotherInstanceError,
    AstroZeroError,
    AuthenticationError,
    EffectNotShownError,
    InstanceClosedError,
    InstanceNotFoundError,
    InterruptedCallError,
    NotSentError,
    RefusedError,
    ServerError,
    UnexpectedAnswerError,
)
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.client.operations import Operation
from airflow_provider_astrobpm.client.sameness import KnownIdentity

pytestmark = pytest.mark.usefixtures("no_jitter")

Make = Callable[..., BpmInstance]

REFUSED: dict[str, Any] = {"status": 400, "res_code": "405239999", "res_msg": "not now"}


def find(instance_id: str) -> Generator[Any, Any, BpmInstance]:
    return search.find_by_id(instance_id, lookup="list")


def world(action_answer: Any, instance: BpmInstance | None) -> Callable[[Operation[Any]], Any]:
    """Answer the action with a fixed answer, and queries from one instance."""

    def answer(operation: Operation[Any]) -> Any:
        if operation.kind == "query":
            return [instance] if instance and instance.state == dict(operation.query)["states"] else []
        return action_answer

    return answer


class TestAnotherInstanceWithTheSameId:
    KNOWN = KnownIdentity(("Approval",), "k")

    @pytest.mark.parametrize("other", [{"name": "Another"}, {"business_key": "z"}], ids=str)
    def test_is_left_alone(self, other: dict[str, Any], make: Make, stage: Any) -> None:
        scene = stage(world(make(state="Terminated"), make(**{"business_key": "k", **other})))
        with pytest.raises(AnotherInstanceError, match="it was of 'Approval' with business key 'k'"):
            scene.run(actions.change_state("002N1", "terminate", find=find, known=self.KNOWN))
        assert "terminate" not in scene.asked

    @pytest.mark.parametrize("before", [[], ServerError("down")], ids=["not there", "not readable"])
    def test_is_not_checked_if_the_instance_cannot_be_read(self, before: Any, make: Make, stage: Any) -> None:
        def answer(operation: Operation[Any]) -> Any:
            return before if operation.kind == "query" else make(state="Terminated")

        scene = stage(answer)
        done = scene.run(actions.change_state("002N1", "terminate", find=find, known=self.KNOWN))
        assert done.instance.state == "Terminated"

    def test_matching_instance_is_accepted(self, make: Make, stage: Any) -> None:
        scene = stage(world(make(state="Terminated"), make(business_key="k")))
        scene.run(actions.change_state("002N1", "terminate", find=find, known=self.KNOWN))
        assert scene.asked[-1] == "terminate"


OPEN, HELD = {"state": "Running"}, {"state": "Running", "suspended": True}
ENDED, STOPPED, STOPPED_BY_USER = (
    {"state": "Completed OK"},
    {"state": "Terminated"},
    {"state": "User Terminated"},
)

# action, the instance after the refusal, the first words of the result
AFTER_A_REFUSAL: list[tuple[operations.Action, dict[str, Any] | None, type[AstroZeroError] | str]] = [
    ("suspend", HELD, "nothing to do"),
    ("suspend", {"state": "Suspended"}, "nothing to do"),
    ("suspend", OPEN, RefusedError),
    ("suspend", ENDED, "nothing to do, it has already ended"),
    ("suspend", None, InstanceNotFoundError),
    ("resume", OPEN, "nothing to do"),
    ("resume", HELD, RefusedError),
    ("resume", {"state": "Suspended"}, RefusedError),
    ("resume", STOPPED, "nothing to do, it has already ended"),
    ("resume", None, InstanceNotFoundError),
    ("terminate", STOPPED, "nothing to do, it has already ended"),
    ("terminate", STOPPED_BY_USER, "nothing to do, it has already ended"),
    ("terminate", ENDED, "nothing to do, it has already ended"),
    ("terminate", {"state": "Broken"}, "nothing to do, it has already ended"),
    ("terminate", OPEN, RefusedError),
    ("terminate", {"state": "Unheard Of"}, InstanceNotFoundError),
    ("terminate", None, InstanceNotFoundError),
]


@pytest.mark.parametrize(("action", "after", "outcome"), AFTER_A_REFUSAL)
def test_after_a_refusal_the_state_of_the_instance_decides(
    action: operations.Action, after: dict[str, Any] | None, outcome: Any, make: Make, stage: Any
) -> None:
    instance = make(**after) if after else None
    flow = actions.change_state("002N1", action, find=find)
    scene = stage(world(RefusedError("the server refused", **REFUSED), instance))
    if isinstance(outcome, str):
        done = scene.run(flow)
        assert done.note.startswith(f"{action}: {outcome}")
        assert done.instance == instance
    else:
        with pytest.raises(outcome, match="HTTP 400, resCode '405239999', resMsg 'not now'"):
            scene.run(flow)


@pytest.mark.parametrize("after", [OPEN, HELD])
def test_refusal_error_shows_the_state_of_the_instance(after: dict[str, Any], make: Make, stage: Any) -> None:
    action: operations.Action = "resume" if after is HELD else "suspend"
    with pytest.raises(RefusedError, match="the server refused, and the instance is 'Running'"):
        stage(world(RefusedError("the server refused"), make(**after))).run(
            actions.change_state("002N1", action, find=find)
        )


# action, the answer, the instance at the second check, whether the effect shows
ACCEPTED: list[tuple[operations.Action, dict[str, Any], dict[str, Any], bool]] = [
    ("suspend", HELD, HELD, True),
    ("suspend", {"state": "Suspended"}, HELD, True),
    ("suspend", OPEN, HELD, True),
    ("suspend", OPEN, OPEN, False),
    ("suspend", ENDED, ENDED, True),
    ("resume", OPEN, OPEN, True),
    ("resume", HELD, OPEN, True),
    ("resume", HELD, HELD, False),
    ("terminate", STOPPED, STOPPED, True),
    ("terminate", STOPPED_BY_USER, STOPPED, True),
    ("terminate", OPEN, STOPPED, True),
    ("terminate", OPEN, OPEN, False),
    ("terminate", OPEN, ENDED, True),
]


@pytest.mark.parametrize(("action", "answer", "later", "is_confirmed"), ACCEPTED)
def test_accepted_action_reports_whether_its_effect_shows(
    action: operations.Action,
    answer: dict[str, Any],
    later: dict[str, Any],
    is_confirmed: bool,
    make: Make,
    stage: Any,
) -> None:
    done = stage(world(make(**answer), make(**later))).run(actions.change_state("002N1", action, find=find))
    assert done.is_confirmed is is_confirmed
    assert ("shows no effect yet" in done.note) is not is_confirmed


class Lagging:
    """A server that accepts an action, or loses the answer to it, and shows its effect some checks later."""

    def __init__(
        self, answer: Any, before: BpmInstance | None, after: BpmInstance | None, checks: int
    ) -> None:
        self.answer, self.before, self.after, self.checks = answer, before, after, checks
        self.acted = False

    def __call__(self, operation: Operation[Any]) -> Any:
        if operation.kind != "query":
            self.acted = True
            return self.answer
        state = dict(operation.query)["states"]
        if self.acted and state == "Running":
            self.checks -= 1
        now = self.after if self.acted and self.checks < 0 else self.before
        return [now] if now and now.state == state else []


@pytest.mark.parametrize("grace", [0, 0.3, 1, 60])
def test_check_delays_have_jitter_and_last_for_the_grace(
    grace: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    chances = iter([1.0, 0.5, 0.0] * 10)
    monkeypatch.setattr("random.random", lambda: next(chances))
    delays = list(actions.check_delays(grace))
    assert sum(delays) == pytest.approx(grace)
    assert delays[:3] == {0: [], 0.3: [0.3], 1: [0.5, 0.5], 60: [0.5, 1.5, 4]}[grace]


class TestCheckForTheEffect:
    @pytest.mark.parametrize(
        ("checks", "paused"), [(0, []), (1, [1]), (3, [1, 2, 4]), (7, [1, 2, 4, 8, 15, 15, 15])]
    )
    def test_checks_with_growing_delays(
        self, checks: int, paused: list[float], make: Make, stage: Any
    ) -> None:
        scene = stage(Lagging(make(), make(), make(state="Terminated"), checks))
        done = scene.run(actions.change_state("002N1", "terminate", find=find, grace=60))
        assert (done.instance.state, done.is_confirmed) == ("Terminated", True)
        assert scene.paused == paused

    @pytest.mark.parametrize(
        ("action", "before", "words"),
        [
            ("terminate", OPEN, "the instance is 'Running'"),
            ("resume", HELD, "the instance is 'Running', suspended"),
        ],
    )
    def test_raises_if_the_effect_does_not_show_in_time(
        self, action: operations.Action, before: dict[str, Any], words: str, make: Make, stage: Any
    ) -> None:
        scene = stage(world(make(**before), make(**before)))
        match = f"{action} of instance '002N1' was accepted, but shows no effect after 60 s: {words}"
        with pytest.raises(EffectNotShownError, match=match) as caught:
            scene.run(actions.change_state("002N1", action, find=find, grace=60))
        assert caught.value.instance == make(**before)
        assert sum(scene.paused) == 60

    def test_raises_if_the_instance_disappears(self, make: Make, stage: Any) -> None:
        scene = stage(world(make(), None))
        with pytest.raises(EffectNotShownError, match="accepted, but instance '002N1' is in none of the"):
            scene.run(actions.change_state("002N1", "terminate", find=find, grace=60))

    def test_raises_early_if_checks_keep_failing(self, make: Make, stage: Any) -> None:
        def answer(operation: Operation[Any]) -> Any:
            return ServerError("down") if operation.kind == "query" else make()

        scene = stage(answer)
        with pytest.raises(EffectNotShownError, match=r"could not be read \(down\)"):
            scene.run(actions.change_state("002N1", "terminate", find=find, grace=60))
        assert scene.paused == [1]

    def test_single_failed_check_is_repeated(self, make: Make, stage: Any) -> None:
        lagging = Lagging(make(), make(), make(state="Terminated"), 2)
        fails = iter([True, True])

        def answer(operation: Operation[Any]) -> Any:
            if lagging.acted and operation.kind == "query" and next(fails, False):
                return ServerError("down")
            return lagging(operation)

        done = stage(answer).run(actions.change_state("002N1", "terminate", find=find, grace=60))
        assert done.instance.state == "Terminated"

    @pytest.mark.parametrize("answer", [InterruptedCallError("cut"), ServerError("down")], ids=repr)
    def test_checks_for_the_effect_after_a_lost_answer(
        self, answer: AstroZeroError, make: Make, stage: Any
    ) -> None:
        scene = stage(Lagging(answer, make(), make(state="Terminated"), 2))
        done = scene.run(actions.change_state("002N1", "terminate", find=find, grace=60))
        assert done.note.startswith("terminate: done, although an answer was lost")
        assert scene.paused == [1, 2]
        scene = stage(world(answer, make()))
        with pytest.raises(type(answer), match="and after 60 s the instance is 'Running'"):
            scene.run(actions.change_state("002N1", "terminate", find=find, grace=60))

    def test_does_not_wait_after_a_refusal(self, make: Make, stage: Any) -> None:
        scene = stage(world(RefusedError("the server refused", **REFUSED), make()))
        with pytest.raises(RefusedError):
            scene.run(actions.change_state("002N1", "terminate", find=find, grace=60))
        assert scene.paused == []


class TestIfClosedFail:
    def run(
        self, stage: Any, action_answer: Any, instance: BpmInstance, action: operations.Action = "terminate"
    ) -> Any:
        scene = stage(world(action_answer, instance))
        self.asked = scene.asked
        return scene.run(actions.change_state("002N1", action, find=find, if_closed="fail"))

    @pytest.mark.parametrize("state", ["Completed OK", "Terminated", "User Terminated", "Broken"])
    def test_reads_first_and_refuses_an_ended_instance(self, state: str, make: Make, stage: Any) -> None:
        with pytest.raises(InstanceClosedError, match=f"has already ended, in state '{state}'"):
            self.run(stage, make(state="Terminated"), make(state=state))
        assert "terminate" not in self.asked

    def test_acts_on_an_open_instance(self, make: Make, stage: Any) -> None:
        done = self.run(stage, make(state="Terminated"), make(state="Running"))
        assert done.instance.state == "Terminated"

    def test_instance_that_ends_by_itself_counts_as_already_ended(self, make: Make, stage: Any) -> None:
        with pytest.raises(InstanceClosedError):
            self.run(stage, make(state="Completed OK"), make(state="Running"))


def test_termination_after_a_lost_answer_counts_as_done(make: Make, stage: Any) -> None:
    seen = iter([make(state="Running"), make(state="Terminated")])
    current = next(seen)

    def answer(operation: Operation[Any]) -> Any:
        nonlocal current
        if operation.kind == "terminate":
            current = next(seen)
            return InterruptedCallError("the connection was lost")
        return [current] if current.state == dict(operation.query)["states"] else []

    done = stage(answer).run(actions.change_state("002N1", "terminate", find=find, if_closed="fail"))
    assert done.instance.state == "Terminated"


def refused(*, res_code: str | None = "405239999", **facts: bool) -> RefusedError:
    """Return a refusal, with facts about the attempts before it."""
    error = RefusedError("the server refused", status=400, res_code=res_code)
    for name, value in facts.items():
        setattr(error, name, value)
    return error


class TestWhichActionEndedTheInstance:
    """``if_closed="fail"``: the instance was open just before, and is terminated after our action."""

    def run(self, answer: Any, after: BpmInstance, make: Make, stage: Any, **options: Any) -> Any:
        scene = stage(Lagging(answer, make(), after, 0))
        return scene.run(actions.change_state("002N1", "terminate", find=find, if_closed="fail", **options))

    @pytest.mark.parametrize(
        "answer",
        [
            refused(
                earlier_attempt_sent=True, earlier_attempt_in_doubt=True
            ),  # the answer was lost, and the resend was refused
            refused(earlier_attempt_sent=True),  # throttled, and the resend was refused
            refused(res_code=None),  # from a gateway, maybe after the work was done
            InterruptedCallError("cut"),
            ServerError("down"),
        ],
        ids=repr,
    )
    @pytest.mark.parametrize("state", ["Terminated", "User Terminated"])
    def test_terminated_after_our_action_counts_as_ours(
        self, answer: Any, state: str, make: Make, stage: Any
    ) -> None:
        assert self.run(answer, make(state=state), make, stage).instance.state == state

    def test_not_ours_if_astro_zero_refused_the_only_request(self, make: Make, stage: Any) -> None:
        with pytest.raises(InstanceClosedError):
            self.run(refused(), make(state="Terminated"), make, stage)

    def test_not_ours_if_it_ended_in_another_state(self, make: Make, stage: Any) -> None:
        for state in ("Completed OK", "Broken"):
            with pytest.raises(InstanceClosedError):
                self.run(
                    refused(earlier_attempt_sent=True, earlier_attempt_in_doubt=True),
                    make(state=state),
                    make,
                    stage,
                )

    @pytest.mark.parametrize("action", ["suspend", "resume"])
    def test_suspend_and_resume_never_count_as_the_end(
        self, action: operations.Action, make: Make, stage: Any
    ) -> None:
        before = make(suspended=action == "resume")
        scene = stage(
            Lagging(
                refused(earlier_attempt_sent=True, earlier_attempt_in_doubt=True),
                before,
                make(state="Terminated"),
                0,
            )
        )
        with pytest.raises(InstanceClosedError):
            scene.run(actions.change_state("002N1", action, find=find, if_closed="fail"))

    def test_action_of_an_earlier_try_counts(self, make: Make, stage: Any) -> None:
        begun = actions.Intent(begun=True)
        scene = stage(world(None, make(state="Terminated")))
        done = scene.run(
            actions.change_state("002N1", "terminate", find=find, if_closed="fail", intent=begun)
        )
        assert "done by an earlier try of this task" in done.note
        assert "terminate" not in scene.asked
        with pytest.raises(InstanceClosedError):
            stage(world(None, make(state="Broken"))).run(
                actions.change_state("002N1", "terminate", find=find, if_closed="fail", intent=begun)
            )

    def test_intent_is_recorded_before_the_action_for_an_open_instance(self, make: Make, stage: Any) -> None:
        scene = stage(world(make(state="Terminated"), make()))
        seen: list[list[str]] = []
        intent = actions.Intent(begin=lambda: seen.append(list(scene.asked)))
        scene.run(actions.change_state("002N1", "terminate", find=find, if_closed="fail", intent=intent))
        (asked,) = seen
        assert "terminate" not in asked
        with pytest.raises(InstanceClosedError):
            stage(world(None, make(state="Terminated"))).run(
                actions.change_state("002N1", "terminate", find=find, if_closed="fail", intent=intent)
            )
        assert len(seen) == 1


@pytest.mark.parametrize(("action", "before"), [("suspend", OPEN), ("resume", HELD)])
@pytest.mark.parametrize("if_closed", ["succeed", "fail"])
def test_effect_after_a_lost_answer_counts_as_done(
    action: operations.Action, before: dict[str, Any], if_closed: Any, make: Make, stage: Any
) -> None:
    after = make(suspended=action == "suspend")
    scene = stage(
        Lagging(refused(earlier_attempt_sent=True, earlier_attempt_in_doubt=True), make(**before), after, 0)
    )
    done = scene.run(actions.change_state("002N1", action, find=find, if_closed=if_closed))
    assert done.instance == after
    assert done.note.startswith(f"{action}: done, although an answer was lost")


@pytest.mark.parametrize("kind", [NotSentError, AuthenticationError])
def test_failed_resend_does_not_hide_the_effect_of_the_first_attempt(
    kind: type[NotSentError], make: Make, stage: Any
) -> None:
    error = kind("x")
    error.earlier_attempt_in_doubt = True
    done = stage(Lagging(error, make(), make(state="Terminated"), 0)).run(
        actions.change_state("002N1", "terminate", find=find, if_closed="fail")
    )
    assert done.note.startswith("terminate: done, although an answer was lost")


@pytest.mark.parametrize("error", [NotSentError("x"), AuthenticationError("x")])
def test_errors_that_a_check_cannot_resolve_are_raised_at_once(error: AstroZeroError, stage: Any) -> None:
    for flow in (
        actions.change_state("1", "suspend", find=find),
        actions.delete("1", find=find, if_missing="succeed"),
    ):
        scene = stage(world(error, None))
        with pytest.raises(type(error)):
            scene.run(flow)
        assert len(scene.asked) == 1


class TestDelete:
    def run(self, stage: Any, answer: Any, instance: BpmInstance | None, **options: Any) -> str:
        note: str = stage(world(answer, instance)).run(actions.delete("002N1", find=find, **options))
        return note

    def test_deleted(self, stage: Any) -> None:
        assert self.run(stage, None, None) == "instance '002N1' deleted"

    def test_refused_and_still_exists(self, make: Make, stage: Any) -> None:
        with pytest.raises(RefusedError):
            self.run(stage, RefusedError("the server refused", **REFUSED), make())

    def test_refused_and_missing(self, stage: Any) -> None:
        with pytest.raises(InstanceNotFoundError, match="405239999"):
            self.run(stage, RefusedError("the server refused", **REFUSED), None)

    def test_missing_instance_is_accepted_with_if_missing_succeed(self, stage: Any) -> None:
        note = self.run(stage, RefusedError("the server refused", **REFUSED), None, if_missing="succeed")
        assert note == "instance '002N1' did not exist"

    @pytest.mark.parametrize(
        "answer", [InterruptedCallError("cut"), ServerError("down", status=500)], ids=repr
    )
    def test_lost_answer(self, answer: AstroZeroError, make: Make, stage: Any) -> None:
        scene = stage(Lagging(answer, make(), None, 0))
        assert "is gone, although the answer" in scene.run(actions.delete("002N1", find=find))
        with pytest.raises(type(answer), match="the instance is 'Running'"):
            self.run(stage, answer, make())

    def test_missing_before_is_not_reported_as_gone(self, stage: Any) -> None:
        unknown = ServerError("the server failed", status=500, res_code="405230030")
        with pytest.raises(InstanceNotFoundError, match="HTTP 500, resCode '405230030'"):
            self.run(stage, unknown, None)
        note = self.run(stage, unknown, None, if_missing="succeed")
        assert note.startswith(
            "instance '002N1' does not exist; it is unknown whether it existed before this deletion"
        )

    def test_deletes_even_if_the_search_finds_nothing(self, stage: Any) -> None:
        scene = stage(world(None, None))
        assert scene.run(actions.delete("002N1", find=find)) == "instance '002N1' deleted"
        assert scene.asked[-1] == "delete"

    def test_failure_stands_if_earlier_existence_is_unknown(self, stage: Any) -> None:
        gone: list[Any] = [ServerError("down")] * 2

        def answer(operation: Operation[Any]) -> Any:
            if operation.kind == "delete":
                return InterruptedCallError("cut")
            return gone.pop() if gone else []

        with pytest.raises(InterruptedCallError, match="it is unknown whether it existed before"):
            stage(answer).run(actions.delete("002N1", find=find))

    def test_checks_repeatedly_after_a_lost_answer(self, make: Make, stage: Any) -> None:
        scene = stage(Lagging(InterruptedCallError("cut"), make(), None, 3))
        assert "is gone" in scene.run(actions.delete("002N1", find=find, grace=60))
        assert scene.paused == [1, 2, 4]

    def test_action_of_an_earlier_try_counts(self, make: Make, stage: Any) -> None:
        scene = stage(world(None, None))
        note = scene.run(actions.delete("002N1", find=find, intent=actions.Intent(begun=True)))
        assert note == "instance '002N1' was deleted by an earlier try of this task"
        assert "delete" not in scene.asked


class TestSetVariables:
    @pytest.mark.parametrize(
        ("error", "may_be_set"),
        [
            (ServerError("the server failed"), True),
            (InterruptedCallError("cut"), True),
            (UnexpectedAnswerError("no JSON"), True),
            (refused(), False),
            (refused(earlier_attempt_in_doubt=True), True),
            (NotSentError("x"), False),
        ],
        ids=repr,
    )
    def test_failure_says_whether_the_variables_may_have_been_set(
        self, error: AstroZeroError, may_be_set: bool, stage: Any
    ) -> None:
        with pytest.raises(type(error)) as caught:
            stage(world(error, None)).run(actions.set_variables("002N1", {"a": 1}))
        assert ("the variables may have been set anyway" in str(caught.value)) is may_be_set


@pytest.mark.parametrize(
    "flow",
    [
        lambda: actions.change_state("1", "suspend", find=find, if_closed="ignore"),  # type: ignore[arg-type]
        lambda: actions.delete("1", find=find, if_missing="ignore"),  # type: ignore[arg-type]
    ],
)
def test_unknown_choice_raises_before_anything_is_sent(flow: Callable[[], Any], stage: Any) -> None:
    scene = stage(world(None, None))
    with pytest.raises(ValueError, match="must be one of 'succeed', 'fail', not 'ignore'"):
        scene.run(flow())
    assert scene.asked == []
