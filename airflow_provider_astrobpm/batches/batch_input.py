"""Reads and validates the input of a batch, launch by launch. No I/O."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from airflow_provider_astrobpm.client import operations, validation
from airflow_provider_astrobpm.client import variables as values

if TYPE_CHECKING:
    from airflow_provider_astrobpm.client.instance import BpmInstance
    from airflow_provider_astrobpm.client.operations import Operation

MAX_LAUNCHES_IN_MEMORY = 20_000
"""Launches kept in memory from validation to start; of larger inputs, all are read again."""
LAUNCH_FIELDS = ("bpm_name", "version", "variables", "business_key", "title", "id")
"""The fields of a launch."""


class InputPosition(NamedTuple):
    """The position of a launch in its input, in words, and its line number or list position."""

    words: str
    number: int

    def __str__(self) -> str:
        return self.words


class AuthorFields(NamedTuple):
    """The author's fields of a launch that the result repeats.

    :param id: the author's id; without one, the line number or the list position.
    :param variables: the variables as sent; ``None`` if the result does not include them.
    """

    id: str | int
    title: str | None = None
    variables: dict[str, Any] | None = None


class Launch(msgspec.Struct, frozen=True, dict=True):
    """One start of a batch.

    :param number: the place in the batch, from 1.
    :param business_key: the author's own key; without one, the launch gets a key made from the task.
    :param default_title: the title if the author sets none, neither as a field nor as a variable.
    :param id: the author's id, which the result repeats.
    :param line: the line number, if it differs from the place in the batch.
    """

    number: int
    bpm_name: str
    version: str | None = None
    variables: Mapping[str, Any] | None = None
    business_key: str | None = None
    title: str | None = None
    default_title: str | None = None
    id: str | int | None = None
    line: int | None = None

    @cached_property
    def digest(self) -> str:
        """Four characters that show whether the same launch still has this place."""
        content = [self.bpm_name, self.version, self.variables, self.business_key, self.title]
        if self.id is not None:
            # Hash the id as a variable. A column ``id`` used to be a variable, so existing keys stay the same.
            variables = self.variables or {}
            content[2] = {**variables, "id": self.id}
            if "id" in variables:
                content.append(variables["id"])
        text = json.dumps(content, sort_keys=True)
        whole = hashlib.sha256(text.encode()).digest()
        return base64.b32encode(whole[:5]).decode().lower()[:4]

    def author_fields(self, *, with_variables: bool = False) -> AuthorFields:
        """Return the author's fields of this launch for the result."""
        number = self.number if self.line is None else self.line
        sent = dict(self.variables or {}) if with_variables else None
        return AuthorFields(number if self.id is None else self.id, self.title, sent)

    def operation(self, business_key: str | None) -> Operation[BpmInstance]:
        """Return the start operation with a business key.

        :raises ValueError: for arguments that cannot be sent.
        """
        title = self.title
        if title is None and operations.TITLE_VARIABLE not in (self.variables or {}):
            title = self.default_title
        return operations.start(
            self.bpm_name,
            version=self.version,
            variables=self.variables,
            business_key=business_key,
            title=title,
        )


def parse_launches(
    items: Iterable[tuple[InputPosition, object]],
    *,
    bpm_name: str | None = None,
    version: str | None = None,
    title_of: Callable[[int], str] | None = None,
    zone: values.Zone = values.unknown_zone,
) -> Iterator[Launch]:
    """Validate launches one by one.

    :param items: each launch as the author wrote it: a mapping with some of ``LAUNCH_FIELDS``.
    :param bpm_name: the default for the BPM name.
    :param version: the default for the version, for launches that name no BPM.
    :param title_of: returns the default title of a launch, by its number.
    :param zone: returns the zone of the API's timestamps, for datetimes among the variables.
    :raises ValueError: for a launch that cannot be started, or that repeats a business key or id; the error says where.
    """
    places: dict[str, InputPosition] = {}
    ids: dict[str, int] = {}
    for number, (where, given) in enumerate(items, 1):
        try:
            launch = Launch(
                number,
                **_checked_fields(given, bpm_name, version, zone),
                default_title=title_of(number) if title_of else None,
                line=None if where.number == number else where.number,
            )
            launch.operation("of the task" if launch.business_key is None else launch.business_key)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        key = launch.business_key
        if key is not None and (first := places.setdefault(key, where)) != where:
            raise ValueError(f"{where}: its business_key {key!r} is also that of {first}")
        its_id = launch.author_fields().id
        if (first_id := ids.setdefault(str(its_id), number)) != number:
            raise ValueError(f"{where}: its id {its_id!r} is also that of launch {first_id}")
        yield launch


