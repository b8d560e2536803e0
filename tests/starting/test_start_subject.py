"""What is decided about a start, and what a refusal says: which key a person searches for, and what it is about."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_astrobpm.client import states
from airflow_provider_astrobpm.client.errors import AmbiguousStartError, OpenInstanceExistsError
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.starting.decision import StartRecord
from airflow_provider_astrobpm.starting.decision_table import (
    AdoptInstance,
    ExistingInstances,
    RefuseStart,
    StartDecision,
    StartInstance,
    StartSubject,
    decide_start,
    generation_doubt,
    start_time_doubt,
)
from airflow_provider_astrobpm.starting.lost_start import describe_instances
from tests.starting.test_decision import start_request

ONE = StartSubject("Approval", "next-key")
LAUNCH = StartSubject("Approval", "next-key", "launch 7")


def instance(**fields: Any) -> BpmInstance:
    return BpmInstance(id="1", name="Approval", state=states.COMPLETED, **fields)


def test_a_refusal_without_an_instance_names_the_key_of_the_next_start() -> None:
    refusal = ONE.refuse("in doubt")
    assert isinstance(refusal.error, AmbiguousStartError)
    assert (refusal.error.problem, refusal.error.business_key) == ("in doubt", "next-key")
    assert refusal.asks_person


def test_a_refusal_because_of_an_instance_names_the_key_of_that_instance() -> None:
    error = ONE.refuse("in doubt", instance(business_key="its-key")).error
    assert isinstance(error, AmbiguousStartError)
    assert error.business_key == "its-key"
    assert "'its-key'" in str(error)


def test_an_instance_without_a_key_is_searched_for_by_the_key_of_the_next_start() -> None:
    error = ONE.refuse("in doubt", instance()).error
    assert isinstance(error, AmbiguousStartError)
    assert error.business_key == "next-key"


@pytest.mark.parametrize(("subject", "where"), [(ONE, ""), (LAUNCH, " for launch 7")])
def test_an_ambiguous_owner_is_described_with_the_launch_and_the_key(
    subject: StartSubject, where: str
) -> None:
    found = [instance(business_key="next-key")]
    error = subject.ambiguous_owner_error(found, "Ask the author.")
    assert error.problem == (
        f"it is unknown whether an earlier try started one of these{where}, because others may use their key: {found[0]}"
    )
    assert (error.business_key, error.advice) == ("next-key", "Ask the author.")


def test_a_start_time_in_doubt_is_shown() -> None:
    one = instance(start_time="1970-01-01 08:00:00")
    assert start_time_doubt(one) == (
        f"{one} has its business key, but its start time '1970-01-01 08:00:00' does not show whether this run of the DAG has "
        "started it, or a deleted one with the same id"
    )


class TestDecideStart:
    """Rows of the table, for one start and for a launch."""

    def decide(self, subject: StartSubject, found: ExistingInstances, **options: Any) -> StartDecision:
        return decide_start(start_request(), None, subject, found, **options)

    @pytest.mark.parametrize(("subject", "where"), [(ONE, ""), (LAUNCH, "launch 7: ")])
    def test_an_unclear_start_time(self, subject: StartSubject, where: str) -> None:
        one = open_instance(business_key="its-key")
        refused = self.decide(subject, ExistingInstances((one,), unclear=(one,)))
        assert isinstance(refused, RefuseStart)
        assert isinstance(refused.error, AmbiguousStartError)
        assert refused.error.problem == f"{where}{start_time_doubt(one)}"
        assert refused.error.business_key == "its-key"

    @pytest.mark.parametrize(
        ("subject", "whose"), [(ONE, "this task's business key"), (LAUNCH, "the business key of launch 7")]
    )
    def test_an_instance_of_another_bpm(self, subject: StartSubject, whose: str) -> None:
        called = BpmInstance(id="3", name="Called", state="Running", business_key="its-key")
        refused = self.decide(subject, ExistingInstances((called,)))
        assert isinstance(refused, RefuseStart)
        assert isinstance(refused.error, AmbiguousStartError)
        assert refused.error.problem == f"{called} has {whose}, but is not an instance of 'Approval'"
        assert refused.error.business_key == "its-key"

    @pytest.mark.parametrize(
        ("times", "newest"),
        [
            (["2026-01-02 00:00:00", "2026-01-01 00:00:00"], 0),
            (["2026-01-01 00:00:00", "2026-01-02 00:00:00"], 1),
            ([None, "2026-01-01 00:00:00"], 1),
            (["2026-01-01 00:00:00", None], 0),
        ],
    )
    @pytest.mark.parametrize("has_met", [False, True])
    def test_adopts_the_newest_that_has_succeeded(
        self, times: list[str | None], newest: int, has_met: bool
    ) -> None:
        found = [instance(is_closed=True, start_time=time) for time in times]
        decided = self.decide(ONE, ExistingInstances(found), has_met=has_met)
        assert isinstance(decided, AdoptInstance)
        assert decided.instance is found[newest]

    def test_after_it_has_met_the_condition_the_newest_counts_whatever_became_of_it(self) -> None:
        still_open = open_instance(start_time="2026-01-01 00:00:00")
        failed = BpmInstance(
            id="4", name="Approval", state="Broken", is_closed=True, start_time="2026-01-02 00:00:00"
        )
        for has_met, adopted in ((False, still_open), (True, failed)):
            decided = self.decide(ONE, ExistingInstances((still_open, failed)), has_met=has_met)
            assert decided == AdoptInstance(adopted, "an earlier try started it")

    def test_an_open_instance_of_someone_else(self) -> None:
        other = ExistingInstances(others=(open_instance(business_key="next-key"),))
        assert self.decide(ONE, other, if_open_instance_exists="adopt") == AdoptInstance(
            other.others[0], "it has the task's custom business key"
        )
        assert self.decide(ONE, other) == StartInstance("next-key")
        refused = self.decide(ONE, other, if_open_instance_exists="fail")
        assert isinstance(refused, RefuseStart)
        assert isinstance(refused.error, OpenInstanceExistsError)
        assert refused.asks_person is False

    @pytest.mark.parametrize(("subject", "what"), [(ONE, "an instance"), (LAUNCH, "launch 7")])
    def test_a_doubt(self, subject: StartSubject, what: str) -> None:
        found = ExistingInstances(doubt="the list is cut off")
        refused = self.decide(subject, found)
        assert isinstance(refused, RefuseStart)
        assert isinstance(refused.error, AmbiguousStartError)
        assert refused.error.problem == (
            f"it is unknown whether an earlier try started {what}: the list is cut off"
        )
        assert refused.error.business_key == "next-key"
        was_asked = StartRecord(generation=1, told=True)
        assert decide_start(start_request(), was_asked, subject, found) == StartInstance(
            "next-key", warning="the list is cut off; starting anyway, because the task was cleared"
        )


class TestSeveral:
    """Instances of which at most one can be adopted."""

    def decide(
        self, subject: StartSubject, *found: BpmInstance, is_certain: bool = True, record: Any = None
    ) -> StartDecision:
        request = start_request(generation_is_certain=is_certain)
        return decide_start(request, record, subject, ExistingInstances(found))

    @pytest.mark.parametrize(("subject", "whose"), [(ONE, "this task's"), (LAUNCH, "that of launch 7")])
    def test_a_refusal_names_them_and_the_key_of_the_first(self, subject: StartSubject, whose: str) -> None:
        two = [open_instance(business_key="its-key"), open_instance(business_key="other")]
        refused = self.decide(subject, *two)
        assert isinstance(refused, RefuseStart)
        assert isinstance(refused.error, AmbiguousStartError)
        assert refused.error.problem == f"several instances may be {whose}: {describe_instances(two)}"
        assert refused.error.business_key == "its-key"

    def test_an_ended_one_of_an_uncertain_generation_is_refused(self) -> None:
        one = instance(business_key="its-key", is_closed=True)
        assert self.decide(ONE, one) == AdoptInstance(one, "an earlier try started it")
        refused = self.decide(ONE, one, is_certain=False)
        assert isinstance(refused, RefuseStart)
        assert isinstance(refused.error, AmbiguousStartError)
        assert refused.error.problem == generation_doubt(one)
        assert refused.error.business_key == "its-key"
        still_open = open_instance(business_key="its-key")
        assert self.decide(ONE, still_open, is_certain=False) == AdoptInstance(
            still_open, "an earlier try started it"
        )


def open_instance(**fields: Any) -> BpmInstance:
    return BpmInstance(id="2", name="Approval", state="Running", **fields)
