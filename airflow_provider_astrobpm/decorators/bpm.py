"""``@task.astro_bpm``: a function returns the variables, and its task starts a BPM instance with them and waits.

DAG files import this module at every parse, so the client and its libraries are imported only when a task runs.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import DecoratedOperator, conf, redact, task_decorator_factory

from airflow_provider_astrobpm._airflow.version_compat import determine_kwargs
from airflow_provider_astrobpm.operators.bpm.start import AstroZeroStartBpmInstanceOperator
from airflow_provider_astrobpm.tasks.arguments import is_default, task_named

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow.providers.common.compat.sdk import Context, TaskDecorator

TAKES_NO_VARIABLES = (
    "@task.astro_bpm takes no variables: they are what the function returns, and nothing else"
)
SHOWN = "shown_variables"
"""What a deferred task is given back for its page: the variables that its function had returned."""


class AstroZeroBpmDecoratedOperator(DecoratedOperator, AstroZeroStartBpmInstanceOperator):
    """The start operator, with the variables that a function returns.

    The function runs in every try before the start, and not when a deferred task resumes. What it returns is sent as it is:
    no template in it is rendered, because it is data, not part of the DAG file.

    :param python_callable: the function; it returns a mapping of names to JSON values, or ``None`` for no variables.

    The other parameters are those of ``AstroZeroStartBpmInstanceOperator``, but for ``variables``.
    """

    template_fields: Sequence[str] = (
        *DecoratedOperator.template_fields,
        *AstroZeroStartBpmInstanceOperator.template_fields,
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **AstroZeroStartBpmInstanceOperator.template_fields_renderers,
    }
    custom_operator_name = "@task.astro_bpm"
    variables: Any = None
    """What the function has returned. No template: it is checked where it is sent, and may be shown cut off."""
    overwrite_rtif_after_execution = True
    """Lets Airflow show the variables among the rendered fields, which it stores before they are known."""

    def __init__(self, *, python_callable: Callable[..., Any], **kwargs: Any) -> None:
        with task_named(kwargs.get("task_id")):
            if inspect.iscoroutinefunction(python_callable) or inspect.isgeneratorfunction(python_callable):
                raise ValueError("@task.astro_bpm takes a plain function, which returns the variables")
        super().__init__(python_callable=python_callable, **kwargs)
        if self.variables is not None:
            if not is_default(kwargs.get("default_args"), "variables", self.variables):
                raise ValueError(f"Task {self.task_id!r}: {TAKES_NO_VARIABLES}")
            self.variables = None
            self._given -= {"variables"}

    def execute(self, context: Context) -> dict[str, Any]:
        """Call the function, and start the instance, or go on with what an earlier try has started."""
        self.variables = self._returned(context)
        # Not that of DecoratedOperator: it has nothing to do for a dict, and on Airflow 3.0 works for Python alone.
        return AstroZeroStartBpmInstanceOperator.execute(self, context)

    def defer(self, *, kwargs: dict[str, Any] | None = None, **arguments: Any) -> Any:
        """Defer the task, and keep for its page what the function has returned: it is not called again."""
        return super().defer(kwargs={**(kwargs or {}), SHOWN: self._to_show()}, **arguments)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after a deferral."""
        arguments = dict(next_kwargs or {})
        self.variables = arguments.pop(SHOWN, None)
        return super().resume_execution(next_method, arguments, context)

    def _returned(self, context: Context) -> Mapping[str, Any] | None:
        known: Any = {**context, **self.op_kwargs}
        wanted = determine_kwargs(self.python_callable, self.op_args, known)
        returned = self.python_callable(*self.op_args, **wanted)
        if returned is None or isinstance(returned, Mapping):
            return returned
        name = getattr(self.python_callable, "__name__", "the function")
        raise ValueError(
            f"{name} must return the variables as a mapping of names to JSON values, or None for none, "
            f"not {type(returned).__name__}"
        )

    def _to_show(self) -> Any:
        """Return the variables as Airflow shows them: without secrets that it knows, and cut off where they are long."""
        if not isinstance(self.variables, Mapping):
            return self.variables
        text = json.dumps(redact(dict(self.variables), "variables"))
        limit = conf.getint("core", "max_templated_field_length")
        # As plain JSON, which a deferral can certainly keep.
        return json.loads(text) if len(text) <= limit else text[: limit + 1]


def astro_bpm_task(
    python_callable: Callable[..., Any] | None = None, *, multiple_outputs: bool = False, **kwargs: Any
) -> TaskDecorator:
    """Make a task of a function that returns the variables of a BPM instance: ``@task.astro_bpm(bpm_name=...)``.

    :param python_callable: the function.
    :param multiple_outputs: whether each field of the instance is an XCom of its own. What the function says that it
        returns does not decide that, as it does elsewhere: it is not what the task returns.
    :param kwargs: the arguments of ``AstroZeroStartBpmInstanceOperator``, but for ``variables``.
    :raises ValueError: for ``variables``.
    """
    if "variables" in kwargs:
        task_id = kwargs.get("task_id") or getattr(python_callable, "__name__", None)
        with task_named(task_id):
            raise ValueError(TAKES_NO_VARIABLES)
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=multiple_outputs,
        decorated_operator_class=AstroZeroBpmDecoratedOperator,
        **kwargs,
    )
