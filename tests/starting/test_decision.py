"""Tests of the decision to adopt, start or refuse, row by row."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_astrobpm.client import operations, states
from airflow_provider_astrobpm.client.errors import AmbiguousStartError, OpenInstanceExistsError
from airflow_provider_astrobpm.client.instance import BpmInstance
from airflow_provider_astrobpm.client.key_form import KeyForm
from airflow_provider_astrobpm.client.key_search import KeyMatches
from airflow_provider_astrobpm.client.sameness import KnownIdentity
from airflow_provider_astrobpm.client.wire import Rows, UnreadableRow
from airflow_provider_astrobpm.starting import decision, try_request
from airflow_provider_astrobpm.starting.business_keys import TaskIdentity
from airflow_provider_astrobpm.starting.decision import StartRecord, StartRequest
from airflow_provider_astrobpm.starting.decision_table import (
    AdoptInstance,
    ExistingInstances,
    RefuseStart,
    StartInstance,
)
from airflow_provider_astrobpm.starting.try_request import LookupMethod

TASK = TaskIdentity("dag", "run", "task")
KEY, AGAIN, OLD = TASK.key(3), TASK.key(3, 2), TASK.key(1)
AT = 1767916800.0  # 2026-01-09 00:00:00 UTC
SENT = StartRecord(generation=3, posted_at=AT)
KNOWN = StartRecord(generation=3, posted_at=AT, instance_id="own")
NOTHING = StartRecord(generation=3)
OLD_SENT = StartRecord(generation=1, posted_at=AT)
OLD_BEGUN = StartRecord(generation=1, posted_at=AT, instance_id="old", intent_of=3)
BEGUN = StartRecord(generation=3, intent_of=3)
BEGUN_LATE = StartRecord(generation=3, intent_of=3, older_unknown=True)
OLD_KNOWN = StartRecord(generation=1, posted_at=AT, instance_id="old")


def start_request(**fields: Any) -> StartRequest:
    """Return the request of the second try of the third generation."""
    fields.setdefault("try_number", 4)
    fields.setdefault("generation", 3)
    return StartRequest(
        start=lambda key: operations.start("Approval", business_key=key),
        bpm_name="Approval",
        identity=TASK,
        accepts=lambda one: one.state == states.COMPLETED,
        **fields,
    )


def instance(
    key: str | None = KEY,
    state: str = "Running",
    instance_id: str = "own",
    name: str = "Approval",
    start_time: str | None = "2026-01-09 00:00:05",
) -> BpmInstance:
    return BpmInstance(
        id=instance_id,
        name=name,
        state=state,
        business_key=key,
        is_closed=states.is_terminal(state),
        start_time=start_time,
    )


def matches_of(asked: StartRequest, *instances: BpmInstance, form: KeyForm | None = None) -> KeyMatches:
    matches = asked.new_matches(form, lambda: AT + 60)
    matches.add_list(instances)
    return matches


OPEN, GOOD, BAD = instance(), instance(state="Completed OK"), instance(state="Broken")
LEFT = instance(OLD, instance_id="old")
DOUBT = "the lists show no business keys here"


class TestLookup:
    """Rows that only one start has; ``test_decision_table`` has the others."""

    @pytest.mark.parametrize(
        ("record", "fields", "way"),
        [
            (KNOWN, {}, LookupMethod.ID),
            (OLD_KNOWN, {"try_number": 3}, LookupMethod.ID),
            (OLD_KNOWN, {}, LookupMethod.ID),
            (OLD_BEGUN, {}, LookupMethod.ID),
        ],
    )
    def test_with_the_key_of_the_task(self, record: Any, fields: dict[str, Any], way: LookupMethod) -> None:
        assert try_request.choose_lookup(start_request(**fields), record) is way

    @pytest.mark.parametrize(
        ("record", "fields", "way"),
        [
            (None, {"try_number": 1, "generation": 1}, LookupMethod.NONE),
            (None, {}, LookupMethod.KEY),
            (BEGUN, {}, LookupMethod.NONE),
            (BEGUN_LATE, {}, LookupMethod.NONE),
            (None, {"try_number": 3}, LookupMethod.NONE),
            (SENT, {}, LookupMethod.KEY),
            (KNOWN, {}, LookupMethod.ID),
            (OLD_SENT, {"try_number": 3}, LookupMethod.NONE),
            (OLD_KNOWN, {"try_number": 3}, LookupMethod.ID),
            (None, {"try_number": 1, "generation": 1, "if_open_instance_exists": "adopt"}, LookupMethod.KEY),
            (None, {"try_number": 1, "generation": 1, "if_open_instance_exists": "fail"}, LookupMethod.KEY),
            (KNOWN, {"if_open_instance_exists": "fail"}, LookupMethod.KEY),
            (OLD_KNOWN, {"if_open_instance_exists": "adopt"}, LookupMethod.KEY),
        ],
    )
    def test_with_a_custom_key(self, record: Any, fields: dict[str, Any], way: LookupMethod) -> None:
        assert try_request.choose_lookup(start_request(business_key="k", **fields), record) is way

    @pytest.mark.parametrize(
        ("record", "fields", "seconds"),
        [
            (StartRecord(generation=3, posted_at=10.0), {}, 60),
            (KNOWN, {"business_key": "k", "if_open_instance_exists": "adopt"}, 50),
            (OLD_KNOWN, {}, 0),
        ],
    )
    def test_delays_the_lookup_until_an_instance_would_show(
        self, record: Any, fields: dict[str, Any], seconds: float
    ) -> None:
        assert try_request.lookup_delay(start_request(**fields), record, now=AT + 10) == seconds


class TestDecide:
    @pytest.mark.parametrize("record", [None, SENT, NOTHING])
    @pytest.mark.parametrize(
        ("found", "decided"),
        [
            (ExistingInstances(), StartInstance(KEY)),
            (ExistingInstances((OPEN,)), OPEN),
            (ExistingInstances((OPEN,), doubt=DOUBT), OPEN),
            (ExistingInstances((GOOD,)), GOOD),
            (ExistingInstances((BAD, instance(AGAIN, instance_id="2"))), instance(AGAIN, instance_id="2")),
            (
                ExistingInstances((BAD, instance(AGAIN, "Completed OK", "2"))),
                instance(AGAIN, "Completed OK", "2"),
            ),
            (ExistingInstances((BAD,)), StartInstance(AGAIN, 2)),
            (ExistingInstances((BAD, instance(AGAIN, "Broken", "2"))), StartInstance(TASK.key(3, 3), 3)),
            (ExistingInstances((OPEN, instance(AGAIN, instance_id="2"))), "several instances may be"),
            (ExistingInstances((instance(name="Other"),)), "is not an instance of 'Approval'"),
            (ExistingInstances(older=(LEFT,)), StartInstance(KEY, terminate=(LEFT,))),
            (ExistingInstances((BAD,), (LEFT,)), StartInstance(AGAIN, 2, (LEFT,))),
            (ExistingInstances(doubt=DOUBT), DOUBT),
            (ExistingInstances((BAD,), doubt=DOUBT), DOUBT),
        ],
    )
    def test_with_the_key_of_the_task(self, record: Any, found: ExistingInstances, decided: Any) -> None:
        made = decision.decide(start_request(), record, found)
        if isinstance(decided, str):
            assert isinstance(made, RefuseStart)
            assert isinstance(made.error, AmbiguousStartError)
            assert decided in str(made.error)
        elif isinstance(decided, StartInstance):
            assert made == decided
        else:
            assert isinstance(made, AdoptInstance)
            assert made.instance == decided

    @pytest.mark.parametrize(
        ("record", "fields", "adopts"),
        [
            (OLD_KNOWN, {}, False),
            (StartRecord(generation=1, instance_id="old", left_open=True), {}, True),
            (None, {}, False),
            (None, {"keeps_open": True}, True),
            (StartRecord(generation=3, instance_id="own", left_open=True), {}, False),
        ],
    )
    def test_after_a_clear_adopts_what_was_left_open_and_terminates_the_rest(
        self, record: Any, fields: dict[str, Any], adopts: bool
    ) -> None:
        made = decision.decide(
            start_request(try_number=3, **fields), record, ExistingInstances(older=(LEFT,))
        )
        assert isinstance(made, AdoptInstance) if adopts else made == StartInstance(KEY, terminate=(LEFT,))

    def test_ignores_a_called_bpm_with_its_key_beside_its_own_instance(self) -> None:
        called = instance(KEY, instance_id="called", name="Called")
        assert decision.classify(
            start_request(), SENT, matches_of(start_request(), OPEN, called)
        ) == ExistingInstances((OPEN,))
        found = decision.classify(start_request(), SENT, matches_of(start_request(), called))
        assert isinstance(found, ExistingInstances)
        assert "which is not an instance of 'Approval'" in str(found.doubt)

    def test_terminates_an_open_instance_of_another_bpm(self) -> None:
        other = instance(OLD, instance_id="old", name="Other")
        made = decision.decide(start_request(keeps_open=True), None, ExistingInstances(older=(other,)))
        assert made == StartInstance(KEY, terminate=(other,))

    @pytest.mark.parametrize(("matches", "made"), [(1000, StartInstance), (1001, RefuseStart)])
    def test_refuses_if_too_many_instances_have_the_custom_key(
        self, matches: int, made: type[StartInstance | RefuseStart]
    ) -> None:
        asked = start_request(business_key="k", if_open_instance_exists="adopt", try_number=1, generation=1)
        found = ExistingInstances(match_ids=tuple(map(str, range(matches))))
        decided = decision.decide(asked, None, found)
        assert isinstance(decided, made)
        if isinstance(decided, RefuseStart):
            assert isinstance(decided.error, AmbiguousStartError)
            assert decided.error.problem.startswith(
                "1001 instances have its business key, too many to recognise"
            )
            assert (decided.error.business_key, decided.asks_person) == ("k", False)
            assert "Choose a business_key that fewer instances have" in decided.error.advice

    @pytest.mark.parametrize(
        ("record", "found", "made"),
        [
            (StartRecord(generation=3, launch=2, posted_at=AT), (), StartInstance(AGAIN, 2)),
            (StartRecord(generation=3, launch=2, posted_at=AT), (BAD,), StartInstance(TASK.key(3, 3), 3)),
            (StartRecord(generation=3, launch=0, posted_at=AT), (), StartInstance(KEY)),
            (StartRecord(generation=1, launch=2, posted_at=AT), (), StartInstance(KEY)),
        ],
    )
    def test_a_start_without_an_instance_keeps_its_number(
        self, record: StartRecord, found: tuple[BpmInstance, ...], made: StartInstance
    ) -> None:
        """It may still take effect late, and the same key then shows whose it is."""
        assert decision.decide(start_request(), record, ExistingInstances(found)) == made

    def test_a_refusal_names_the_key_of_the_next_start(self) -> None:
        record = StartRecord(generation=3, launch=2, posted_at=AT)
        refused = decision.decide(start_request(), record, ExistingInstances(doubt=DOUBT))
        assert isinstance(refused, RefuseStart)
        assert isinstance(refused.error, AmbiguousStartError)
        assert refused.error.business_key == AGAIN
        assert start_request().key() == KEY

    @pytest.mark.parametrize(
        ("record", "written"),
        [
            (None, StartRecord(generation=3, older_unknown=True, told=True)),
            (SENT, StartRecord(generation=3, intent_of=3, posted_at=AT, told=True)),
            (
                StartRecord(
                    generation=1, launch=2, posted_at=1.0, instance_id="old", left_open=True, deadline=5.0
                ),
                StartRecord(
                    generation=3,
                    intent_of=3,
                    launch=0,
                    posted_at=1.0,
                    instance_id="old",
                    left_open=True,
                    told=True,
                ),
            ),
        ],
    )
    def test_records_for_this_generation_that_a_person_was_asked(
        self, record: StartRecord | None, written: StartRecord
    ) -> None:
        assert start_request().record_person_asked(record, StartRecord) == written

    def test_starts_when_a_person_clears_after_being_asked(self) -> None:
        was_asked = StartRecord(generation=1, posted_at=AT, told=True)
        made = decision.decide(start_request(try_number=3), was_asked, ExistingInstances(doubt=DOUBT))
        assert isinstance(made, StartInstance)
        assert made.warning is not None
        still_own = StartRecord(generation=3, posted_at=AT, told=True)
        assert isinstance(
            decision.decide(start_request(), still_own, ExistingInstances(doubt=DOUBT)), RefuseStart
        )

    @pytest.mark.parametrize(
        ("mode", "others", "made"),
        [
            ("adopt", (instance("k"),), AdoptInstance),
            ("adopt", (instance("k"), instance("k", instance_id="2")), RefuseStart),
            ("adopt", (), StartInstance),
            ("fail", (instance("k"),), RefuseStart),
            ("fail", (), StartInstance),
        ],
    )
    def test_with_a_custom_key(self, mode: Any, others: Any, made: type) -> None:
        asked = start_request(business_key="k", if_open_instance_exists=mode)
        decided = decision.decide(asked, None, ExistingInstances(others=others, match_ids=("own",)))
        assert type(decided) is made
        if isinstance(decided, RefuseStart) and mode == "fail":
            assert isinstance(decided.error, OpenInstanceExistsError)
            assert not decided.asks_person
        if isinstance(decided, StartInstance):
            assert (decided.key, decided.preexisting_ids) == ("k", ("own",))


class TestClassify:
    def sort_out(
        self, record: StartRecord | None, *instances: BpmInstance, **fields: Any
    ) -> ExistingInstances | RefuseStart:
        asked = start_request(**fields)
        return decision.classify(asked, record, matches_of(asked, *instances))

    def test_recognises_instances_by_the_key_of_the_task(self) -> None:
        closed = instance(TASK.key(2), "Broken", "closed")
        others = [instance("k", instance_id="k"), instance(None, instance_id="none")]
        found = self.sort_out(SENT, OPEN, LEFT, closed, *others)
        assert found == ExistingInstances((OPEN,), (LEFT,))

    @pytest.mark.parametrize("state", ["Running", "Completed OK", "Broken"])
    def test_refuses_if_only_the_custom_key_matches(self, state: str) -> None:
        found = self.sort_out(SENT, instance("k", state), business_key="k")
        assert isinstance(found, RefuseStart)
        assert isinstance(found.error, AmbiguousStartError)
        assert found.error.business_key == "k"
        assert "if_open_instance_exists" in found.error.advice

    def test_with_a_custom_key_an_instance_from_before_the_start_is_not_its_own(self) -> None:
        old = instance("k", start_time="2026-01-01 00:00:00")
        recent = instance("x", instance_id="recent")
        assert self.sort_out(SENT, old, recent, business_key="k") == ExistingInstances()
        assert isinstance(self.sort_out(None, old, recent, business_key="k"), RefuseStart)

    def test_before_this_generation_has_sent_a_start_nothing_is_its_own(self) -> None:
        """Whatever carries its keys was started by a deleted run."""
        for record, own in ((NOTHING, ()), (BEGUN, ()), (SENT, (OPEN,)), (None, (OPEN,))):
            found = self.sort_out(record, OPEN)
            assert isinstance(found, ExistingInstances)
            assert found.own == own

    def test_a_called_bpm_of_an_older_generation_leaves_no_doubt(self) -> None:
        assert self.sort_out(SENT, instance(OLD, name="Called")) == ExistingInstances()

    def test_ignores_an_instance_of_a_deleted_run(self) -> None:
        old = instance(state="Completed OK", instance_id="old", start_time="2026-01-08 09:59:59")
        own = instance(start_time="2026-01-08 10:02:00")
        assert self.sort_out(SENT, old, own) == ExistingInstances((own,)), "no time zone is 14 hours off"
        recent = instance("k", instance_id="recent")
        assert self.sort_out(SENT, old, recent) == ExistingInstances(), (
            "the recent instance proves that the server's clock is right"
        )
        assert self.sort_out(None, old) == ExistingInstances((old,)), "no record shows when a start was sent"

    @pytest.mark.parametrize("state", ["Running", "Completed OK"])
    @pytest.mark.parametrize(
        "start_time",
        [
            None,
            "-",
            "0001-01-01 00:00:00",
            "1970-01-01 08:00:00",
            "1767916805000",
            " 2026-01-09 00:00:05",
            "2026/01/09 00:00:05",
            "2026-01-09T00:00:05",
            "2026-13-09 00:00:05",
            "9999-12-31 23:59:59",
        ],
    )
    def test_refuses_if_the_start_time_is_unusable(self, start_time: str | None, state: str) -> None:
        recent = instance("k", instance_id="recent")
        found = self.sort_out(SENT, instance(state=state, start_time=start_time), recent)
        assert isinstance(found, ExistingInstances)
        decided = decision.decide(start_request(), SENT, found)
        assert isinstance(decided, RefuseStart)
        assert "does not show" in str(decided.error)

    def test_refuses_if_the_clock_of_the_server_is_off(self) -> None:
        """By the server's clock, no listed instance was started recently."""
        off = instance(start_time="2026-01-08 09:00:05")
        other = instance("k", instance_id="other", start_time="2026-01-08 08:00:00")
        found = self.sort_out(SENT, off, other)
        assert isinstance(found, ExistingInstances)
        assert found.unclear == (off,)

    @pytest.mark.parametrize("shown", [KEY.upper(), f"{KEY}   ", f"ASTRO:{KEY}"])
    def test_recognises_a_key_changed_by_the_server(self, shown: str) -> None:
        assert self.sort_out(SENT, instance(shown)) == ExistingInstances((instance(shown),))

    @pytest.mark.parametrize("shown", [KEY[:20], KEY[:-3].upper(), f"ASTRO:{KEY[:24]}"])
    def test_a_key_cut_off_by_the_server_is_in_doubt(self, shown: str) -> None:
        found = self.sort_out(SENT, instance(shown))
        assert isinstance(found, ExistingInstances)
        assert found.own == ()
        assert "changed by the server" in str(found.doubt)

    def test_a_cut_key_from_long_before_is_not_in_doubt(self) -> None:
        old = instance(KEY[:20], start_time="2026-01-05 00:00:00")
        found = self.sort_out(SENT, old, instance("k", instance_id="recent"))
        assert found == ExistingInstances()

    def test_with_changed_retries_an_open_instance_of_any_generation_counts(self) -> None:
        fields = {"generation": 4, "try_number": 4, "generation_is_certain": False}
        other = instance(TASK.key(1), instance_id="other")
        assert self.sort_out(None, other, **fields) == ExistingInstances((other,))
        ended = instance(TASK.key(1), "Completed OK", "ended")
        found = self.sort_out(None, ended, **fields)
        assert isinstance(found, ExistingInstances)
        assert (found.own, found.older) == ((), ())
        assert f"'retries' was changed, so it is unclear whether {ended} was started" in str(found.doubt)
        failed = instance(TASK.key(1), "Broken", "failed")
        assert self.sort_out(None, failed, **fields) == ExistingInstances()

    def test_preexisting_instances_are_not_its_own(self) -> None:
        record = StartRecord(generation=3, posted_at=AT, strangers=("before",))
        before, mine = instance("k", instance_id="before"), instance("k", "Completed OK", "mine")
        found = self.sort_out(record, before, mine, business_key="k", if_open_instance_exists="adopt")
        assert found == ExistingInstances((mine,), others=(before,), match_ids=("before", "mine"))

    def test_ignores_an_instance_of_another_bpm(self) -> None:
        found = self.sort_out(SENT, instance("k", name="Other"), business_key="k")
        assert found == ExistingInstances()

    @pytest.mark.parametrize("fields", [{}, {"business_key": "k"}])
    def test_lists_without_keys_leave_doubt(self, fields: dict[str, Any]) -> None:
        hidden = instance("x", instance_id="x")
        found = self.sort_out(SENT, hidden, **fields)
        assert isinstance(found, ExistingInstances)
        assert found.doubt == DOUBT
        shown = self.sort_out(SENT, hidden, instance("any", instance_id="y", name="Other"), **fields)
        assert isinstance(shown, ExistingInstances)
        assert shown.doubt is None


