"""Process scripts: parse YAML that describes a BPM.

A script defines the states of an instance, how long it stays in each, where it waits for a person, and the outcomes that
the person may choose. This module only parses scripts; the engine runs them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from airflow_provider_astrobpm.client.states import COMPLETED, STATES, is_terminal
from airflow_provider_astrobpm.emulator.bounded_yaml import BoundedLoader, YamlLimitError

CONSTRUCTOR_ERRORS = (AttributeError, LookupError, OverflowError, TypeError)
"""What PyYAML raises for a scalar that is not what its tag says, such as ``!!int ''``."""
DEFAULT_SCRIPT = Path(__file__).with_name("default_processes.yaml")


class ScriptError(ValueError):
    """A script is invalid; the message says where and why."""


@dataclass(frozen=True)
class End:
    """How an instance ends.

    :param state: the final state.
    :param bp_status: the final business status; ``None`` keeps the last one.
    """

    state: str = COMPLETED
    bp_status: str | None = None


@dataclass(frozen=True)
class ScriptedOutcome:
    """An outcome that a person may choose, and its effects.

    :param task_outcome: the outcome of the last task, as the instance shows it.
    :param variables: variables that the decision sets, including read-only ones.
    :param goto: the name of the step to continue with; without ``goto`` and ``end``, the next step.
    :param end: ends the instance immediately.
    """

    name: str
    task_outcome: str
    bp_status: str | None = None
    variables: dict[str, Any] = field(default_factory=dict)
    goto: str | None = None
    end: End | None = None


@dataclass(frozen=True)
class Step:
    """One state of an instance, which lasts some seconds or until a person decides.

    :param seconds: how long it lasts; ``None`` if it waits for a person.
    :param outcomes: the outcomes that the person may choose, by name.
    :param element: the element of the diagram; the API calls it ``nextElem`` and ``curElement``.
    """

    state: str
    name: str | None = None
    bp_status: str | None = None
    bp_step: str | None = None
    element: str | None = None
    seconds: float | None = 0.0
    outcomes: dict[str, ScriptedOutcome] = field(default_factory=dict)


@dataclass(frozen=True)
class Process:
    """One version of a BPM.

    :param variables: the declared variables with their initial values.
    :param read_only: the declared variables that callers cannot set.
    """

    name: str
    version: str = "1.0.0"
    active: bool = True
    label: str = ""
    description: str = ""
    variables: dict[str, Any] = field(default_factory=dict)
    read_only: frozenset[str] = frozenset()
    steps: tuple[Step, ...] = ()
    end: End = End()

    @property
    def settable(self) -> tuple[str, ...]:
        """The variables that callers can set."""
        return tuple(name for name in self.variables if name not in self.read_only)

    def position_of(self, step: str) -> int:
        """Return the index of a named step."""
        return next(index for index, candidate in enumerate(self.steps) if candidate.name == step)


def load_script(path: Path) -> list[Process]:
    """Read the processes of a script file, as ``parse_script`` does, or raise ``OSError``."""
    return parse_script(path.read_text(encoding="utf-8"), str(path))


def parse_script(text: str, source: str) -> list[Process]:
    """Read the processes of a script.

    :param source: the origin of the text, for error messages.
    :raises ScriptError: if it is not a valid script.
    """
    try:
        document = yaml.load(text, Loader=BoundedLoader)  # noqa: S506 - a SafeLoader
    except YamlLimitError as error:
        raise ScriptError(f"{source}: {error}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ScriptError(f"{source}: not YAML: {error}") from None
    except CONSTRUCTOR_ERRORS:
        raise ScriptError(f"{source}: a value is not what its tag says") from None
    top = _Section(document, source)
    processes = [
        _process(item, f"{source}: process {number}") for number, item in enumerate(top.list("processes"), 1)
    ]
    top.close()
    if not processes:
        raise ScriptError(f"{source}: processes must not be empty")
    _refuse_conflicts(processes, source)
    return processes


def _refuse_conflicts(processes: list[Process], source: str) -> None:
    versions: set[tuple[str, str]] = set()
    active: dict[str, str] = {}
    for process in processes:
        if (process.name, process.version) in versions:
            raise ScriptError(
                f"{source}: process {process.name!r} version {process.version} is defined twice"
            )
        versions.add((process.name, process.version))
        if process.active and active.setdefault(process.name, process.version) != process.version:
            raise ScriptError(
                f"{source}: process {process.name!r} has two active versions,"
                f" {active[process.name]} and {process.version}; only one can be active"
            )


class _Section:
    """A mapping in a script, read key by key; a key that was not read is an error."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise ScriptError(f"{where}: must be a mapping, not {_kind(value)}")
        self._left: dict[object, Any] = dict(value)
        self._taken: list[str] = []
        self.where = where

    def __contains__(self, key: str) -> bool:
        return key in self._left

    def error(self, message: str) -> ScriptError:
        return ScriptError(f"{self.where}: {message}")

    def take(self, key: str, kinds: tuple[type, ...], default: Any, expected: str) -> Any:
        self._taken.append(key)
        if key not in self._left:
            return default
        value = self._left.pop(key)
        if type(value) not in kinds:
            raise self.error(f"{key} must be {expected}, not {_kind(value)} {value!r}")
        return value

    def text(self, key: str) -> str | None:
        value: str | None = self.take(key, (str,), None, "text (quote it)")
        if value is not None and not value.strip():
            raise self.error(f"{key} must not be blank")
        return value

    def list(self, key: str) -> list[Any]:
        return list(self.take(key, (list,), [], "a list"))

    def mapping(self, key: str) -> dict[str, Any]:
        value: dict[str, Any] = self.take(key, (dict,), {}, "a mapping")
        for name in value:
            if not isinstance(name, str):
                raise self.error(f"{key} must have text as keys, not {name!r} (quote it)")
        return value

    def state(self) -> str | None:
        value = self.text("state")
        if value is not None and value not in STATES:
            raise self.error(f"unknown state {value!r}; known are {', '.join(STATES)}")
        return value

    def close(self) -> None:
        if self._left:
            unknown = ", ".join(repr(key) for key in self._left)
            raise self.error(f"unknown key {unknown}; known are {', '.join(self._taken)}")


