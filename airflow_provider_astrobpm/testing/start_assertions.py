"""Compare the started instances with the expected ones, and describe the differences. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class ExpectedInstance:
    """An instance that a test expects to have been started.

    :param name: the process.
    :param fields: the expected fields, with the names that the control API uses.
    :param variables: the expected variables; the instance may have others.
    """

    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, Any] = field(default_factory=dict)

    def differences(self, instance: Mapping[str, Any]) -> list[str]:
        """Return a description of each difference between this and an instance of the process."""
        found = _labelled(instance, instance["variables"])
        return [
            f"{what} is {repr(found[what]) if what in found else 'missing'}, not {value!r}"
            for what, value in _labelled(self.fields, self.variables).items()
            if what not in found or found[what] != value
        ]

    def __str__(self) -> str:
        """Return a description, such as ``Approval with title 'Publish'``."""
        asked = ", ".join(
            f"{what} {value!r}" for what, value in _labelled(self.fields, self.variables).items()
        )
        return f"{self.name} with {asked}" if asked else self.name


def _labelled(fields: Mapping[str, Any], variables: Mapping[str, Any]) -> dict[str, Any]:
    return {**fields, **{f"variable {name}": value for name, value in variables.items()}}


def matching(expected: ExpectedInstance, started: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the instances that match the expected one."""
    return [each for each in started if each["name"] == expected.name and not expected.differences(each)]


def mismatch_message(expected: ExpectedInstance, times: int, started: list[dict[str, Any]]) -> str | None:
    """Return an error message if the number of matching instances is not ``times``; otherwise ``None``.

    :param started: all instances that were started.
    """
    found = len(matching(expected, started))
    if found == times:
        return None
    lines = [f"Expected {expected} to be started {_times(times)}, but it was started {_times(found)}."]
    return "\n".join([*lines, *instance_lines("Started instances", started, expected)])


def instance_lines(
    title: str, instances: list[dict[str, Any]], expected: ExpectedInstance | None = None
) -> list[str]:
    """Return lines that describe instances.

    :param expected: an expected instance; the lines also show how each instance of its process differs from it.
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
    """Return a one-line description of an instance."""
    held = ", suspended" if instance["suspended"] else ""
    choices = ", ".join(instance["outcomes"])
    return (
        f"{instance['name']} {instance['version']}, business key {instance['business_key']!r}, title "
        f"{instance['title']!r}: {instance['state']}{held}, business status {instance['bp_status']!r}"
        + (f", waits for a person: {choices}" if choices else "")
    )


def _times(count: int) -> str:
    return {1: "once"}.get(count, f"{count} times")
