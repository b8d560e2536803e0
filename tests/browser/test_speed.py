"""The response time of the page with a thousand instances."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING

import pytest
import requests

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_astrobpm.emulator import EmulatorControl
    from tests.browser.conftest import Visit

pytestmark = pytest.mark.browser

INSTANCES = 1_000
SAMPLES = 9
MAX_RESPONSE_SECONDS, MAX_UPDATE_SECONDS = 0.1, 0.2

# Returns when the business status of a row changes, in milliseconds since the epoch.
WATCH = """
id => new Promise(found => {
  const cell = document.getElementById(`row-${id}`).querySelector('[data-label="Business status"]');
  const observer = new MutationObserver(() => { observer.disconnect(); found(Date.now()); });
  observer.observe(cell, {characterData: true, childList: true, subtree: true});
})
"""


def test_a_thousand_instances_are_shown_and_updated_quickly(
    visit: Visit, control: EmulatorControl, measured: Callable[[str, float], None]
) -> None:
    for number in range(INSTANCES):
        newest = control.start("PublishApproval", {"dataset": "d"}, f"key-{number}")["id"]
    answered = []
    with requests.Session() as session:
        session.trust_env = False
        for _ in range(SAMPLES):
            begun = time.perf_counter()
            answer = session.get(f"{control.url}/", timeout=10)
            answered.append(time.perf_counter() - begun)
    assert f"The newest 100 of {INSTANCES:,} instances" in answer.text
    page = visit()
    page.get_by_role("row", name=f"key-{INSTANCES - 1}").wait_for()
    shown = []
    for number in range(SAMPLES):
        page.evaluate(f"window.changed = ({WATCH})('{newest}'); 0")
        begun = time.time()
        control.move(newest, bp_status=f"status {number}")
        shown.append(page.evaluate("window.changed") / 1000 - begun)
    measured(f"until the page answers, with {INSTANCES:,} instances", median(answered))
    measured(f"until a change shows in the browser, with {INSTANCES:,} instances", median(shown))
    assert median(answered) < MAX_RESPONSE_SECONDS, answered
    assert median(shown) < MAX_UPDATE_SECONDS, shown
