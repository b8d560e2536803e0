"""The report: all findings, the started instances, and the extras to set, as text or as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from airflow_provider_astrobpm.doctor.findings import DESCRIPTIONS, Finding

if TYPE_CHECKING:
    from airflow_provider_astrobpm.doctor.started_instances import SentStart

LINE_CHARACTERS = 110
MARKS = {True: "ok", False: "!", None: "?"}
MAY_NOT_EXIST = "It may or may not exist: search for it by its business key, and terminate it if it exists."
LEGEND = "ok: fine for this provider   !: needs attention   ?: unknown"


@dataclass
class Report:
    """The result of a run of the doctor.

    :param connection: the connection id.
    :param url: the base URL.
    :param process: the process to start; ``None`` for a read-only run.
    :param findings: the findings by name.
    :param started: the starts that were sent.
    :param extras: the extras to set.
    :param requests: the number of requests sent.
    :param signed_in: whether the endpoint answered and the run has a token.
    :param interrupted: whether the run was interrupted.
    """

    connection: str
    url: str
    process: str | None = None
    findings: dict[str, Finding] = field(default_factory=dict)
    started: list[SentStart] = field(default_factory=list)
    extras: dict[str, Any] = field(default_factory=dict)
    requests: int = 0
    signed_in: bool = False
    interrupted: bool = False

    @property
    def ordered(self) -> list[Finding]:
        """The findings, in their documented order."""
        return [self.findings[name] for name in DESCRIPTIONS if name in self.findings]

    @property
    def not_ended(self) -> list[SentStart]:
        """The starts whose instances are not known to have ended."""
        return [start for start in self.started if start.end is None]

    @property
    def exit_code(self) -> int:
        """0; 1 without a token or with an instance left; 130 if interrupted."""
        return 130 if self.interrupted else int(not self.signed_in or bool(self.not_ended))

    def as_json(self) -> str:
        """Return the report as JSON."""
        return json.dumps(
            {
                "connection": self.connection,
                "url": self.url,
                "mode": "read-only" if self.process is None else "start",
                "process": self.process,
                "requests": self.requests,
                "signed_in": self.signed_in,
                "interrupted": self.interrupted,
                "points": [
                    {
                        "name": finding.name,
                        "value": finding.value,
                        "seen": finding.sentence,
                        "fine": finding.fine,
                        "evidence": finding.evidence,
                        "about": DESCRIPTIONS[finding.name],
                    }
                    for finding in self.ordered
                ],
                "started": [_start_as_json(start) for start in self.started],
                "not_terminated": [_start_as_json(start) for start in self.not_ended],
                "extras": self.extras,
            },
            indent=2,
            ensure_ascii=False,
        )

    def as_text(self) -> str:
        """Return the report as readable text."""
        lines = [f"Connection {self.connection!r}, {self.url}", self._mode(), LEGEND, ""]
        for finding in self.ordered:
            lines += _finding_lines(finding)
        lines += ["", *self._started_lines()]
        if not self.signed_in:
            lines.append("Nothing else was probed.")
        elif self.extras:
            lines += ["Extras to set on the connection:", json.dumps(self.extras)]
        else:
            lines.append("No extra has to be set.")
        return "\n".join(lines)

    def _mode(self) -> str:
        cut_short = " It was interrupted." if self.interrupted else ""
        if self.process is None:
            return f"Read only: {self.requests} requests, none of which changed anything.{cut_short}"
        return f"With --start {self.process}: {self.requests} requests.{cut_short}"

    def _started_lines(self) -> list[str]:
        if self.process is None:
            return []
        lines = [f"Started and ended: {start} ({start.end})" for start in self.started if start.end]
        for start in self.not_ended:
            lines.append(f"NOT TERMINATED: {start}: {start.problem}.")
            if start.instance_id is None:
                lines.append(MAY_NOT_EXIST)
            else:
                command = f"terminate {start.instance_id} --conn-id {self.connection}"
                lines.append(f"Terminate it: python -m airflow_provider_astrobpm {command}")
        return [*(lines or ["Nothing was started."]), ""]


def _finding_lines(finding: Finding) -> list[str]:
    lead = f"{MARKS[finding.fine]:<3}{finding.name:<27}"
    indent = " " * len(lead)
    sentence = wrap(
        finding.sentence,
        LINE_CHARACTERS,
        initial_indent=lead,
        subsequent_indent=indent,
        break_on_hyphens=False,
    )
    return [*sentence, *(f"{indent}{line}" for line in finding.evidence)]


def _start_as_json(start: SentStart) -> dict[str, str | None]:
    problem = start.problem if start.end is None else None
    return {"id": start.instance_id, "business_key": start.business_key, "end": start.end, "problem": problem}
