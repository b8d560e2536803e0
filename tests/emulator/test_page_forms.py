"""The forms of the page: their effects, and the errors for invalid ones."""

from __future__ import annotations

import pytest

from airflow_provider_astrobpm.emulator.engine import Engine
from airflow_provider_astrobpm.emulator.page.forms import FORMS, FormError, perform, start, text_of
from airflow_provider_astrobpm.emulator.page.instance_details import variables_of
from airflow_provider_astrobpm.emulator.process_scripts import parse_script
from airflow_provider_astrobpm.emulator.switches import Switches

SCRIPT = """
processes:
  - name: Asked
    variables: {comment: "", amount: 1, approved_by: ""}
    read_only: [approved_by]
    steps:
      - state: Waiting for user interaction
        wait: person
        outcomes: {approve: {bp_status: Approved}}
  - name: Twice
    steps:
      - {state: Waiting for user interaction, wait: person, outcomes: {approve: {bp_status: Half}}}
      - {state: Waiting for user interaction, wait: person, outcomes: {approve: {bp_status: Approved}}}
  - {name: Old, version: 1.0.0, active: false}
  - {name: Old, version: 2.0.0}
"""


@pytest.fixture
def engine() -> Engine:
    return Engine(lambda: 0.0, parse_script(SCRIPT, "test"))


def definition(engine: Engine, name: str, version: str = "1.0.0") -> str:
    return engine.catalogue.to_start(name, version).id


def test_the_start_form_starts_an_instance(engine: Engine) -> None:
    fields = {"business_key": " key-1 ", "title": "T", "variables": '{"comment": "c", "amount": [2]}'}
    instance = start(engine, {"definition": definition(engine, "Asked"), **fields})
    assert (instance.business_key, instance.title, instance.created_by) == ("key-1", "T", "someone")
    assert instance.variables == {"comment": "c", "amount": [2], "approved_by": ""}


@pytest.mark.parametrize("empty", [{}, {"business_key": " ", "title": "", "variables": " \n"}])
def test_empty_fields_of_a_start_use_defaults(engine: Engine, empty: dict[str, str]) -> None:
    instance = start(engine, {"definition": definition(engine, "Asked"), **empty})
    assert (instance.business_key, instance.title) == (instance.id, "Asked")


def test_an_inactive_version_can_be_started(engine: Engine) -> None:
    assert start(engine, {"definition": definition(engine, "Old")}).process.version == "1.0.0"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ('{"comment" 1}', "This is not JSON: expected ':' (line 1, column 12)."),
        ('{\n  "é": 1,\n  "comment": @}', "(line 3, column 14)."),
        ('{"comment": NaN}', "This is not JSON: invalid character (line 1, column 13)."),
        ("{", "This is not JSON: Input data was truncated."),
        ("[" * 100_000, "This is not JSON: it is nested too deeply."),
        ("[1]", 'This must be a JSON object, such as {"dataset": "sales_daily"}.'),
        ('"comment"', "This must be a JSON object"),
        ('{"coment": 1}', "A start of Asked cannot set 'coment'; it can set comment, amount."),
        ('{"approved_by": "me"}', "A start of Asked cannot set 'approved_by'; it can set comment, amount."),
    ],
)
def test_invalid_variables_are_refused(engine: Engine, variables: str, message: str) -> None:
    with pytest.raises(FormError) as caught:
        start(engine, {"definition": definition(engine, "Asked"), "variables": variables})
    assert (message in str(caught.value), caught.value.field) == (True, "variables"), str(caught.value)
    assert engine.instances() == []


@pytest.mark.parametrize("given", [{}, {"definition": "001L0"}])
def test_an_unknown_process_is_refused(engine: Engine, given: dict[str, str]) -> None:
    with pytest.raises(FormError, match="Choose a process from the list") as caught:
        start(engine, given)
    assert caught.value.field == "definition"


def test_a_refused_start_shows_the_reason(engine: Engine) -> None:
    engine.switches = Switches().changed(duplicate_business_key="refuse")
    fields = {"definition": definition(engine, "Asked"), "business_key": "key-1"}
    start(engine, fields)
    with pytest.raises(FormError, match="already has the business key key-1"):
        start(engine, fields)


