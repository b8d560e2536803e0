"""What a refusal of a start says: which key a person searches for, and what it is about."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_astrobpm.client import states
from airflow_provider_astrobpm.client.errors import AmbiguousStartError
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.starting.decision_table import (
    AdoptInstance,
    ExistingInstances,
    RefuseStart,
    StartDecision,
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
