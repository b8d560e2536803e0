"""Gates in mapped task groups, on real Airflow: which forms keep a rejected item from being published, and which do not."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_provider_astrobpm.testing.emulator_fixture import AstroZeroEmulator

DAGS = Path(__file__).parent / "dags" / "mapped_gates.py"
BPM = "PublishApproval"

pytestmark = [
    pytest.mark.usefixtures("airflow_database"),
    pytest.mark.filterwarnings("ignore"),  # Airflow and its libraries emit their own warnings here
]
Run = Callable[[str], tuple[str, dict[str, list[str | None]]]]


@pytest.fixture
def run(emulator: AstroZeroEmulator, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a DAG of ``dags/`` where the second item is rejected; return its state and the states of its tasks for each item."""
    bundle = {
        "name": "mapped_gates",
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": str(DAGS.parent)},
    }
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps([bundle]))
    spec = importlib.util.spec_from_file_location("mapped_gates", DAGS)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    emulator.decides(BPM, "approve")
    emulator.decides(BPM, "reject", where={"dataset": "stock"})

    def run(dag_id: str) -> tuple[str, dict[str, list[str | None]]]:
        result = emulator.run(module.DAGS[dag_id])
        states: dict[str, list[str | None]] = {}
        for name, state in sorted(result.tasks.items()):
            states.setdefault(name.partition("[")[0].rpartition(".")[2], []).append(state)
        return result.state, states

    return run


@pytest.mark.parametrize("where", ["on_worker", "deferred"])
class TestRejectedItem:
    def test_is_not_published_if_the_gate_names_the_success(self, where: str, run: Run) -> None:
        assert run(f"statuses_{where}") == (
            "failed",
            {
                "approval": ["success", "failed", "success"],
                "publish": ["success", "upstream_failed", "success"],
            },
        )

    def test_is_not_published_if_a_separate_task_skips(self, where: str, run: Run) -> None:
        assert run(f"skip_{where}") == (
            "success",
            {
                "approval": ["success"] * 3,
                "gate": ["success", "skipped", "success"],
                "publish": ["success", "skipped", "success"],
            },
        )

    @pytest.mark.parametrize("form", ["branch", "circuit"])
    def test_is_published_if_airflow_should_skip_downstream_tasks(
        self, form: str, where: str, run: Run
    ) -> None:
        """This is a fault of Airflow. Once it is fixed, the guides need no warning."""
        state, states = run(f"{form}_{where}")
        assert (state, states["publish"]) == ("success", ["success"] * 3)


@pytest.mark.parametrize("gate", ["empty", "empty_group"])
@pytest.mark.parametrize(
    ("rule", "published"),
    [("all_success", "skipped"), ("none_failed", "success"), ("none_failed_min_one_success", "skipped")],
)
def test_gate_over_an_empty_list_is_skipped(
    gate: str, rule: str, published: str, run: Run, emulator: AstroZeroEmulator
) -> None:
    """So ``none_failed`` publishes although no approval was requested."""
    state, states = run(f"{gate}_{rule}")
    assert state == "success"
    assert states == {"approval": ["skipped"], "items": ["success"], "publish": [published]}
    assert emulator.counts()["start"] == 0