def _process(item: object, where: str) -> Process:
    section = _Section(item, where)
    name = section.text("name")
    if name is None:
        raise section.error("name is missing")
    version = section.text("version") or "1.0.0"
    section.where = where = f"{where.rpartition(': ')[0]}: process {name!r} version {version}"
    variables = section.mapping("variables")
    read_only = section.list("read_only")
    if undeclared := [variable for variable in read_only if variable not in list(variables)]:
        raise section.error(
            f"read_only contains {', '.join(map(repr, undeclared))}, which variables does not declare"
        )
    items = section.list("steps")
    end = End()
    if items and isinstance(items[-1], dict) and "end" in items[-1]:
        last = _Section(items.pop(), where)
        end = _end(last)
        last.close()
    steps = tuple(_step(step, f"{where}: step {number}") for number, step in enumerate(items, 1))
    process = Process(
        name=name,
        version=version,
        active=section.take("active", (bool,), True, "true or false"),
        label=section.text("label") or name,
        description=section.text("description") or "",
        variables=variables,
        read_only=frozenset(read_only),
        steps=steps,
        end=end,
    )
    section.close()
    _check_step_names(process, where)
    return process


def _check_step_names(process: Process, where: str) -> None:
    names = [step.name for step in process.steps if step.name]
    if len(set(names)) < len(names):
        raise ScriptError(f"{where}: step names must be unique, they are {', '.join(names)}")
    for number, step in enumerate(process.steps, 1):
        for outcome in step.outcomes.values():
            if outcome.goto is not None and outcome.goto not in names:
                raise ScriptError(
                    f"{where}: step {number}: outcome {outcome.name!r}: no step is named {outcome.goto!r};"
                    f" named steps are {', '.join(names) or 'none'}"
                )


def _step(item: object, where: str) -> Step:
    section = _Section(item, where)
    if "end" in section:
        raise section.error("end must be the last step")
    state = section.state()
    if state is None:
        raise section.error("state is missing")
    wait = section.text("wait")
    if wait not in (None, "person"):
        raise section.error(f"wait must be person, not {wait!r}")
    seconds: float | None = section.take("for", (int, float), None, "a number of seconds")
    if seconds is not None and not (math.isfinite(seconds) and seconds >= 0):
        raise section.error(f"for must be 0 or more seconds, not {seconds!r}")
    outcomes = section.mapping("outcomes")
    if wait and (seconds is not None or not outcomes):
        raise section.error("a step with wait: person needs outcomes and takes no for")
    if outcomes and not wait:
        raise section.error("outcomes need wait: person")
    step = Step(
        state=state,
        name=section.text("name"),
        bp_status=section.text("bp_status"),
        bp_step=section.text("bp_step"),
        element=section.text("element"),
        seconds=None if wait else float(seconds or 0),
        outcomes={
            name: _outcome(name, value, f"{where}: outcome {name!r}") for name, value in outcomes.items()
        },
    )
    section.close()
    return step


def _outcome(name: str, item: object, where: str) -> ScriptedOutcome:
    section = _Section({} if item is None else item, where)
    goto = section.text("goto")
    outcome = ScriptedOutcome(
        name=name,
        task_outcome=section.text("task_outcome") or name,
        bp_status=section.text("bp_status"),
        variables=section.mapping("variables"),
        goto=goto,
        end=_end(section) if "end" in section else None,
    )
    if goto and outcome.end:
        raise section.error("an outcome has goto or end, not both")
    section.close()
    return outcome


def _end(section: _Section) -> End:
    """Read ``end: {state, bp_status}``. A bare ``end:`` means ``Completed OK``."""
    inner = _Section(
        section.take("end", (dict, type(None)), None, "a mapping") or {}, f"{section.where}: end"
    )
    state = inner.state() or COMPLETED
    if not is_terminal(state):
        raise inner.error(f"state {state!r} is not a final state")
    end = End(state=state, bp_status=inner.text("bp_status"))
    inner.close()
    return end


def _kind(value: object) -> str:
    return "nothing" if value is None else type(value).__name__
