"""What differs between the lines of Airflow, and what a test has to observe on each of them.

Each row is observed by one test on the running Airflow of a line. ``docs/versions.md`` shows the text of a cell only if its test
has observed the value on that line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Cell:
    """What holds on a line.

    :param value: the value that the test observes.
    :param text: the words of the page.
    """

    value: Any
    text: str


@dataclass(frozen=True)
class Row:
    """One difference.

    :param title: the first cell of the page's row.
    :param since: the cells by the line that brought them; a cell holds until the next one.
    """

    title: str
    since: dict[str, Cell]

    def cell(self, line: str) -> Cell:
        """Return what holds on a line."""
        return self.since[max(each for each in self.since if each <= line)]


FAILS, RESUMES = "fails", "resumes"
TERMINATES = "terminates and starts another"
HANGS = "hangs"
LEAVES = "leaves it open and starts another"
KEPT, DISCARDED = "kept", "discarded"  # whether a clear of a task on Airflow 3.4 keeps what it has recorded
WHOLE = "whole"  # a clear of the whole run
BOX = "if you tick [*Keep task state and resume*](guarantees.md#on-airflow-34)"

ROWS: dict[str, Row] = {
    "pythons": Row(
        "Pythons that Airflow declares",
        {
            "3.0": Cell("3.9 to 3.12", "3.10 to 3.12 (Airflow: from 3.9)"),
            "3.1": Cell("3.10 to 3.13", "3.10 to 3.13"),
            "3.2": Cell("3.10 to 3.14", "3.10 to 3.14"),
            "3.4": Cell("3.11 to 3.14", "3.11 to 3.14"),
        },
    ),
    "gate opens": Row(
        "a deferred gate opens when a person approves, and holds no worker before",
        {"3.0": Cell("success", "yes")},
    ),
    "gate fails": Row(
        "a gate that a person rejects fails, and what follows does not run",
        {"3.0": Cell(["failed", "upstream_failed"], "yes")},
    ),
    "lost answer": Row(
        "a start whose answer was lost: the retry finds the one instance",
        {"3.0": Cell([1, "success"], "yes")},
    ),
    "command": Row(
        "[command line](command-line.md)",
        {
            "3.0": Cell([True, False], "`python -m airflow_provider_astrobpm`"),
            "3.2": Cell([True, True], "also `airflow astro-zero`"),
        },
    ),
    "form": Row(
        "extras in [the form of a connection](connection.md#extras)",
        {"3.0": Cell(False, "as JSON in *Extra*"), "3.2": Cell(True, "a field for each")},
    ),
    "record": Row(
        "[record of a start](guarantees.md#how)",
        {
            "3.0": Cell(False, "none: a retry finds its instance by the business key"),
            "3.3": Cell(True, "in Airflow's task state store"),
        },
    ),
    "killed": Row(
        "a task whose process is killed although its worker lives",
        {
            "3.0": Cell("fails", "fails, also if it has retries left; its instance stays open"),
            "3.1": Cell("resumes", "is retried, and resumes its instance"),
        },
    ),
    "own key": Row(
        "retry after a crash in the wait, with [your own `business_key`](guarantees.md#with-your-own-business_key)",
        {
            "3.0": Cell(FAILS, "fails with `AmbiguousStartError`: it does not know whose instance it is"),
            "3.3": Cell(RESUMES, "resumes its instance, whose id it knows"),
        },
    ),
    "own key, lost answer": Row(
        "retry after a crash before the answer to the start, with your own `business_key`",
        {"3.0": Cell(FAILS, "fails with `AmbiguousStartError`")},
    ),
    "clear": Row(
        "[clear](guarantees.md#clears) after a failed wait",
        {
            "3.0": Cell({KEPT: TERMINATES}, "terminates what is open, and starts another instance"),
            "3.3": Cell({KEPT: RESUMES}, "resumes the instance that the wait has left open"),
            "3.4": Cell(
                {KEPT: RESUMES, DISCARDED: TERMINATES, WHOLE: RESUMES},
                f"as on 3.3 {BOX} or clear the whole run, otherwise as on 3.0",
            ),
        },
    ),
    "clear of a batch": Row(
        "clear of a failed [batch](batch.md#retries-and-clears)",
        {
            "3.0": Cell({KEPT: TERMINATES}, "terminates what is open, and begins a new batch"),
            "3.3": Cell({KEPT: RESUMES}, "continues the batch"),
            "3.4": Cell(
                {KEPT: RESUMES, DISCARDED: TERMINATES, WHOLE: RESUMES},
                "as on 3.3 if you tick that box or clear the whole run, otherwise as on 3.0",
            ),
        },
    ),
    "clear, own key": Row(
        "clear after a failed wait, with [your own `business_key`](guarantees.md#with-your-own-business_key)",
        {
            "3.0": Cell({KEPT: LEAVES}, "leaves the instance open, and starts another"),
            "3.3": Cell({KEPT: RESUMES}, "resumes the instance"),
            "3.4": Cell(
                {KEPT: RESUMES, DISCARDED: LEAVES}, "as on 3.3 if you tick that box, otherwise as on 3.0"
            ),
        },
    ),
    "clear of a batch, own keys": Row(
        "clear of a failed batch whose launches have your own keys",
        {
            "3.0": Cell({KEPT: LEAVES}, "leaves what is open, and begins a new batch"),
            "3.3": Cell({KEPT: RESUMES}, "continues the batch"),
            "3.4": Cell(
                {KEPT: RESUMES, DISCARDED: LEAVES}, "as on 3.3 if you tick that box, otherwise as on 3.0"
            ),
        },
    ),
    "clear on a worker": Row(
        "clear while the task runs on a worker",
        {
            "3.0": Cell(
                HANGS,
                "terminates the instance; Airflow then leaves the task in `restarting` until you clear it again",
            ),
            "3.1": Cell("a clear", "counts as a clear"),
        },
    ),
    "clear in doubt": Row(
        "clear after an [`AmbiguousStartError`](guarantees.md#resolving-an-ambiguousstarterror), if a search proves nothing",
        {
            "3.0": Cell({KEPT: "refuses"}, "fails again"),
            "3.3": Cell({KEPT: "starts"}, "starts an instance"),
            "3.4": Cell(
                {KEPT: "starts", DISCARDED: "refuses"}, "as on 3.3 if you tick that box, otherwise as on 3.0"
            ),
        },
    ),
    "retries change": Row(
        "changing `retries` during a run",
        {
            "3.0": Cell(TERMINATES, "may look like a clear: terminates the instance, and starts another one"),
            "3.3": Cell(RESUMES, "changes nothing: resumes the instance"),
        },
    ),
    "deadline": Row(
        "[deadline](waiting.md#the-deadline) of a retry after a crash",
        {"3.0": Cell("begins again", "begins again"), "3.3": Cell("is kept", "is kept")},
    ),
    "user": Row(
        "[a user ends a deferred task](waiting.md#when-a-user-ends-the-task)",
        {
            "3.0": Cell(
                ["Terminated", False],
                "terminates the instance; Airflow cancels the trigger without a reason, and the provider reads the task's state",
            ),
            "3.3": Cell(
                ["Terminated", True],
                "terminates the instance; Airflow also calls the trigger's `on_kill`, which does not prove it",
            ),
        },
    ),
    "taken over": Row(
        "another triggerer takes over a wait, and the first one comes back",
        {
            "3.0": Cell(["waits", False], "nothing happens to the instance"),
            "3.3": Cell(["waits", True], "nothing happens to the instance, although Airflow calls `on_kill`"),
            "3.4": Cell(["waits", False], "nothing happens to the instance; `on_kill` is not called"),
        },
    ),
    "closed": Row(
        '[`if_closed="fail"`](steer.md): a retry after the task\'s own action ended the instance',
        {"3.0": Cell("failed", "fails with `InstanceClosedError`"), "3.3": Cell("success", "succeeds")},
    ),
    "watcher": Row(
        "[asset watcher](asset-events.md#what-it-promises): what ends while no triggerer runs",
        {"3.0": Cell(False, "is not reported"), "3.3": Cell(True, "is reported when a triggerer runs again")},
    ),
    "policy": Row(
        "[retry policy](retries.md)",
        {
            "3.0": Cell(
                ["RuntimeError", "up_for_retry"], "none: `astro_zero_retry_policy()` raises a `RuntimeError`"
            ),
            "3.3": Cell([None, "failed"], "yes: a refused start is not retried"),
        },
    ),
    "outage": Row(
        "a start that fails in [an outage](retries.md#outages-on-airflow-34)",
        {
            "3.0": Cell("up_for_retry", "is retried"),
            "3.4": Cell("up_for_reschedule", "is rescheduled by the retry policy, which uses up no retry"),
        },
    ),
    "queue": Row(
        "[`queue` of an asset watcher's trigger](asset-events.md#where-it-runs)",
        {
            "3.0": Cell("ValueError", "refused with a `ValueError`"),
            "3.4": Cell(None, "the triggerers with this name in `--queues` run it"),
        },
    ),
    "alerts": Row(
        "[notifier for a deadline](incidents.md#deadlines)",
        {
            "3.0": Cell([None, []], "none: Airflow has no deadlines"),
            "3.1": Cell(
                ["airflow.sdk.definitions.deadline", []],
                "Airflow has deadlines; import the names from `airflow.sdk.definitions.deadline`. Not tried",
            ),
            "3.2": Cell(
                ["airflow.sdk", ["AsyncCallback", "SyncCallback"]],
                "with both kinds of callback; import the names from `airflow.sdk`",
            ),
        },
    ),
    "metrics": Row(
        "[`legacy_names_on`](observability.md#metrics), which leaves out the second names of metrics",
        {"3.0": Cell(False, "no"), "3.2": Cell(True, "yes")},
    ),
    "approvals": Row(
        "[the example with Airflow's own approval](approvals.md#use-both)",
        {
            "3.0": Cell(False, "cannot be imported, and stops the DAG processor if it is in the DAGs folder"),
            "3.1": Cell(True, "can be imported"),
        },
    ),
    "loops": Row(
        "[task loops](guarantees.md#on-airflow-34)",
        {"3.0": Cell(False, "none"), "3.4": Cell(True, "each iteration has instances of its own")},
    ),
    "dag.test": Row(
        "[`dag.test()` of a deferred batch](testing-your-dags.md#what-such-a-test-does-not-show)",
        {"3.0": Cell(False, "does not work"), "3.1": Cell(True, "works")},
    ),
}
