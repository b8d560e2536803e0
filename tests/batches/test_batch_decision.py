"""Tests of the decisions about the launches of a batch: by tables, and with random batches."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_astrobpm.batches.batch_decision import BatchDecider, StartLaunch
from airflow_provider_astrobpm.batches.batch_input import Launch
from airflow_provider_astrobpm.batches.batch_record import (
    MAX_LAUNCHES_WITH_CUSTOM_KEYS,
    MAX_SATISFIED_LAUNCHES,
    SIGNATURE_LENGTH,
    BatchRecord,
    BatchRequest,
    is_recorded_instance,
)
from airflow_provider_astrobpm.client.errors import AmbiguousStartError, BatchChangedError
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.client.key_form import KeyForm
from airflow_provider_astrobpm.client.key_search import KeyMatches
from airflow_provider_astrobpm.starting.business_keys import BatchKey, TaskIdentity
from airflow_provider_astrobpm.starting.decision_table import (
    MAX_PREEXISTING_IDS,
    AdoptInstance,
    generation_doubt,
    start_time_doubt,
)
from airflow_provider_astrobpm.starting.lost_start import describe_instances
from airflow_provider_astrobpm.starting.try_request import LookupMethod, choose_lookup, lookup_delay

TASK = TaskIdentity("dag", "run", "task")
NAME = "Approval"
FIRST, SECOND = Launch(1, NAME, variables={"n": 1}), Launch(2, NAME, variables={"n": 2})
KEYED = Launch(1, NAME, business_key="mine")
Make = Callable[..., BpmInstance]
LATELY = "2026-03-01 11:30:00"


def batch_request(**fields: Any) -> BatchRequest:
    accepts = fields.pop("accepts", lambda one: one.state == "Completed OK")
    generation = fields.pop("generation", 2)
    number = fields.pop("try_number", generation + 1)
    return BatchRequest(identity=TASK, generation=generation, try_number=number, accepts=accepts, **fields)


def key_of(launch: Launch, generation: int = 2, again: int = 1) -> str:
    return TASK.batch_key(BatchKey(generation, launch.number, launch.digest, again))


def adoption(instance: BpmInstance, *, left: bool = False) -> AdoptInstance:
    why = "it was left open when the task was cleared" if left else "an earlier try started it"
    return AdoptInstance(instance, why)


NOW = datetime(2026, 3, 1, 12, tzinfo=timezone.utc).timestamp()
BEGUN = NOW - 3600


def matches_of(
    asked: BatchRequest, instances: Iterable[BpmInstance], form: KeyForm | None = None
) -> KeyMatches:
    found = asked.new_matches(form, lambda: NOW)
    found.add_list(list(instances))
    return found


@pytest.fixture
def make(make: Make) -> Make:
    """Make an instance, started recently by default."""
    return lambda *args, **fields: make(*args, **{"start_time": LATELY, **fields})


@pytest.fixture
def decider(make: Make) -> Callable[..., BatchDecider]:
    def open_it(
        *instances: tuple[str, str], record: BatchRecord | None = None, **fields: Any
    ) -> BatchDecider:
        """Make one from the state and the business key of each instance; the ids are 0, 1 and so on."""
        asked = batch_request(**{"try_number": max(3, fields.get("generation", 0)), **fields})
        made = [make(str(n), state=state, business_key=key) for n, (state, key) in enumerate(instances)]
        return BatchDecider(asked, record, matches_of(asked, made))

    return open_it


OPEN, GOOD, BAD = "Running", "Completed OK", "Terminated"


class TestDecide:
    def test_the_first_try_starts_every_launch(self) -> None:
        empty = BatchDecider(batch_request(generation=1))
        assert empty.decide(FIRST) == StartLaunch(FIRST, key_of(FIRST, 1))
        assert empty.decide(KEYED) == StartLaunch(KEYED, "mine")
        assert empty.superseded() == []
        empty.check_none_missing()

    @pytest.mark.parametrize(
        ("states", "end"),
        [
            ([OPEN], "0"),
            ([GOOD], "0"),
            ([BAD, OPEN], "1"),
            ([BAD, GOOD], "1"),
            ([GOOD, OPEN], "1"),
            ([BAD], 2),
            ([BAD, BAD], 3),
            ([], 1),
        ],
    )
    def test_decides_by_the_instances_of_this_generation(
        self, states: list[str], end: Any, decider: Any
    ) -> None:
        found = decider(*((state, key_of(FIRST, again=n)) for n, state in enumerate(states, 1)))
        decision = found.decide(FIRST)
        if isinstance(end, str):
            assert isinstance(decision, AdoptInstance)
            assert decision.instance.id == end
        else:
            assert decision == StartLaunch(FIRST, key_of(FIRST, again=end))
        assert found.decide(SECOND) == StartLaunch(SECOND, key_of(SECOND))
        assert found.superseded() == []

    def test_refuses_to_choose_between_open_instances_of_a_launch(self, decider: Any) -> None:
        with pytest.raises(AmbiguousStartError, match="several instances may be that of launch 1"):
            decider((OPEN, key_of(FIRST)), (OPEN, key_of(FIRST, again=2))).decide(FIRST)

    def test_raises_if_another_launch_was_started_in_its_place(self, decider: Any) -> None:
        found = decider((GOOD, key_of(Launch(1, NAME))))
        with pytest.raises(
            BatchChangedError, match="launch 1 differs from the launch that started instance '0'.*and retry"
        ):
            found.decide(FIRST)

    def test_raises_if_a_started_launch_is_missing(self, decider: Any) -> None:
        found = decider((GOOD, key_of(FIRST)), (BAD, key_of(SECOND)))
        found.decide(FIRST)
        with pytest.raises(BatchChangedError, match="launch 2"):
            found.check_none_missing()
        found.decide(SECOND)
        found.check_none_missing()

    def test_refuses_an_instance_of_another_bpm_with_its_key(self, make: Make) -> None:
        """A called BPM may have its key too."""
        asked_for, key = batch_request(try_number=3), key_of(FIRST)
        strange, own = make("7", name="Sub", business_key=key), make("8", name=NAME, business_key=key)
        with pytest.raises(
            AmbiguousStartError, match=f"{key!r}.*launch 1, but is not an instance of 'Approval'|launch 1"
        ):
            BatchDecider(asked_for, None, matches_of(asked_for, [strange])).decide(FIRST)
        assert BatchDecider(asked_for, None, matches_of(asked_for, [strange, own])).decide(FIRST) == adoption(
            own
        )

    def test_does_not_terminate_a_bpm_called_by_an_adopted_instance(self, make: Make) -> None:
        key = key_of(FIRST, 1)
        found = [make("7", name="Sub", business_key=key), make("8", name=NAME, business_key=key)]
        asked_for = batch_request()
        record = BatchRecord(generation=1, posted_at=1.0, unfinished=True)
        decider = BatchDecider(asked_for, record, matches_of(asked_for, found))
        decider.decide(FIRST)
        assert decider.superseded() == []

    def test_lists_without_keys_leave_doubt_after_a_failed_instance(self, make: Make) -> None:
        """A later instance may be hidden."""
        asked_for = batch_request()
        matches = matches_of(asked_for, [make("0", state=BAD, business_key=key_of(FIRST))])
        matches.truncated_lists["Running"] = [make("x", business_key="other")], True
        with pytest.raises(AmbiguousStartError, match="may be cut off at its 1 rows"):
            BatchDecider(asked_for, BatchRecord(generation=2, posted_at=BEGUN), matches).decide(FIRST)

    def test_adopts_a_satisfied_launch_whatever_its_instance_did_since(self, decider: Any) -> None:
        record = BatchRecord(generation=2, posted_at=1.0, unfinished=True).failed(unfinished=True, met=[1])
        found = decider((BAD, key_of(FIRST)), (BAD, key_of(SECOND)), record=record)
        assert isinstance(found.decide(FIRST), AdoptInstance)
        assert isinstance(found.decide(SECOND), StartLaunch)
        assert found.met == {1}

    @pytest.mark.parametrize(
        ("unfinished", "keeps_open", "goes_on", "superseded"),
        [
            (False, False, [], ["0", "3"]),
            (True, False, ["0", "1"], ["3"]),
            (False, True, ["0"], ["3"]),
            (True, True, ["0", "1"], ["3"]),
        ],
    )
    def test_decides_by_the_instances_of_an_older_generation(
        self, unfinished: bool, keeps_open: bool, goes_on: list[str], superseded: list[str], decider: Any
    ) -> None:
        third, gone = Launch(3, NAME), Launch(4, "Gone")
        record = BatchRecord(generation=1, posted_at=1.0, unfinished=unfinished)
        states = [(OPEN, FIRST), (GOOD, SECOND), (BAD, third), (OPEN, gone)]
        found = decider(
            *((state, key_of(launch, 1)) for state, launch in states), record=record, keeps_open=keeps_open
        )
        decisions = [found.decide(launch) for launch in (FIRST, SECOND, third)]
        assert [one.instance.id for one in decisions if isinstance(one, AdoptInstance)] == goes_on
        started = [one for one in decisions if isinstance(one, StartLaunch)]
        assert started == [StartLaunch(one.launch, key_of(one.launch)) for one in started]
        assert [one.id for one in found.superseded()] == superseded
        found.check_none_missing()

    def test_adopts_only_from_generations_that_it_resumes(self, decider: Any) -> None:
        """The first generation succeeded and was cleared. The third failed, and so did the next one."""
        instances = [(GOOD, key_of(FIRST, 1)), (GOOD, key_of(SECOND, 3)), (OPEN, key_of(Launch(3, NAME), 5))]
        record = BatchRecord(generation=5, posted_at=1.0, unfinished=True, goes_on_from=3)
        found = decider(*instances, record=record, generation=7)
        assert isinstance(found.decide(FIRST), StartLaunch)
        assert isinstance(found.decide(SECOND), AdoptInstance)
        assert isinstance(found.decide(Launch(3, NAME)), AdoptInstance)

    def test_a_retry_resumes_the_same_generations(self, decider: Any) -> None:
        record = BatchRecord(generation=2, posted_at=1.0, goes_on_from=1)
        found = decider((GOOD, key_of(FIRST, 1)), (BAD, key_of(FIRST, 2)), record=record)
        assert isinstance(found.decide(FIRST), AdoptInstance), (
            "a succeeded instance counts, whoever completed it"
        )

    def test_ignores_instances_of_a_deleted_run_with_the_same_keys(self, make: Make) -> None:
        asked_for, key = batch_request(), key_of(FIRST)
        old = make("1", business_key=key, start_time="2026-01-01 10:00:00")
        new = make("2", business_key=key, start_time="2026-03-01 10:00:00")
        record = BatchRecord(generation=2, posted_at=datetime(2026, 3, 1, 9, tzinfo=timezone.utc).timestamp())
        recent = make("3", business_key="another")
        for found, ends in (
            ([old, new], adoption(new)),
            ([old, recent], StartLaunch(FIRST, key)),
        ):
            assert BatchDecider(asked_for, record, matches_of(asked_for, found)).decide(FIRST) == ends

    @pytest.mark.parametrize("state", [OPEN, GOOD])
    def test_a_first_try_of_a_generation_knows_that_its_keys_are_those_of_a_deleted_run(
        self, state: str, make: Make
    ) -> None:
        """No process of this generation can have run before, so nothing carries its keys but what a deleted run left."""
        asked_for = batch_request(generation=2, try_number=2)
        found = BatchDecider(
            asked_for, None, matches_of(asked_for, [make("8", state, business_key=key_of(FIRST))])
        )
        assert found.decide(FIRST) == StartLaunch(FIRST, key_of(FIRST))
        assert found.superseded() == []
        begun = BatchRecord(generation=2, intent_of=2)
        crashed = batch_request(generation=2, try_number=3)
        sent_none = BatchDecider(
            crashed, begun, matches_of(crashed, [make("8", state, business_key=key_of(FIRST))])
        )
        assert sent_none.decide(FIRST) == StartLaunch(FIRST, key_of(FIRST))
        retry = batch_request(generation=2, try_number=3)
        again = BatchDecider(retry, None, matches_of(retry, [make("8", state, business_key=key_of(FIRST))]))
        assert isinstance(again.decide(FIRST), AdoptInstance)

    @pytest.mark.parametrize(
        ("record", "fields", "state", "is_changed"),
        [
            (BatchRecord(generation=2, posted_at=1.0, goes_on_from=1), {}, OPEN, True),
            (BatchRecord(generation=2, posted_at=1.0, goes_on_from=1), {}, BAD, False),
            (BatchRecord(generation=2, goes_on_from=1), {}, OPEN, False),
            (BatchRecord(generation=1, posted_at=1.0, unfinished=True), {}, OPEN, False),
            (None, {"generation_is_certain": False}, OPEN, True),
        ],
        ids=["resumed", "resumed, and ended", "nothing sent yet", "to be resumed", "an uncertain generation"],
    )
    def test_in_a_resumed_batch_no_other_launch_is_open_in_a_launchs_place(
        self, record: BatchRecord | None, fields: dict[str, Any], state: str, is_changed: bool, decider: Any
    ) -> None:
        other = Launch(1, NAME, variables={"n": "other"})
        found = decider((state, key_of(other, 1)), record=record, **fields)
        if is_changed:
            with pytest.raises(BatchChangedError, match="launch 1 differs from the launch that started"):
                found.decide(FIRST)
        else:
            assert isinstance(found.decide(FIRST), StartLaunch)
        assert isinstance(found.decide(SECOND), StartLaunch)

    @pytest.mark.parametrize("unfinished", [True, False], ids=["to be resumed", "finished"])
    def test_an_older_open_instance_without_a_credible_start_time_is_in_doubt(
        self, unfinished: bool, make: Make
    ) -> None:
        """It may be one of a deleted run, whichever launch has started it."""
        asked_for = batch_request(since=BEGUN)
        key = key_of(Launch(1, NAME), 1)
        odd = make("8", OPEN, business_key=key, start_time="1970-01-01 08:00:00")
        record = BatchRecord(generation=1, posted_at=BEGUN, unfinished=unfinished)
        with pytest.raises(AmbiguousStartError) as refused:
            BatchDecider(asked_for, record, matches_of(asked_for, [odd])).decide(FIRST)
        assert start_time_doubt(odd) in refused.value.problem
        assert refused.value.business_key == key

    def test_a_succeeded_instance_of_an_uncertain_generation_is_named(self, make: Make) -> None:
        asked_for = batch_request(generation_is_certain=False)
        good = make("8", GOOD, business_key=key_of(FIRST, 1))
        with pytest.raises(AmbiguousStartError) as refused:
            BatchDecider(asked_for, None, matches_of(asked_for, [good])).decide(FIRST)
        assert generation_doubt(good) in refused.value.problem
        assert refused.value.business_key == key_of(FIRST)

    def test_refuses_if_the_lists_may_hide_an_instance(self, make: Make) -> None:
        asked_for = batch_request()
        hidden = matches_of(asked_for, [make("1"), make("2", business_key=None)])
        for record in (
            None,
            BatchRecord(generation=2, posted_at=1.0, told=True),
            BatchRecord(generation=1, posted_at=1.0),
        ):
            with pytest.raises(AmbiguousStartError, match="started launch 1: the lists show no business"):
                BatchDecider(asked_for, record, hidden).decide(FIRST)
        answered = BatchDecider(asked_for, BatchRecord(generation=1, posted_at=1.0, told=True), hidden)
        assert answered.decide(FIRST) == StartLaunch(FIRST, key_of(FIRST))
        very_first = batch_request(generation=1, try_number=1)
        assert BatchDecider(very_first, None, hidden).decide(FIRST) == StartLaunch(FIRST, key_of(FIRST, 1))

    @pytest.mark.parametrize(("goes_on_from", "refuses"), [(None, False), (1, True)])
    def test_a_cut_off_list_must_reach_back_to_all_resumed_generations(
        self, goes_on_from: int | None, refuses: bool, make: Make
    ) -> None:
        asked_for = batch_request(since=datetime(2026, 1, 1, tzinfo=timezone.utc).timestamp())
        begun = datetime(2026, 1, 10, tzinfo=timezone.utc).timestamp()
        record = BatchRecord(generation=2, posted_at=begun, goes_on_from=goes_on_from)
        recent = make("recent", business_key="x", start_time="2026-03-01 10:00:00")
        matches = matches_of(asked_for, [recent])
        last = make("last", business_key="x", start_time="2026-01-08 10:00:00")
        matches.truncated_lists["Running"] = [recent, last], True
        decider = BatchDecider(asked_for, record, matches)
        if refuses:
            with pytest.raises(AmbiguousStartError, match="may be cut off"):
                decider.decide(FIRST)
        else:
            assert isinstance(decider.decide(FIRST), StartLaunch)


@pytest.mark.parametrize(
    ("record", "fields", "seconds"),
    [
        (None, {"try_number": 1, "generation": 1, "own_keys": {1: "k"}}, 0),
        (BatchRecord(generation=3, goes_on_from=1), {"generation": 3}, 0),
        (BatchRecord(generation=2, intent_of=2, older_unknown=True), {"try_number": 3}, 60),
        (BatchRecord(generation=1, posted_at=1.0, answered_at=980.0), {"try_number": 3}, 40),
        (BatchRecord(generation=1, posted_at=1.0, answered_at=980.0, intent_of=2), {"try_number": 3}, 40),
        (BatchRecord(generation=1, posted_at=1.0), {}, 60),
        (BatchRecord(generation=2, posted_at=1.0, answered_at=980.0), {}, 40),
        (BatchRecord(generation=2, posted_at=1.0, answered_at=900.0), {}, 0),
        (BatchRecord(generation=2, posted_at=1.0, answered_at=2000.0), {}, 60),
    ],
    ids=[
        "others may have their keys",
        "an older generation is resumed",
        "none was sent, but no record shows what older generations did",
        "an earlier try of this generation has written nothing",
        "an earlier try of this generation has sent none",
        "a process died over its starts, and the task was cleared",
        "the last answer is not long ago",
        "it is",
        "the clock was put back",
    ],
)
def test_delays_the_lookup_until_every_instance_would_show(
    record: BatchRecord | None, fields: dict[str, Any], seconds: float
) -> None:
    """Rows that only a batch has; ``test_decision_table`` has the others."""
    request = batch_request(**fields)
    assert choose_lookup(request, record) is LookupMethod.KEY
    assert lookup_delay(request, record, 1000.0) == seconds


@pytest.mark.parametrize(
    ("record", "oldest"),
    [
        (None, None),
        (BatchRecord(generation=2), None),
        (BatchRecord(generation=2, goes_on_from=1), 1),
        (BatchRecord(generation=1), None),
        (BatchRecord(generation=1, unfinished=True), 1),
        (BatchRecord(generation=1, unfinished=True, goes_on_from=-3), -3),
        (BatchRecord(generation=1, goes_on_from=-3), None),
    ],
)
def test_finds_the_oldest_generation_to_resume(record: BatchRecord | None, oldest: int | None) -> None:
    assert batch_request().goes_on_from(record) == oldest
    assert batch_request().oldest(record) == (2 if oldest is None else oldest)


class TestRecordThatAPersonWasAsked:
    """Only a clear resolves this record."""

    def test_without_a_record(self) -> None:
        assert batch_request().record_person_asked(None, BatchRecord) == BatchRecord(
            generation=2, older_unknown=True, told=True
        )

    @pytest.mark.parametrize("unfinished", [True, False])
    def test_after_a_clear(self, unfinished: bool) -> None:
        record = BatchRecord(generation=1, posted_at=1.0, own="abcd", unfinished=unfinished)
        told = batch_request().record_person_asked(record, BatchRecord)
        assert (told.generation, told.told, told.posted_at) == (2, True, 1.0)
        assert (told.own, told.goes_on_from) == (("abcd", 1) if unfinished else (None, None))
        assert batch_request().oldest(told) == (1 if unfinished else 2)

    def test_in_a_retry(self) -> None:
        record = BatchRecord(generation=2, posted_at=1.0, strangers=("7",), goes_on_from=1)
        assert batch_request().record_person_asked(record, BatchRecord) == BatchRecord(
            generation=2, posted_at=1.0, strangers=("7",), goes_on_from=1, told=True, intent_of=2
        )


class TestCustomKeys:
    """Others may use them too, so only an instance with a recorded id belongs to the batch."""

    ORDER = batch_request(own_keys={1: "mine"})

    def known(self, instance: BpmInstance, **fields: Any) -> BatchRecord:
        """Make the record of a try whose start of an instance was answered."""
        given = {"generation": 2, "posted_at": 1.0, "answered_at": 2.0, **fields}
        return BatchRecord(
            own_keys=self.ORDER.keys_signature(), own=self.ORDER.instance_signatures({1: instance}), **given
        )

    def decide(
        self, record: BatchRecord | None, *found: BpmInstance, asked_for: BatchRequest = ORDER
    ) -> tuple[BatchDecider, StartLaunch | AdoptInstance]:
        decider = BatchDecider(asked_for, record, matches_of(asked_for, found))
        return decider, decider.decide(KEYED)

    def test_a_retry_recognises_its_instance_by_its_id(self, make: Make) -> None:
        own, other = make("8", GOOD, business_key="mine"), make("9", GOOD, business_key="mine")
        decider, decision = self.decide(self.known(own), own, other)
        assert decision == adoption(own)
        assert decider.preexisting_ids == ("9",)

    def test_never_adopts_an_instance_that_others_started(self, make: Make) -> None:
        own, other = make("8", BAD, business_key="mine"), make("9", GOOD, business_key="mine")
        _, decision = self.decide(self.known(own), own, other)
        assert decision == StartLaunch(KEYED, "mine")

    @pytest.mark.parametrize(
        ("strangers", "found", "ends"),
        [
            ((), ["8"], "8"),
            (("7",), ["7", "8"], "8"),
            (("8",), ["8"], None),
            (("7", "8"), ["7", "8"], None),
            (("7",), ["8", "9"], "unknown"),
            (None, ["8"], "unknown"),
            (None, [], None),
        ],
    )
    def test_after_a_crash_adopts_the_only_new_instance(
        self, strangers: tuple[str, ...] | None, found: list[str], ends: str | None, make: Make
    ) -> None:
        record = BatchRecord(generation=2, posted_at=1.0, strangers=strangers)
        instances = [make(one, business_key="mine") for one in found]
        if ends == "unknown":
            with pytest.raises(AmbiguousStartError, match="others may use their key: instance '8'"):
                self.decide(record, *instances)
            return
        _, decision = self.decide(record, *instances)
        assert (decision.instance.id if isinstance(decision, AdoptInstance) else None) == ends

    @pytest.mark.parametrize("state", ["Running", GOOD, BAD])
    def test_after_a_refused_start_a_new_instance_has_no_certain_owner(self, state: str, make: Make) -> None:
        record = BatchRecord(generation=2, posted_at=1.0, answered_at=2.0, strangers=("7",), unproven=True)
        before, new = make("7", business_key="mine"), make("8", state, business_key="mine")
        with pytest.raises(AmbiguousStartError, match="others may use their key: instance '8'"):
            self.decide(record, before, new)
        assert self.decide(record, before)[1] == StartLaunch(KEYED, "mine")

    def test_ignores_instances_from_long_ago(self, make: Make) -> None:
        began = datetime(2026, 3, 1, tzinfo=timezone.utc).timestamp()
        old = [
            make(str(number), GOOD, business_key="mine", start_time="2026-01-01 10:00:00")
            for number in range(2 * MAX_PREEXISTING_IDS)
        ]
        first = batch_request(own_keys={1: "mine"}, generation=1, try_number=1, since=began)
        recent = make("recent", business_key="another")
        decider, decision = self.decide(None, recent, *old, asked_for=first)
        assert decision == StartLaunch(KEYED, "mine")
        assert decider.preexisting_ids == ()
        record = BatchRecord(generation=2, posted_at=began, strangers=())
        assert self.decide(record, recent, *old)[1] == StartLaunch(KEYED, "mine")

    def test_does_not_record_too_many_preexisting_ids(self, make: Make) -> None:
        found = [make(str(number), business_key="mine") for number in range(MAX_PREEXISTING_IDS + 1)]
        decider, decision = self.decide(
            None, *found, asked_for=batch_request(own_keys={1: "mine"}, try_number=1)
        )
        assert decision == StartLaunch(KEYED, "mine")
        assert decider.preexisting_ids is None

    @pytest.mark.parametrize("keeps_open", [False, True])
    def test_a_clear_supersedes_only_what_the_older_generation_started(
        self, keeps_open: bool, make: Make
    ) -> None:
        own, other = make("8", business_key="mine"), make("9", business_key="mine")
        asked_for = batch_request(own_keys={1: "mine"}, keeps_open=keeps_open)
        decider, decision = self.decide(self.known(own, generation=1), own, other, asked_for=asked_for)
        assert decision == (adoption(own, left=True) if keeps_open else StartLaunch(KEYED, "mine"))
        assert [one.id for one in decider.superseded()] == ([] if keeps_open else ["8"])

    def test_a_clear_after_a_failure_resumes_the_older_generation(self, make: Make) -> None:
        own, other = make("8", GOOD, business_key="mine"), make("9", business_key="mine")
        decider, decision = self.decide(self.known(own, generation=1, unfinished=True), own, other)
        assert decision == adoption(own, left=True)
        assert decider.superseded() == []

    def test_a_clear_after_a_person_was_asked_starts_the_launch(self, make: Make) -> None:
        record = BatchRecord(generation=1, posted_at=1.0, told=True, unfinished=True)
        assert self.decide(record, make("8", business_key="mine"))[1] == StartLaunch(KEYED, "mine")

    def test_a_retry_without_a_record_refuses(self, make: Make) -> None:
        lost = batch_request(own_keys={1: "mine"}, try_number=3)
        with pytest.raises(AmbiguousStartError, match="others may use their key: instance '8'"):
            self.decide(None, make("8", business_key="mine"), asked_for=lost)

    def test_raises_if_the_custom_keys_differ_in_a_retry(self, make: Make) -> None:
        record = self.known(make("8", business_key="mine"))
        for changed in ({1: "other"}, {2: "mine"}, {}):
            with pytest.raises(BatchChangedError, match="its launches have other business keys"):
                BatchDecider(batch_request(own_keys=changed), record, None)

    def test_raises_if_a_started_launch_gets_a_custom_key(self, make: Make) -> None:
        asked_for = batch_request(own_keys={1: "mine"})
        started = make("8", business_key=key_of(Launch(1, NAME)))
        with pytest.raises(BatchChangedError, match="launch 1"):
            BatchDecider(
                asked_for, BatchRecord(generation=2, posted_at=1.0), matches_of(asked_for, [started])
            ).decide(KEYED)

    def test_ignores_an_instance_of_another_bpm_with_its_key(self, make: Make) -> None:
        record = BatchRecord(generation=2, posted_at=1.0, strangers=())
        _, decision = self.decide(record, make("8", name="Other", business_key="mine"))
        assert decision == StartLaunch(KEYED, "mine")

    def test_nothing_is_known_of_the_preexisting_instances_if_lists_may_be_cut_off(self, make: Make) -> None:
        first = batch_request(own_keys={1: "mine"}, generation=1, try_number=1, since=BEGUN)
        for is_cut, known in ((False, ("8",)), (True, None)):
            matches = matches_of(first, [make("8", business_key="mine")])
            if is_cut:
                matches.truncated_lists["Running"] = [make("8", business_key="mine")], True
            decider = BatchDecider(first, None, matches)
            decider.decide(KEYED)
            assert decider.preexisting_ids == known

    def test_recognises_a_key_in_the_form_of_the_endpoint(self, make: Make) -> None:
        own, form = make("8", business_key="MINE"), KeyForm(case="upper")
        record = self.known(own)
        matches = self.ORDER.new_matches(form, lambda: NOW)
        matches.add_list([own])
        assert BatchDecider(self.ORDER, record, matches, form=form).decide(KEYED) == adoption(own)
        unknown_form = matches_of(self.ORDER, [own])
        assert unknown_form.instances == {}
        with pytest.raises(AmbiguousStartError, match="'MINE', which may be the sent key, changed"):
            BatchDecider(self.ORDER, record, unknown_form).decide(KEYED)

    def test_a_collector_keeps_what_the_batch_may_be_about(self) -> None:
        asked = batch_request(own_keys={1: "order-4711"})
        matches = asked.new_matches(None, lambda: NOW)
        for key in ("ORDER-4711", f"T01-{key_of(FIRST)[:40]}"):
            assert matches.resembles(key)
        for key in ("order-4712", "", TaskIdentity("dag", "run", "another").key(2)):
            assert not matches.resembles(key)

    def test_starts_if_no_try_of_this_generation_has_sent_a_start(self, make: Make) -> None:
        begun = BatchRecord(generation=2, intent_of=2)
        assert self.decide(begun, make("8", business_key="mine"))[1] == StartLaunch(KEYED, "mine")

    def test_refuses_if_the_start_time_of_the_only_new_instance_is_unclear(self, make: Make) -> None:
        record = BatchRecord(generation=2, posted_at=BEGUN, strangers=())
        odd = make("8", business_key="mine", start_time="1970-01-01 08:00:00")
        with pytest.raises(AmbiguousStartError) as refused:
            self.decide(record, odd)
        assert refused.value.problem == (
            "it is unknown whether an earlier try started one of these for launch 1, because others may use their key: "
            f"{describe_instances([odd])}"
        )
        assert refused.value.business_key == "mine"

    def test_each_launch_recognises_its_own_instance_only(self, make: Make) -> None:
        keys = {1: "mine", 3: "theirs"}
        several = batch_request(own_keys=keys)
        first, third = make("8", business_key="mine"), make("9", business_key="theirs")
        record = BatchRecord(
            generation=2, own=several.instance_signatures({1: first, 2: make("7"), 3: third})
        )
        assert len(record.own or "") == 3 * SIGNATURE_LENGTH
        for number in (1, 2, 3):
            for instance in (first, third):
                found = is_recorded_instance(record, number, keys.get(number, "mine"), instance)
                assert found is ((number, instance.id) in {(1, "8"), (3, "9")})
        assert not is_recorded_instance(BatchRecord(generation=2), 1, "mine", first)

    @pytest.mark.parametrize(
        ("own_keys", "signature"),
        [({1: "mine", 3: "theirs"}, "KdXrsQzdcQ6SfAeT"), ({1: "\ud800"}, "TVVn6LxIyQYyr_rY")],
        ids=["two", "half a surrogate pair"],
    )
    def test_the_signature_of_the_keys_is_the_one_in_records_of_older_versions(
        self, own_keys: dict[int, str], signature: str
    ) -> None:
        assert batch_request(own_keys=own_keys).keys_signature() == signature

    def test_without_custom_keys_nothing_is_recorded_of_them(self, make: Make) -> None:
        plain = batch_request()
        assert (plain.keys_signature(), plain.instance_signatures({1: make("8")})) == (None, None)

    def test_refuses_too_many_launches(self) -> None:
        assert batch_request(own_keys={MAX_LAUNCHES_WITH_CUSTOM_KEYS: "k"}).searches_always
        with pytest.raises(ValueError, match=f"may have at most {MAX_LAUNCHES_WITH_CUSTOM_KEYS} launches"):
            batch_request(own_keys={MAX_LAUNCHES_WITH_CUSTOM_KEYS + 1: "k"})


def test_a_record_always_fits_into_airflow(make: Make) -> None:
    many = batch_request(
        own_keys={number: f"key-{number}" for number in range(1, MAX_LAUNCHES_WITH_CUSTOM_KEYS + 1)}
    )
    instances = {number: make(f"002N{number:016}") for number in range(1, MAX_LAUNCHES_WITH_CUSTOM_KEYS + 1)}
    record = BatchRecord(
        generation=1,
        own_keys=many.keys_signature(),
        own=many.instance_signatures(instances),
        strangers=tuple(f"{one.id}" for one in list(instances.values())[:MAX_PREEXISTING_IDS]),
        goes_on_from=1,
    ).failed(unfinished=True, met=range(1, 10**6))
    assert record.met is None
    assert len(json.dumps(msgspec.to_builtins(record))) < 65_000
    record = BatchRecord(generation=1).failed(unfinished=True, met=range(1, 2 * MAX_SATISFIED_LAUNCHES, 2))
    assert record.met is None
    record = BatchRecord(generation=1).failed(unfinished=True, met=range(1, MAX_SATISFIED_LAUNCHES, 2))
    assert record.satisfied_launches() == set(range(1, MAX_SATISFIED_LAUNCHES, 2))
    assert msgspec.convert(msgspec.to_builtins(record), BatchRecord) == record
    assert BatchRecord(generation=1).failed(unfinished=True, met=[MAX_SATISFIED_LAUNCHES]).met is None
    assert len(json.dumps(msgspec.to_builtins(record))) < 65_000


def test_the_launches_that_have_met_the_condition_are_kept_from_try_to_try() -> None:
    first = BatchRecord(generation=1, unfinished=True).failed(unfinished=False, met=[1, 5])
    assert first.satisfied_launches() == {1, 5}
    assert not first.unfinished
    second = first.failed(unfinished=True, met=[2])
    assert second.satisfied_launches() == {1, 2, 5}
    assert second.unfinished
    assert second.failed(unfinished=True).satisfied_launches() == {1, 2, 5}
    assert BatchRecord(generation=1).failed(unfinished=True).met is None


@given(
    histories=st.lists(st.lists(st.sampled_from([OPEN, GOOD, BAD]), max_size=3), min_size=1, max_size=30),
    noise=st.lists(st.sampled_from(["", "other", TaskIdentity("dag", "run", "another").key(2)]), max_size=5),
)
def test_never_starts_a_second_open_instance_of_a_launch(
    histories: list[list[str]], noise: list[str]
) -> None:
    """No launch with an open or succeeded instance is started again, and no launch is forgotten."""
    launches = [Launch(n, NAME, variables={"n": n}) for n in range(1, len(histories) + 1)]
    instances = [
        BpmInstance(
            id=f"{launch.number}.{n}",
            name=NAME,
            state=state,
            is_closed=state != OPEN,
            business_key=key,
            start_time=LATELY,
        )
        for launch, states in zip(launches, histories, strict=True)
        for n, state in enumerate(states, 1)
        for key in [key_of(launch, again=n)]
    ]
    instances += [
        BpmInstance(id=f"x{n}", name=NAME, state=OPEN, business_key=key) for n, key in enumerate(noise)
    ]
    asked = batch_request()
    decider = BatchDecider(asked, BatchRecord(generation=2, posted_at=1.0), matches_of(asked, instances))
    for launch, states in zip(launches, histories, strict=True):
        if states.count(OPEN) > 1:
            with pytest.raises(AmbiguousStartError):
                decider.decide(launch)
        elif OPEN in states or GOOD in states:
            decision = decider.decide(launch)
            assert isinstance(decision, AdoptInstance)
            assert decision.instance.business_key is not None
            assert TASK.read_batch(decision.instance.business_key) is not None
            assert decision.instance.state == (OPEN if OPEN in states else GOOD)
        else:
            decision = decider.decide(launch)
            assert decision == StartLaunch(launch, key_of(launch, again=len(states) + 1))
    decider.check_none_missing()
    assert decider.superseded() == []
