"""What happens to the instances of waits, and how the waits must end."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_astrobpm.emulator import EmulatorControl

PROCESS = "PublishApproval"

# What happens to an instance, how its wait must end, and how frequent that is.
FATES = {
    "approve": ("done: Completed OK, Approved", 60),
    "reject": ("failed: Completed OK, Rejected", 25),
    "break": ("failed: Broken, Submitted", 10),
    "vanish": ("not found", 5),
}


def meet_fate(control: EmulatorControl, instance_id: str, fate: str) -> None:
    """Let happen to an instance what is to happen."""
    if fate == "break":
        control.break_instance(instance_id)
    elif fate == "vanish":
        control.vanish(instance_id)
    else:
        control.act(instance_id, fate)