class TestIsEnough:
    """A search stops as soon as nothing it may have missed could change the decision."""

    @pytest.mark.parametrize(
        ("record", "found", "is_enough"),
        [
            (SENT, [OPEN], True),
            (SENT, [GOOD], False),
            (SENT, [BAD], False),
            (SENT, [LEFT], False),
            (SENT, [instance(name="Called")], False),
            (SENT, [instance(start_time="1970-01-01 08:00:00", state="Completed OK")], True),
            (NOTHING, [LEFT], True),
            (NOTHING, [instance(OLD, "Completed OK")], False),
            (NOTHING, [instance(OLD, name="Called")], False),
            (NOTHING, [], False),
        ],
    )
    def test_with_the_key_of_the_task(
        self, record: StartRecord, found: list[BpmInstance], is_enough: bool
    ) -> None:
        asked = start_request()
        assert decision.is_enough(asked, record, matches_of(asked, *found)) is is_enough

    @pytest.mark.parametrize(
        ("mode", "state", "is_enough"),
        [
            ("start", "Broken", True),  # anything refuses
            ("adopt", "Running", True),
            ("adopt", "Broken", False),
        ],
    )
    def test_with_a_custom_key(self, mode: Any, state: str, is_enough: bool) -> None:
        asked = start_request(business_key="k", if_open_instance_exists=mode)
        record = StartRecord(generation=3, posted_at=AT, strangers=())
        found = matches_of(asked, instance("k", state))
        assert decision.is_enough(asked, record, found) is is_enough


