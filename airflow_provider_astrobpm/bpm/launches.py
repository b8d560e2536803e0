"""The input of a batch: what a launch is, and whether it can be started. No I/O."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from airflow_provider_astrobpm.bpm import api, checks
from airflow_provider_astrobpm.bpm import variables as values

if TYPE_CHECKING:
    from typing_extensions import Self

    from airflow_provider_astrobpm.bpm.api import Operation
    from airflow_provider_astrobpm.bpm.instance import BpmInstance

MOST_KEPT = 20_000  # launches that are kept in memory between the check and the start; more are read again
FIELDS = ("bpm_name", "version", "variables", "business_key", "title", "id")
"""What may be said of a launch."""


class Where(str):
    """Where a launch is in its input, in words, with the number of the line or of the place in a list."""

    __slots__ = ("number",)
    number: int

    def __new__(cls, words: str, number: int) -> Self:
        """Make it of both."""
        made = super().__new__(cls, words)
        made.number = number
        return made


class Said(NamedTuple):
    """What its author has said of a launch, for the result.

    :param id: the author's id; the number of its line, or its place in a list, where there is none.
    :param title: the title.
    :param variables: the variables, as they are sent; ``None`` if they are not asked for.
    """

    id: str | int
    title: str | None = None
    variables: dict[str, Any] | None = None


class Launch(msgspec.Struct, frozen=True, dict=True):
    """One start of a batch.

    :param number: its place in the batch, from 1.
    :param bpm_name: the BPM's name.
    :param version: the version to run; without it the enabled one runs.
    :param variables: values for the BPM's variables.
    :param business_key: the author's own key; without one the launch gets one of the task's.
    :param title: the instance's title.
    :param default_title: the title where the author gives none, neither here nor among the variables.
    :param id: the author's id, by which the result tells of it.
    :param line: the number of its line, where that is not its place in the batch.
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

    @classmethod
    def of(
        cls,
        number: int,
        given: object,
        *,
        bpm_name: str | None = None,
        version: str | None = None,
        default_title: str | None = None,
        zone: values.Zone = values.no_zone,
        line: int | None = None,
    ) -> Self:
        """Make a launch of what an author wrote, and check it as a start does.

        :param number: its place in the batch, from 1.
        :param given: a mapping with some of ``FIELDS``.
        :param bpm_name: the name where it has none of its own.
        :param version: the version of that BPM, where it names neither.
        :param default_title: the title where it gives none.
        :param zone: returns the zone of the API's timestamps, for moments among the variables.
        :param line: the number of its line, where that is not its place.
        :raises ValueError: if it cannot be started.
        """
        if not isinstance(given, Mapping):
            raise ValueError(
                f"it must be a mapping with some of {', '.join(FIELDS)}, not {type(given).__name__}"
            )
        if unknown := [name for name in given if name not in FIELDS]:
            raise ValueError(f"it has no field {unknown[0]!r}; what may be given is {', '.join(FIELDS)}")
        own = {name: value for name, value in given.items() if value is not None}
        if "bpm_name" not in own:
            if bpm_name is None:
                raise ValueError("it needs a bpm_name, because the batch has none")
            own = {"bpm_name": bpm_name, **({} if version is None else {"version": version}), **own}
        for name in ("bpm_name", "version", "business_key"):
            if name in own:
                own[name] = checks.identifier(own[name], name)
        if "title" in own:
            own["title"] = checks.rendered(own["title"], "title")
        if "variables" in own:
            own["variables"] = values.plain(own["variables"], zone)
        if "id" in own:
            _check_id(own["id"])
        launch = cls(number, **own, default_title=default_title, line=line)
        launch.operation("of the task" if launch.business_key is None else launch.business_key)
        return launch

    @cached_property
    def digest(self) -> str:
        """Four characters that tell whether another launch has taken this one's place."""
        said = [self.bpm_name, self.version, self.variables, self.business_key, self.title]
        if self.id is not None:
            # As a variable of that name, which a column ``id`` was before it was an id: keys that are in use stay the same.
            variables = self.variables or {}
            said[2] = {**variables, "id": self.id}
            if "id" in variables:
                said.append(variables["id"])
        text = json.dumps(said, sort_keys=True)
        whole = hashlib.sha256(text.encode()).digest()
        return base64.b32encode(whole[:5]).decode().lower()[:4]

    def said(self, *, with_variables: bool = False) -> Said:
        """Return the author's part of the row for this launch in the result.

        :param with_variables: whether its variables are among that.
        """
        number = self.number if self.line is None else self.line
        sent = dict(self.variables or {}) if with_variables else None
        return Said(number if self.id is None else self.id, self.title, sent)

    def operation(self, business_key: str | None) -> Operation[BpmInstance]:
        """Return the start, with a business key.

        :raises ValueError: for arguments that cannot be sent.
        """
        title = self.title
        if title is None and api.TITLE_VARIABLE not in (self.variables or {}):
            title = self.default_title
        return api.start(
            self.bpm_name,
            version=self.version,
            variables=self.variables,
            business_key=business_key,
            title=title,
        )