@pytest.mark.parametrize(
    ("form", "fields", "after"),
    [
        ("complete", {"outcome": "approve"}, ("Completed OK", False, True)),
        ("suspend", {}, ("Waiting for user interaction", True, False)),
        ("terminate", {}, ("Terminated", False, True)),
        ("break", {}, ("Broken", False, True)),
        ("variables", {"set:amount": "2"}, ("Waiting for user interaction", False, False)),
    ],
)
def test_each_form_performs_its_action(
    engine: Engine, form: str, fields: dict[str, str], after: tuple[str, bool, bool]
) -> None:
    instance = engine.start("Asked")
    perform(engine, form, instance.id, fields)
    assert (instance.state, instance.suspended, instance.closed) == after


def test_the_resume_form_resumes(engine: Engine) -> None:
    instance = engine.start("Asked")
    perform(engine, "suspend", instance.id, {})
    perform(engine, "resume", instance.id, {})
    assert not instance.suspended


@pytest.mark.parametrize(
    ("form", "fields", "message"),
    [
        ("complete", {"outcome": "publish"}, "Outcome 'publish' is not on offer"),
        ("complete", {}, "Outcome '' is not on offer"),
        ("resume", {}, "is already running."),
        ("variables", {}, "No variable was changed"),
        ("variables", {"set:comment": "", "was:comment": ""}, "No variable was changed"),
        ("variables", {"set:amount": "two", "was:amount": "1"}, "This is not JSON"),
        ("variables", {"set:amount": "2", "set:approved_by": "me"}, "The variable 'approved_by' cannot"),
        ("variables", {"set:amount": "2", "set:nothing": "1"}, "The variable 'nothing' cannot be set."),
    ],
)
def test_a_failed_form_shows_the_reason_and_changes_nothing(
    engine: Engine, form: str, fields: dict[str, str], message: str
) -> None:
    instance = engine.start("Asked")
    with pytest.raises(FormError) as caught:
        perform(engine, form, instance.id, fields)
    assert message in str(caught.value)
    assert len(instance.history) == 1


def test_a_decision_applies_only_to_the_shown_step(engine: Engine) -> None:
    instance = engine.start("Twice")
    seen = {"outcome": "approve", "entered": str(instance.entered)}
    perform(engine, "complete", instance.id, seen)
    with pytest.raises(FormError, match="has moved on to another step"):
        perform(engine, "complete", instance.id, seen)
    assert not instance.closed
    perform(engine, "complete", instance.id, {**seen, "entered": str(instance.entered)})
    assert instance.bp_status == "Approved"


@pytest.mark.parametrize("form", FORMS)
def test_forms_for_a_closed_instance_are_refused(engine: Engine, form: str) -> None:
    instance = engine.start("Asked")
    engine.decide(instance.id, "approve")
    with pytest.raises(FormError, match="ended|on offer"):
        perform(engine, form, instance.id, {"outcome": "approve", "set:comment": "late"})
    assert instance.state == "Completed OK"


@pytest.mark.parametrize("form", FORMS)
def test_forms_for_an_unknown_instance_are_refused(engine: Engine, form: str) -> None:
    with pytest.raises(FormError, match="does not exist"):
        perform(engine, form, "none", {})


def test_only_changed_variables_are_set(engine: Engine) -> None:
    instance = engine.start("Asked", variables={"comment": "a\nb"})
    shown = {"set:comment": "a\r\nb", "was:comment": "a\r\nb", "set:amount": "007", "was:amount": "1"}
    instance.variables["comment"] = "another person's"
    with pytest.raises(FormError, match="not JSON"):
        perform(engine, "variables", instance.id, shown)
    perform(engine, "variables", instance.id, {**shown, "set:amount": "[7]"})
    assert instance.variables == {"comment": "another person's", "amount": [7], "approved_by": ""}


def test_a_text_variable_keeps_its_type(engine: Engine) -> None:
    instance = engine.start("Asked")
    perform(engine, "variables", instance.id, {"set:comment": '{"007": 1}\r\nx', "was:comment": ""})
    assert instance.variables["comment"] == '{"007": 1}\nx'


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ({}, "now"),
        ({"set:comment": "mine", "was:comment": "before"}, "mine"),
        ({"set:comment": "before", "was:comment": "before"}, "now"),
    ],
)
def test_a_failed_form_keeps_the_typed_values(engine: Engine, typed: dict[str, str], text: str) -> None:
    instance = engine.start("Asked", variables={"comment": "now"})
    comment = variables_of(instance, engine)[0]
    assert text_of(comment, typed) == text