class TestCustomKey:
    """Others may use the key of the author, so only a record says which instance is the task's own."""

    def sort_out(self, record: StartRecord | None, *instances: BpmInstance, mode: Any = "adopt") -> Any:
        asked = start_request(business_key="k", if_open_instance_exists=mode)
        return decision.classify(asked, record, matches_of(asked, *instances))

    @pytest.mark.parametrize("mode", ["adopt", "fail"])
    @pytest.mark.parametrize("state", ["Running", "Completed OK", "Broken"])
    def test_the_recorded_instance_is_its_own(self, state: str, mode: Any) -> None:
        own, other = instance("k", state), instance("k", instance_id="other")
        for record in (
            KNOWN,
            StartRecord(generation=3, posted_at=AT, instance_id="own", strangers=("own", "other")),
        ):
            assert self.sort_out(record, own, other, mode=mode) == ExistingInstances(
                (own,), others=(other,), match_ids=("own", "other")
            )

    def test_refuses_if_the_recorded_instance_is_gone(self) -> None:
        found = self.sort_out(KNOWN, instance("k", instance_id="other"))
        assert isinstance(found, RefuseStart)
        assert isinstance(found.error, AmbiguousStartError)
        assert found.error.problem == (
            "an earlier try started instance 'own', which is now in none of the states"
        )
        assert (found.error.business_key, found.asks_person) == ("k", True)
        assert "terminate it if it is still open; then clear this task" in str(found.error.advice)

    def test_the_recorded_instance_may_show_its_key_in_another_form(self) -> None:
        """It is not adopted by that, but it is not gone either."""
        asked = start_request(business_key="custom-key-of-mine", if_open_instance_exists="adopt")
        changed = instance("CUSTOM-KEY-OF-MINE")
        found = decision.classify(asked, KNOWN, matches_of(asked, changed))
        assert isinstance(found, ExistingInstances)
        assert (found.own, found.match_ids) == ((), ("own",))
        assert "changed by the server" in str(found.doubt)
        known_form = matches_of(asked, changed, form=KeyForm(case="upper"))
        assert decision.classify(asked, KNOWN, known_form) == ExistingInstances(
            (changed,), match_ids=("own",)
        )

    def test_without_the_ids_of_others_only_the_recorded_instance_is_its_own(self) -> None:
        one = instance("k")
        assert self.sort_out(SENT, one) == ExistingInstances(others=(one,), match_ids=("own",))
        assert self.sort_out(None, one) == ExistingInstances(others=(one,), match_ids=("own",))

    def test_an_instance_from_before_the_start_is_not_its_own(self) -> None:
        record = StartRecord(generation=3, posted_at=AT, strangers=())
        old = instance("k", instance_id="old", start_time="2026-01-01 00:00:00")
        recent = instance("k")
        assert self.sort_out(record, old, recent) == ExistingInstances(
            (recent,), others=(old,), match_ids=("old", "own")
        )

    @pytest.mark.parametrize("unproven", [False, True])
    @pytest.mark.parametrize("state", ["Running", "Completed OK"])
    def test_what_others_start_after_the_recorded_instance_is_not_its_own(
        self, state: str, unproven: bool
    ) -> None:
        record = StartRecord(generation=3, posted_at=AT, instance_id="own", strangers=(), unproven=unproven)
        own, later = instance("k", state), instance("k", "Completed OK", "later")
        assert self.sort_out(record, own, later) == ExistingInstances((own,), match_ids=("own", "later"))

    @pytest.mark.parametrize("mode", ["adopt", "fail"])
    @pytest.mark.parametrize("state", ["Running", "Completed OK", "Broken"])
    def test_after_a_start_that_was_never_sent_no_instance_is_its_own(self, state: str, mode: Any) -> None:
        record = StartRecord(generation=3, strangers=())
        foreign = instance("k", state)
        others = () if foreign.is_closed else (foreign,)
        found = self.sort_out(record, foreign, mode=mode)
        assert found == ExistingInstances(others=others, match_ids=("own",))

    @pytest.mark.parametrize("mode", ["adopt", "fail"])
    def test_after_a_refused_start_an_instance_has_no_certain_owner(self, mode: Any) -> None:
        record = StartRecord(generation=3, posted_at=AT, strangers=("before",), unproven=True)
        before = instance("k", "Completed OK", "before")
        running, ended, failed = (
            instance("k", state, state) for state in ("Running", "Completed OK", "Broken")
        )
        ids = ("before", "Running", "Broken")
        assert self.sort_out(record, before, running, failed, mode=mode) == ExistingInstances(
            others=(running,), match_ids=ids
        )
        refused = self.sort_out(record, before, running, ended, mode=mode)
        assert isinstance(refused, RefuseStart)
        assert isinstance(refused.error, AmbiguousStartError)
        assert refused.asks_person
        assert (refused.error.business_key, refused.error.advice) == ("k", decision.OWNER_ADVICE)
        assert "Completed OK" in refused.error.problem
        assert "before" not in refused.error.problem

    @pytest.mark.parametrize(
        ("state", "older", "others"), [("Running", ("old",), ("other",)), ("Broken", (), ("other",))]
    )
    def test_after_a_clear_the_recorded_instance_is_an_older_one(
        self, state: str, older: tuple[str, ...], others: tuple[str, ...]
    ) -> None:
        found = self.sort_out(OLD_KNOWN, instance("k", state, "old"), instance("k", instance_id="other"))
        assert isinstance(found, ExistingInstances)
        assert tuple(one.id for one in found.own) == ()
        assert tuple(one.id for one in found.older) == older
        assert tuple(one.id for one in found.others) == others

    def test_an_open_instance_with_a_changed_key_is_in_doubt_however_old(self) -> None:
        asked = start_request(business_key="custom-key-of-mine", if_open_instance_exists="adopt", since=AT)
        old = instance("CUSTOM-KEY-OF-MINE", start_time="2026-01-01 00:00:00")
        recent = instance("x", instance_id="recent")
        found = decision.classify(asked, None, matches_of(asked, old, recent))
        assert isinstance(found, ExistingInstances)
        assert "changed by the server" in str(found.doubt)
        ended = matches_of(
            asked, instance("CUSTOM-KEY-OF-MINE", "Broken", start_time="2026-01-01 00:00:00"), recent
        )
        assert decision.classify(asked, None, ended) == ExistingInstances(match_ids=("own",))

    def test_a_new_start_is_not_numbered(self) -> None:
        asked = start_request(business_key="k", if_open_instance_exists="fail")
        found = ExistingInstances((instance("k", "Broken"),), match_ids=("own",))
        made = decision.decide(asked, KNOWN, found)
        assert made == StartInstance("k", launch=2, preexisting_ids=("own",))


