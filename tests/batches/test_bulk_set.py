"""Tests of setting variables of many instances: one request each, judged by its answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from airflow_provider_astrobpm.batches.bulk_change import BulkChange, change_all
from airflow_provider_astrobpm.client.async_client import AsyncBpmClient
from airflow_provider_astrobpm.client.errors import RefusedError, ThrottledError
from airflow_provider_astrobpm.client.settings import ClientCredentials, Settings
from airflow_provider_astrobpm.client.tokens import TokenCache
from airflow_provider_astrobpm.emulator.control_client import EmulatorControl
from airflow_provider_astrobpm.emulator.server_thread import EmulatorServer

BPM = "SupplierOnboarding"
COUNTRY = {"country": "CN"}


@pytest.fixture
def settings(emulator_server: EmulatorServer, emulator: EmulatorControl) -> Settings:
    del emulator  # only to reset it
    known = emulator_server.settings
    credentials = ClientCredentials(known.client_id, known.client_secret)
    return Settings("my_conn", emulator_server.url, credentials, max_attempts=1, instance_lookup="list")


@pytest.fixture
def ids(settings: Settings, emulator: EmulatorControl) -> list[str]:
    del settings
    return [emulator.start(BPM)["id"] for _ in range(10)]


SET: dict[str, Any] = {"action": "set", "variables": COUNTRY}


def run(settings: Settings, ids: list[str], **arguments: Any) -> BulkChange:
    async def main() -> BulkChange:
        async with AsyncBpmClient(settings, tokens=TokenCache()) as client:
            return await change_all(client, dict.fromkeys(ids), log=lambda _note: None, **arguments)

    return asyncio.run(main())


def countries(emulator: EmulatorControl) -> int:
    return sum(one["variables"].get("country") == "CN" for one in emulator.instances())


def test_sets_all_with_one_request_each(
    settings: Settings, ids: list[str], emulator: EmulatorControl
) -> None:
    change = run(settings, ids, **SET)
    assert change.note == "set: 10 done"
    assert countries(emulator) == emulator.counts()["variables"] == 10
    assert emulator.counts()["query"] == 0


def test_a_refusal_fails_one_and_is_not_in_doubt(
    settings: Settings, ids: list[str], emulator: EmulatorControl
) -> None:
    emulator.fault("variables", "status", status=403, res_msg="Not yours")
    change = run(settings, ids, **SET, max_concurrency=1)
    assert list(change.failed) == ids[:1]
    assert "Not yours" in change.failed[ids[0]]
    assert RefusedError.advice.removesuffix(".") in change.failed[ids[0]]
    assert not change.in_doubt
    assert sorted(change.done) == sorted(ids[1:])


def test_a_lost_answer_is_in_doubt(settings: Settings, ids: list[str], emulator: EmulatorControl) -> None:
    emulator.fault("variables", "drop_after")
    change = run(settings, ids, **SET, max_concurrency=1)
    assert change.in_doubt == set(change.failed) == {ids[0]}
    assert countries(emulator) == 10


def test_throttling_stops_the_run(settings: Settings, ids: list[str], emulator: EmulatorControl) -> None:
    emulator.fault("variables", "status", status=429, skip=3, times=100)
    change = run(settings, ids, **SET, max_concurrency=1)
    assert (len(change.done), len(change.not_tried)) == (3, 7)
    assert isinstance(change.stopped_by, ThrottledError)


@pytest.mark.parametrize("work", [SET, {"action": "terminate"}], ids=["set", "terminate"])
def test_stops_on_request_and_reports_its_progress(
    work: dict[str, Any], settings: Settings, ids: list[str]
) -> None:
    seen: list[tuple[int, int]] = []
    change = run(
        settings,
        ids,
        **work,
        max_concurrency=1,
        is_stopped=lambda: len(seen) == 5,
        progress=lambda so_far, through: seen.append((len(so_far.done), through)),
    )
    assert seen == [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)]
    assert sorted(change.done) == sorted(ids[:4])
    assert sorted(change.not_tried) == sorted(ids[4:])
    assert change.stopped_by is None


@pytest.mark.parametrize(
    ("some", "variables", "limits", "message"),
    [
        (["x", " "], COUNTRY, {}, "instance_id"),
        (["x"], {}, {}, "at least one variable"),
        (["x"], {"a": object()}, {}, "variables.'a'. cannot be sent"),
        (["x"], COUNTRY, {"max_concurrency": 0}, "max_concurrency"),
    ],
)
def test_bad_arguments_send_nothing(
    some: list[str], variables: Any, limits: Any, message: str, settings: Settings, emulator: EmulatorControl
) -> None:
    with pytest.raises(ValueError, match=message):
        run(settings, some, action="set", variables=variables, **limits)
    assert not any(emulator.counts().values())
