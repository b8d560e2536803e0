"""What a process remembers, and how it forgets all of it."""

from __future__ import annotations

import asyncio
import os

import pytest

from airflow_provider_astrobpm._airflow import stats, user_action
from airflow_provider_astrobpm.client import process_state, search
from airflow_provider_astrobpm.client.operations import TokenAnswer
from airflow_provider_astrobpm.client.settings import ClientCredentials, Settings
from airflow_provider_astrobpm.client.tokens import TOKENS
from airflow_provider_astrobpm.triggers import base
from airflow_provider_astrobpm.waiting.poller import POLLERS

SETTINGS = Settings("c", "https://forget.me", ClientCredentials("user", "secret"))


def test_reset_forgets_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_action, "task_state", lambda _task: "deferred")

    async def remember_and_reset() -> None:
        TOKENS.get(SETTINGS, lambda: TokenAnswer("old", 3600, "form"))
        search.traits_of_endpoint(SETTINGS.base_url).reads_by_id = True
        stats.METER.count("polls")
        poller = POLLERS.get(SETTINGS, lambda _: None)  # type: ignore[arg-type,return-value]
        user_action.warm_up(user_action.TaskInstanceRef("dag", "run", "task", -1))
        (warm_up,) = user_action._WARM_UPS
        base.RUNNING_KILLS.add(warm_up)
        process_state.reset()
        assert TOKENS.get(SETTINGS, lambda: TokenAnswer("new", 3600, "form")) == "new"
        assert search.traits_of_endpoint(SETTINGS.base_url).reads_by_id is None
        assert stats.METER.take() == ({}, {})
        assert POLLERS.get(SETTINGS, lambda _: None) is not poller  # type: ignore[arg-type,return-value]
        assert not user_action._WARM_UPS
        assert not base.RUNNING_KILLS
        await warm_up

    asyncio.run(remember_and_reset())
    process_state.reset()


def test_a_forked_process_forgets_only_what_its_parent_alone_may_use() -> None:
    registered: list[str] = []
    forgetters = list(process_state._FORGETTERS)
    try:
        process_state.register(lambda: registered.append("always"))
        process_state.register(lambda: registered.append("after a fork"), after_fork=True)
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.write(writer, ",".join(registered).encode())
            os._exit(0)
        os.close(writer)
        assert os.read(reader, 100) == b"after a fork"
        os.close(reader)
    finally:
        process_state._FORGETTERS[:] = forgetters
    assert registered == []