class TestKnownIdentity:
    """Whether an instance that is found by its id is the recorded one."""

    @pytest.mark.parametrize(
        ("fields", "record", "key"),
        [
            ({}, KNOWN, KEY),
            ({}, StartRecord(generation=3, launch=2, instance_id="own"), AGAIN),
            ({}, OLD_KNOWN, OLD),
            ({"business_key": "k"}, KNOWN, None),
            ({}, StartRecord(generation=3, key_example=(KEY, "shown")), "shown"),
            ({}, StartRecord(generation=3, key_example=("Other", "OTHER")), KEY.upper()),
            ({}, StartRecord(generation=3, key_example=("Other", "unlike")), None),
        ],
    )
    def test_its_business_key(self, fields: dict[str, Any], record: StartRecord, key: str | None) -> None:
        assert start_request(**fields).known(record) == KnownIdentity(business_key=key)

    @pytest.mark.parametrize(
        ("shown", "is_it"),
        [
            (KEY, True),
            (None, True),  # nothing contradicts it
            (OLD, True),  # it was adopted from an older generation
            (KEY.upper(), True),
            (OLD[:20], True),
            (TaskIdentity("dag", "run", "other").key(3), False),
            ("unlike", False),
        ],
    )
    def test_by_its_key(self, shown: str | None, is_it: bool) -> None:
        assert start_request().matches_record(KNOWN, instance(shown)) is is_it

    def test_an_unlike_instance_is_refused(self) -> None:
        strange, known = instance("unlike"), start_request().known(KNOWN)
        error = decision.replaced_instance_error(strange, known, KEY)
        assert error.problem == (
            f"an earlier try started an instance with business key {KEY!r}, but its id now shows a different one: "
            f"{strange}, with business key 'unlike'"
        )
        assert error.business_key == KEY
        assert "that instance was left as it is" in str(error.advice)


