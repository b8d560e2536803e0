"""State changes are judged by outcome: the table of what is concluded after each answer."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import pytest

from airflow_provider_astrobpm.bpm import api, change, search
from airflow_provider_astrobpm.bpm.api import Operation
from airflow_provider_astrobpm.bpm.errors import (
    AnotherInstanceError,
    AstroZeroError,
    AuthenticationError,
    InstanceClosedError,
    InstanceNotFoundError,
    InterruptedCallError,
    NotSentError,
    RefusedError,
    ServerError,
)
from airflow_provider_astrobpm.bpm.instance import BpmInstance
from airflow_provider_astrobpm.bpm.sameness import Known

Make = Callable[..., BpmInstance]

REFUSED: dict[str, Any] = {"status": 400, "res_code": "405239999", "res_msg": "not now"}


def find(instance_id: str) -> Generator[Any, Any, BpmInstance]:
    return search.find_by_id(instance_id, lookup="list")


def world(action_answer: Any, instance: BpmInstance | None) -> Callable[[Operation[Any]], Any]:
    """Answer the action as told, and queries from one instance."""

    def answer(operation: Operation[Any]) -> Any:
        if operation.kind == "query":
            return [instance] if instance and instance.state == dict(operation.query)["states"] else []
        return action_answer

    return answer


class TestAnotherInstanceUnderTheId:
    KNOWN = Known(("Approval",), "k")

    @pytest.mark.parametrize("other", [{"name": "Another"}, {"business_key": "z"}], ids=str)
    def test_is_left_alone(self, other: dict[str, Any], make: Make, stage: Any) -> None:
        scene = stage(world(make(state="Terminated"), make(**{"business_key": "k", **other})))
        with pytest.raises(AnotherInstanceError, match="it was of 'Approval' with business key 'k'"):
            scene.run(change.change_state("002N1", "terminate", find=find, known=self.KNOWN))
        assert "terminate" not in scene.asked

    @pytest.mark.parametrize("before", [[], ServerError("down")], ids=["not there", "not readable"])
    def test_does_not_matter_where_nothing_can_be_read(self, before: Any, make: Make, stage: Any) -> None:
        def answer(operation: Operation[Any]) -> Any:
            return before if operation.kind == "query" else make(state="Terminated")

        scene = stage(answer)
        done = scene.run(change.change_state("002N1", "terminate", find=find, known=self.KNOWN))
        assert done.instance.state == "Terminated"

    def test_is_none_if_it_shows_what_is_known(self, make: Make, stage: Any) -> None:
        scene = stage(world(make(state="Terminated"), make(business_key="k")))
        scene.run(change.change_state("002N1", "terminate", find=find, known=self.KNOWN))
        assert scene.asked[-1] == "terminate"


OPEN, HELD = {"state": "Running"}, {"state": "Running", "suspended": True}
ENDED, STOPPED, STOPPED_BY_USER = (
    {"state": "Completed OK"},
    {"state": "Terminated"},
    {"state": "User Terminated"},
)

# action, the instance after the refusal, the first word of the outcome
AFTER_A_REFUSAL: list[tuple[api.Action, dict[str, Any] | None, type[AstroZeroError] | str]] = [
    ("suspend", HELD, "nothing to do"),
    ("suspend", {"state": "Suspended"}, "nothing to do"),
    ("suspend", OPEN, RefusedError),
    ("suspend", ENDED, "nothing to do, it has ended already"),
    ("suspend", None, InstanceNotFoundError),
    ("resume", OPEN, "nothing to do"),
    ("resume", HELD, RefusedError),
    ("resume", {"state": "Suspended"}, RefusedError),
    ("resume", STOPPED, "nothing to do, it has ended already"),
    ("resume", None, InstanceNotFoundError),
    ("terminate", STOPPED, "nothing to do, it has ended already"),
    ("terminate", STOPPED_BY_USER, "nothing to do, it has ended already"),
    ("terminate", ENDED, "nothing to do, it has ended already"),
    ("terminate", {"state": "Broken"}, "nothing to do, it has ended already"),
    ("terminate", OPEN, RefusedError),
    ("terminate", {"state": "Unheard Of"}, InstanceNotFoundError),
    ("terminate", None, InstanceNotFoundError),
]


@pytest.mark.parametrize(("action", "after", "outcome"), AFTER_A_REFUSAL)
def test_after_a_refusal_the_state_decides(
    action: api.Action, after: dict[str, Any] | None, outcome: Any, make: Make, stage: Any
) -> None:
    instance = make(**after) if after else None
    plan = change.change_state("002N1", action, find=find)
    scene = stage(world(RefusedError("the server refused", **REFUSED), instance))
    if isinstance(outcome, str):
        done = scene.run(plan)
        assert done.note.startswith(f"{action}: {outcome}")
        assert done.instance == instance
    else:
        with pytest.raises(outcome, match="HTTP 400, resCode '405239999', resMsg 'not now'"):
            scene.run(plan)


@pytest.mark.parametrize("after", [OPEN, HELD])
def test_a_refusal_that_stands_says_how_the_instance_is(
    after: dict[str, Any], make: Make, stage: Any
) -> None:
    action: api.Action = "resume" if after is HELD else "suspend"
    with pytest.raises(RefusedError, match="the server refused, and the instance is 'Running'"):
        stage(world(RefusedError("the server refused"), make(**after))).run(
            change.change_state("002N1", action, find=find)
        )


# action, the answer, the instance at a second look, whether the effect shows
ACCEPTED: list[tuple[api.Action, dict[str, Any], dict[str, Any], bool]] = [
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


@pytest.mark.parametrize(("action", "answer", "later", "visible"), ACCEPTED)
def test_an_accepted_action_says_whether_its_effect_shows(
    action: api.Action, answer: dict[str, Any], later: dict[str, Any], visible: bool, make: Make, stage: Any
) -> None:
    done = stage(world(make(**answer), make(**later))).run(change.change_state("002N1", action, find=find))
    assert done.visible is visible
    assert ("does not show yet" in done.note) is not visible


class TestStrict:
    def run(
        self, stage: Any, action_answer: Any, instance: BpmInstance, action: api.Action = "terminate"
    ) -> Any:
        scene = stage(world(action_answer, instance))
        self.asked = scene.asked
        return scene.run(change.change_state("002N1", action, find=find, if_closed="fail"))

    @pytest.mark.parametrize("state", ["Completed OK", "Terminated", "User Terminated", "Broken"])
    def test_looks_first_and_acts_on_nothing_that_has_ended(self, state: str, make: Make, stage: Any) -> None:
        with pytest.raises(InstanceClosedError, match=f"has ended already, in state '{state}'"):
            self.run(stage, make(state="Terminated"), make(state=state))
        assert "terminate" not in self.asked

    def test_acts_on_what_is_open(self, make: Make, stage: Any) -> None:
        done = self.run(stage, make(state="Terminated"), make(state="Running"))
        assert done.instance.state == "Terminated"

    def test_one_that_ends_by_itself_meanwhile_has_ended_already(self, make: Make, stage: Any) -> None:
        with pytest.raises(InstanceClosedError):
            self.run(stage, make(state="Completed OK"), make(state="Running"))


def test_an_end_behind_a_lost_answer_is_the_one_that_was_asked_for(make: Make, stage: Any) -> None:
    seen = iter([make(state="Running"), make(state="Terminated")])
    current = next(seen)

    def answer(operation: Operation[Any]) -> Any:
        nonlocal current
        if operation.kind == "terminate":
            current = next(seen)
            return InterruptedCallError("the connection was cut")
        return [current] if current.state == dict(operation.query)["states"] else []

    done = stage(answer).run(change.change_state("002N1", "terminate", find=find, if_closed="fail"))
    assert done.instance.state == "Terminated"


@pytest.mark.parametrize("error", [NotSentError("x"), AuthenticationError("x")])
def test_what_a_look_cannot_mend_is_raised_at_once(error: AstroZeroError, stage: Any) -> None:
    for plan in (change.change_state("1", "suspend", find=find), change.delete("1", find=find)):
        scene = stage(world(error, None))
        with pytest.raises(type(error)):
            scene.run(plan)
        assert len(scene.asked) == 1


class TestDelete:
    def run(self, stage: Any, answer: Any, instance: BpmInstance | None, **options: Any) -> str:
        note: str = stage(world(answer, instance)).run(change.delete("002N1", find=find, **options))
        return note

    def test_deleted(self, stage: Any) -> None:
        assert self.run(stage, None, None) == "instance '002N1' deleted"

    def test_refused_and_still_there(self, make: Make, stage: Any) -> None:
        with pytest.raises(RefusedError):
            self.run(stage, RefusedError("the server refused", **REFUSED), make())

    def test_refused_and_not_there(self, stage: Any) -> None:
        with pytest.raises(InstanceNotFoundError, match="405239999"):
            self.run(stage, RefusedError("the server refused", **REFUSED), None)

    def test_not_there_may_be_fine(self, stage: Any) -> None:
        note = self.run(stage, RefusedError("the server refused", **REFUSED), None, if_missing="succeed")
        assert note == "instance '002N1' was not there"

    def test_an_answer_that_was_lost(self, make: Make, stage: Any) -> None:
        assert "is gone" in self.run(stage, InterruptedCallError("cut"), None)
        with pytest.raises(InterruptedCallError):
            self.run(stage, InterruptedCallError("cut"), make())


@pytest.mark.parametrize(
    "plan",
    [
        lambda: change.change_state("1", "suspend", find=find, if_closed="ignore"),  # type: ignore[arg-type]
        lambda: change.delete("1", find=find, if_missing="ignore"),  # type: ignore[arg-type]
    ],
)
def test_an_unknown_choice_is_refused_before_anything_is_sent(plan: Callable[[], Any], stage: Any) -> None:
    scene = stage(world(None, None))
    with pytest.raises(ValueError, match="must be one of 'succeed', 'fail', not 'ignore'"):
        scene.run(plan())
    assert scene.asked == []
