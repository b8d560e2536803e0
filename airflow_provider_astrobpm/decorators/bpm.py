"""``@task.astro_bpm``: the task starts a BPM instance with the variables that a function returns, and waits for it.

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
from airflow_provider_astrobpm.task_base.task_arguments import errors_name_task, is_default

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow.providers.common.compat.sdk import Context, TaskDecorator

NO_VARIABLES_MESSAGE = "@task.astro_bpm takes no variables: the function returns them"
SHOWN_VARIABLES = "shown_variables"
"""The key of the variables in the arguments of a resumed task, which shows them on its page."""


class AstroZeroBpmDecoratedOperator(DecoratedOperator, AstroZeroStartBpmInstanceOperator):
    """The start operator, with the variables that a function returns.

    The function runs in every try before the start, and not when a deferred task resumes. Its return value is sent unchanged.
    Templates in it are not rendered, because it is data and not part of the DAG file.

    :param python_callable: the function. It returns a mapping of names to JSON values, or ``None`` for no variables.

    The other parameters are those of ``AstroZeroStartBpmInstanceOperator``, except ``variables``.
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
    """The return value of the function. Not a template: it is checked when it is sent, and may be shown truncated."""
    overwrite_rtif_after_execution = True
    """Makes Airflow store the rendered fields again after the execution, when the variables are known."""

    def __init__(self, *, python_callable: Callable[..., Any], **kwargs: Any) -> None:
        with errors_name_task(kwargs.get("task_id")):
            if inspect.iscoroutinefunction(python_callable) or inspect.isgeneratorfunction(python_callable):
                raise ValueError("@task.astro_bpm takes a plain function, which returns the variables")
        super().__init__(python_callable=python_callable, **kwargs)
        if self.variables is not None:
            if not is_default(kwargs.get("default_args"), "variables", self.variables):
                raise ValueError(f"Task {self.task_id!r}: {NO_VARIABLES_MESSAGE}")
            self.variables = None
            self._provided_args -= {"variables"}

    def execute(self, context: Context) -> dict[str, Any]:
        """Call the function, then start the instance or resume the one of an earlier try."""
        self.variables = self._call_function(context)
        # Not DecoratedOperator.execute: it does nothing for a dict, and on Airflow 3.0 it works only for Python operators.
        return AstroZeroStartBpmInstanceOperator.execute(self, context)

    def defer(self, *, kwargs: dict[str, Any] | None = None, **arguments: Any) -> Any:
        """Defer the task, and keep the variables for its page, because the function is not called again."""
        return super().defer(kwargs={**(kwargs or {}), SHOWN_VARIABLES: self._shown_variables()}, **arguments)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after a deferral."""
        arguments = dict(next_kwargs or {})
        self.variables = arguments.pop(SHOWN_VARIABLES, None)
        return super().resume_execution(next_method, arguments, context)

    def _call_function(self, context: Context) -> Mapping[str, Any] | None:
        known: Any = {**context, **self.op_kwargs}
        wanted = determine_kwargs(self.python_callable, self.op_args, known)
        returned = self.python_callable(*self.op_args, **wanted)
        if returned is None or isinstance(returned, Mapping):
            return returned
        name = getattr(self.python_callable, "__name__", "the function")
        raise ValueError(
            f"{name} must return the variables as a mapping of names to JSON values, or None, "
            f"not {type(returned).__name__}"
        )

    def _shown_variables(self) -> Any:
        """Return the variables as Airflow shows them: known secrets are masked, and long texts are truncated."""
        if not isinstance(self.variables, Mapping):
            return self.variables
        text = json.dumps(redact(dict(self.variables), "variables"))
        limit = conf.getint("core", "max_templated_field_length")
        # Plain JSON, which a deferral can keep.
        return json.loads(text) if len(text) <= limit else text[: limit + 1]


def astro_bpm_task(
    python_callable: Callable[..., Any] | None = None, *, multiple_outputs: bool = False, **kwargs: Any
) -> TaskDecorator:
    """Make a task from a function that returns the variables of a BPM instance: ``@task.astro_bpm(bpm_name=...)``.

    :param python_callable: the function.
    :param multiple_outputs: whether each field of the instance becomes a separate XCom. The return annotation of the function
        does not decide this, because the task does not return what the function returns.
    :param kwargs: the arguments of ``AstroZeroStartBpmInstanceOperator``, except ``variables``.
    :raises ValueError: if ``variables`` is given.
    """
    if "variables" in kwargs:
        task_id = kwargs.get("task_id") or getattr(python_callable, "__name__", None)
        with errors_name_task(task_id):
            raise ValueError(NO_VARIABLES_MESSAGE)
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=multiple_outputs,
        decorated_operator_class=AstroZeroBpmDecoratedOperator,
        **kwargs,
    )
