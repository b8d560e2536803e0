"""Which instances a test says were started, and what it is told if they were not. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_NOTHING = object()


@dataclass(frozen=True)
class ExpectedInstance:
    """An instance that should have been started.

    :param name: the process.
    :param fields: other fields that it should have, by their names in what the emulator tells of an instance.
    :param variables: variables that it should have; it may have others.
    """

    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, Any] = field(default_factory=dict)

    def differences(self, instance: Mapping[str, Any]) -> list[str]:
        """Return in words where an instance of this process is otherwise."""
        pairs = [
            *((name, instance.get(name, _NOTHING), value) for name, value in self.fields.items()),
            *(
                (f"variable {name}", instance["variables"].get(name, _NOTHING), value)
                for name, value in self.variables.items()
            ),
        ]
        return [
            f"{what} is {'missing' if found is _NOTHING else repr(found)}, not {value!r}"
            for what, found, value in pairs
            if found != value
        ]

    def __str__(self) -> str:
        """Say what it is, such as ``Approval with title 'Publish'``."""
        asked = [f"{name} {value!r}" for name, value in self.fields.items()]
        asked += [f"variable {name} {value!r}" for name, value in self.variables.items()]
        return f"{self.name} with {', '.join(asked)}" if asked else self.name


def matching(expected: ExpectedInstance, started: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return those of the instances that are as expected."""
    return [each for each in started if each["name"] == expected.name and not expected.differences(each)]


def mismatch_message(expected: ExpectedInstance, times: int, started: list[dict[str, Any]]) -> str | None:
    """Return what to tell if not exactly so many instances are as expected; ``None`` if they are.

    :param started: all instances that were started.
    """
    found = len(matching(expected, started))
    if found == times:
        return None
    lines = [f"{expected} was to be started {_times(times)}, and was started {_times(found)}."]
    return "\n".join([*lines, *instance_lines("Started were", started, expected)])


def instance_lines(
    title: str, instances: list[dict[str, Any]], expected: ExpectedInstance | None = None
) -> list[str]:
    """Return lines that show instances.

    :param expected: what one of them should have been: where another of its process differs is shown, too.
    """
    if not instances:
        return [f"{title}: none."]
    lines = [f"{title}:"]
    for each in instances:
        lines.append(f"  {instance_line(each)}")
        lines.append(f"    variables {each['variables']!r}")
        if expected is not None and each["name"] == expected.name:
            lines += [f"    but {difference}" for difference in expected.differences(each)]
    return lines


def instance_line(instance: Mapping[str, Any]) -> str:
    """Return an instance in one line."""
    held = ", suspended" if instance["suspended"] else ""
    choices = ", ".join(instance["outcomes"])
    return (
        f"{instance['name']} {instance['version']}, business key {instance['business_key']!r}, title "
        f"{instance['title']!r}: {instance['state']}{held}, business status {instance['bp_status']!r}"
        + (f", waits for a person: {choices}" if choices else "")
    )


def _times(count: int) -> str:
    return {0: "never", 1: "once"}.get(count, f"{count} times")