def test_a_collector_keeps_what_a_request_may_be_about() -> None:
    own, called, upper = instance(), instance(name="Called"), instance("K-OF-MINE-1")
    plain, custom = start_request(), start_request(business_key="k-of-mine-1")
    assert [plain.new_matches(None, lambda: AT).wanted(one) for one in (own, called, upper)] == [
        True,
        True,
        False,
    ]
    for form, wanted in ((None, False), (KeyForm(case="upper"), True)):
        matches = custom.new_matches(form, lambda: AT)
        assert matches.wanted(upper) is wanted
        assert matches.wanted(instance("k-of-mine-1"))
        assert not matches.wanted(instance("k-of-mine-1", name="Called"))
        assert matches.resembles("K-OF-MINE-1")
        assert not matches.resembles("other")
        assert matches.clock() == AT


OWN_KEY = start_request().key()


@pytest.mark.parametrize(
    ("row", "in_doubt"),
    [
        ({"name": "Approval", "business_key": "someone else's"}, False),
        ({"name": "Approval"}, False),  # a row without a key, like that of an instance without one
        ({"name": "Approval", "business_key": OWN_KEY}, True),
        ({"business_key": OWN_KEY, "unread": {"name"}}, True),
        ({"business_key": "someone else's", "unread": {"name"}}, False),
        ({"name": "Approval", "unread": {"businessKey"}}, True),
        ({"name": "B", "unread": {"businessKey"}}, False),
        ({"unread": {"id", "name", "businessKey"}}, True),
    ],
)
def test_an_unreadable_row_leaves_doubt_if_it_may_be_its_own(row: dict[str, Any], in_doubt: bool) -> None:
    odd = UnreadableRow(**{"reason": "its state is null", "unread": frozenset({"state"}), **row})
    matches = matches_of(start_request())
    matches.add_list(Rows([instance("k", instance_id="known")], [odd]))
    doubt = matches.doubt("Approval", None)
    assert (doubt is not None) is in_doubt
    assert not in_doubt or "its state is null" in str(doubt)


def test_an_unreadable_row_of_a_known_instance_leaves_no_doubt() -> None:
    odd = UnreadableRow(reason="", unread=frozenset({"state", "businessKey"}), id="0", name="A")
    matches = KeyMatches(lambda one: one.business_key == "k")
    matches.add_list(Rows([], [odd]))
    assert matches.doubt("A", None)
    matches.add_list([instance("k", instance_id="0", name="A")])
    assert matches.doubt("A", None) is None