def launches_of(
    items: Iterable[tuple[str, object]],
    *,
    bpm_name: str | None = None,
    version: str | None = None,
    title_of: Callable[[int], str] | None = None,
    zone: values.Zone = values.no_zone,
) -> Iterator[Launch]:
    """Check launches one after the other.

    :param items: each launch as the author wrote it, with words for where that was; a ``Where`` also tells its line.
    :param bpm_name: the name of those that have none of their own.
    :param version: the version of those.
    :param title_of: returns the title of a launch that has none of its own, by its number.
    :param zone: returns the zone of the API's timestamps, for moments among the variables.
    :raises ValueError: for a launch that cannot be started, or whose business key or id is another's too; it says where.
    """
    places: dict[str, str] = {}
    ids: dict[str, int] = {}
    for number, (where, given) in enumerate(items, 1):
        line = where.number if isinstance(where, Where) and where.number != number else None
        try:
            launch = Launch.of(
                number,
                given,
                bpm_name=bpm_name,
                version=version,
                default_title=title_of(number) if title_of else None,
                zone=zone,
                line=line,
            )
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        key = launch.business_key
        if key is not None and (first := places.setdefault(key, where)) != where:
            raise ValueError(f"{where}: its business_key {key!r} is that of {first} too")
        its_id = launch.said().id
        if (first_id := ids.setdefault(str(its_id), number)) != number:
            raise ValueError(f"{where}: its id {its_id!r} is that of launch {first_id} too")
        yield launch


def without_own_keys(launches: Iterable[Launch]) -> Iterator[Launch]:
    """Return the launches of an input that is started as it is read.

    :raises ValueError: for a business key of the author's: who else carries it must be known before the first start.
    """
    for launch in launches:
        if launch.business_key is not None:
            raise ValueError(
                f"launch {launch.number} has a business_key of its own, which needs validate_first=True"
            )
        yield launch


class Survey(NamedTuple):
    """What is known of a whole input that was read once and found good."""

    total: int
    own_keys: dict[int, str]
    """The authors' own business keys, by the numbers of their launches."""


class Names(dict[tuple[str, str | None], dict[str, int]]):
    """The names of variables in an input, for each BPM and version, with the number of the first launch that has one."""

    def noted(self, read: Callable[[], Iterator[Launch]]) -> Callable[[], Iterator[Launch]]:
        """Return what reads launches and notes the names of their variables.

        :param read: reads the launches from the first on.
        """

        def reading() -> Iterator[Launch]:
            for launch in read():
                if launch.variables:
                    places = self.setdefault((launch.bpm_name, launch.version), {})
                    for name in launch.variables:
                        places.setdefault(name, launch.number)
                yield launch

        return reading


def surveyed(read: Callable[[], Iterator[Launch]]) -> tuple[Survey, Callable[[], Iterator[Launch]]]:
    """Read all launches, and return what is known of them, and what reads them once more.

    That raises ``ValueError`` too, if they are not the same any more.

    :param read: reads the launches from the first on.
    :raises ValueError: for one that cannot be started.
    """
    own_keys: dict[int, str] = {}
    digests: list[str] = []
    kept: list[Launch] = []
    for launch in read():
        digests.append(launch.digest)
        if launch.business_key is not None:
            own_keys[launch.number] = launch.business_key
        if len(digests) <= MOST_KEPT:
            kept.append(launch)
        else:
            kept.clear()
    survey = Survey(len(digests), own_keys)
    if survey.total <= MOST_KEPT:
        return survey, lambda: iter(kept)
    return survey, lambda: _unchanged(read(), digests)


def _unchanged(launches: Iterator[Launch], digests: list[str]) -> Iterator[Launch]:
    for number, (launch, digest) in enumerate(zip_longest(launches, digests), 1):
        if launch is None or launch.digest != digest:
            raise ValueError(f"launch {number} is another one than when the input was checked a moment ago")
        yield launch


def numbered(given: object) -> Iterator[tuple[str, object]]:
    """Return the launches of a list, with words for where each is.

    :raises ValueError: if it is no list.
    """
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        instead = (
            ". A template renders a text: set render_template_as_native_obj=True, or give an upstream task's output"
            if isinstance(given, str)
            else ""
        )
        raise ValueError(f"launches must be a list of mappings, not {type(given).__name__}{instead}")
    return ((Where(f"launch {number}", number), one) for number, one in enumerate(given, 1))


def _check_id(value: object) -> None:
    if isinstance(value, str):
        checks.identifier(value, "id")
    elif isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"id must be a text or a whole number, not {value!r}")
