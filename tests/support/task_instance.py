"""A task instance without Airflow, with the context of its tries."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

    from tests.support.stores import TaskStateStore


class FakeTaskInstance:
    """As much of a task instance as operators, sensors and triggers use, through all its tries.

    :param task_id: the id of the task.
    :param try_number: the number of the current try; 0 if the first one has not begun.
    :param retries: the retries of the task.
    :param store: the task state store; ``None`` if Airflow has none.
    """

    dag_id, run_id, map_index = "dag", "run", -1

    def __init__(
        self,
        task_id: str = "task",
        *,
        try_number: int = 1,
        retries: int = 0,
        store: TaskStateStore | None = None,
    ) -> None:
        self.task_id = task_id
        self.try_number = try_number
        self.retries = self.max_tries = retries
        self.context: Any = {"ti": self}
        if store is not None:
            self.context["task_state_store"] = store
        self.xcoms: dict[str, Any] = {}
        self.pushed: list[tuple[str, Any]] = []
        self.rescheduled: datetime | None = None

    def xcom_push(self, key: str, value: Any) -> None:
        """Publish a value, which Airflow stores as JSON."""
        self.xcoms[key] = json.loads(json.dumps(value))
        self.pushed.append((key, self.xcoms[key]))

    def xcom_pull(self, *, task_ids: str, key: str, map_indexes: int) -> Any:
        """Return what this try has published."""
        assert (task_ids, map_indexes) == (self.task_id, self.map_index)
        return self.xcoms.get(key)

    def get_first_reschedule_date(self, _context: Any) -> datetime | None:
        """Return when this try was first rescheduled."""
        return self.rescheduled

    def begin_try(self) -> None:
        """Begin the next try. Airflow then removes the XComs of the last one."""
        self.try_number += 1
        self.xcoms = {}

    def clear(self, *, keep_task_state: bool = True) -> None:
        """Clear the task. The next try begins a new generation."""
        self.max_tries = self.try_number + self.retries
        if not keep_task_state:
            self.context["task_state_store"].clear()


def run(operator: Any, ti: FakeTaskInstance | None = None) -> Any:
    """Run a try of an operator, and return its result.

    :param operator: the operator.
    :param ti: its task instance; a new one by default.
    """
    return operator.execute((ti or FakeTaskInstance()).context)