def _checked_fields(
    given: object, bpm_name: str | None, version: str | None, zone: values.Zone
) -> dict[str, Any]:
    """Return the fields of an author's mapping, validated as a start does."""
    if not isinstance(given, Mapping):
        raise ValueError(
            f"it must be a mapping with some of {', '.join(LAUNCH_FIELDS)}, not {type(given).__name__}"
        )
    if unknown := [name for name in given if name not in LAUNCH_FIELDS]:
        raise ValueError(f"it has no field {unknown[0]!r}; the fields are {', '.join(LAUNCH_FIELDS)}")
    own = {name: value for name, value in given.items() if value is not None}
    if "bpm_name" not in own:
        if bpm_name is None:
            raise ValueError("it needs a bpm_name, because the batch has none")
        own = {"bpm_name": bpm_name, **({} if version is None else {"version": version}), **own}
    identifiers = [name for name in ("bpm_name", "version", "business_key") if name in own]
    own |= {name: validation.identifier(own[name], name) for name in identifiers}
    if "title" in own:
        own["title"] = validation.rendered_text(own["title"], "title")
    if "variables" in own:
        own["variables"] = values.json_ready(own["variables"], zone)
    if isinstance(own_id := own.get("id"), str):
        validation.identifier(own_id, "id")
    elif isinstance(own_id, bool) or not isinstance(own_id, int | None):
        raise ValueError(f"id must be a string or an integer, not {validation.shown(own_id)}")
    return own


class BatchInputSummary(NamedTuple):
    """Facts about a whole input that was read once and is valid."""

    total: int
    own_keys: dict[int, str]
    """The authors' own business keys, by the numbers of their launches."""
    variable_names: dict[tuple[str, str | None], dict[str, int]]
    """The names of the variables, by BPM and version, each with the number of the first launch that uses it."""


def validate_all(
    read: Callable[[], Iterator[Launch]],
) -> tuple[BatchInputSummary, Callable[[], Iterator[Launch]]]:
    """Read and validate all launches. Return a summary, and a function that reads them again.

    That function raises ``ValueError`` if the launches have changed.

    :raises ValueError: for a launch that cannot be started.
    """
    own_keys: dict[int, str] = {}
    variable_names: dict[tuple[str, str | None], dict[str, int]] = {}
    digests: list[str] = []
    kept: list[Launch] = []
    for launch in read():
        digests.append(launch.digest)
        if launch.business_key is not None:
            own_keys[launch.number] = launch.business_key
        if launch.variables:
            first_uses = variable_names.setdefault((launch.bpm_name, launch.version), {})
            for name in launch.variables:
                first_uses.setdefault(name, launch.number)
        if len(digests) <= MAX_LAUNCHES_IN_MEMORY:
            kept.append(launch)
        else:
            kept.clear()
    survey = BatchInputSummary(len(digests), own_keys, variable_names)
    if survey.total <= MAX_LAUNCHES_IN_MEMORY:
        return survey, lambda: iter(kept)
    return survey, lambda: _unchanged(read(), digests)


def _unchanged(launches: Iterator[Launch], digests: list[str]) -> Iterator[Launch]:
    for number, (launch, digest) in enumerate(zip_longest(launches, digests), 1):
        if launch is None or launch.digest != digest:
            raise ValueError(f"launch {number} has changed since the input was validated a moment ago")
        yield launch


def with_positions(given: object) -> Iterator[tuple[InputPosition, object]]:
    """Return the launches of a list, each with its position.

    :raises ValueError: if the argument is not a list.
    """
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        instead = (
            ". A template renders a string: set render_template_as_native_obj=True, or pass an upstream task's output"
            if isinstance(given, str)
            else ""
        )
        raise ValueError(f"launches must be a list of mappings, not {type(given).__name__}{instead}")
    return ((InputPosition(f"launch {number}", number), one) for number, one in enumerate(given, 1))
