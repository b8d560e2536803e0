"""The drivers of generators, sync and async, by the same table."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import pytest

from airflow_provider_astrobpm.client.drivers import drive, drive_async, in_thread
from airflow_provider_astrobpm.client.errors import AstroZeroError

Run = Callable[..., Any]


def run_async(steps: Generator[Any, Any, Any], answer: Callable[[Any], Any], *failures: Any) -> Any:
    async def answer_later(step: Any) -> Any:
        await asyncio.sleep(0)
        return answer(step)

    return asyncio.run(drive_async(steps, answer_later, *failures))


@pytest.fixture(params=[drive, run_async], ids=["sync", "async"])
def run(request: pytest.FixtureRequest) -> Run:
    return request.param  # type: ignore[no-any-return]


def adding(*steps: int) -> Generator[int, int, int]:
    total = 0
    for step in steps:
        total += yield step
    return total


def test_sends_each_reply_and_returns_the_result(run: Run) -> None:
    assert run(adding(1, 2, 3), lambda step: step * 10) == 60
    assert run(adding(), pytest.fail) == 0


def failing(error: BaseException) -> Callable[[Any], Any]:
    def answer(_step: Any) -> Any:
        raise error

    return answer


def forgiving() -> Generator[str, Any, str]:
    try:
        yield "first"
    except BaseException as error:  # noqa: BLE001 - the test is about all of them
        caught = type(error).__name__
    else:
        caught = "nothing"
    return f"{caught}, {(yield 'second')}"


def test_throws_failures_into_the_generator(run: Run) -> None:
    def answer(step: str) -> str:
        if step == "first":
            raise AstroZeroError("x")
        return "answered"

    assert run(forgiving(), answer) == "AstroZeroError, answered"


@pytest.mark.parametrize(
    ("error", "failures"),
    [(ValueError("x"), ()), (AstroZeroError("x"), (ValueError,))],
    ids=["default", "chosen"],
)
def test_other_errors_end_the_run(run: Run, error: Exception, failures: tuple[Any, ...]) -> None:
    with pytest.raises(type(error)) as caught:
        run(forgiving(), failing(error), *failures)
    assert caught.value is error


def test_errors_of_the_generator_end_the_run(run: Run) -> None:
    def steps() -> Generator[None, Any, None]:
        yield None
        raise AstroZeroError("its own")

    with pytest.raises(AstroZeroError, match="its own"):
        run(steps(), lambda _step: None)


def test_stop_iteration_of_an_answer_is_no_result(run: Run) -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        run(adding(1), failing(StopIteration(7)), BaseException)


def test_cancellation_reaches_a_generator_that_asks_for_it() -> None:
    caught: list[type[BaseException]] = []

    def steps() -> Generator[None, Any, None]:
        try:
            yield None
        except BaseException as error:
            caught.append(type(error))
            raise

    async def answer(_step: None) -> None:
        await asyncio.sleep(3600)

    async def main() -> None:
        task = asyncio.create_task(drive_async(steps(), answer, BaseException))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert caught == [asyncio.CancelledError]


def test_heavy_replies_are_taken_in_a_thread() -> None:
    threads: list[bool] = []

    def steps() -> Generator[int, int, str]:
        for size in (1, 100, 2):
            yield size
            threads.append(threading.current_thread() is not threading.main_thread())
        yield 200
        return "done"

    def answer(step: int) -> Awaitable[int]:
        return asyncio.sleep(0, step)

    run = drive_async(steps(), answer, is_heavy=lambda reply: (reply or 0) >= 100)
    assert asyncio.run(run) == "done"
    assert threads == [False, True, False]


class TestInThread:
    """A function is called once, whether or not a thread can be started."""

    def test_without_a_thread_it_is_called_in_the_event_loop(self, monkeypatch: pytest.MonkeyPatch) -> None:
        threads: list[int] = []

        def note_thread() -> int:
            threads.append(threading.get_ident())
            return len(threads)

        def refuse(_thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        async def main() -> None:
            with monkeypatch.context() as patch:
                patch.setattr(threading.Thread, "start", refuse)
                assert await in_thread(note_thread) == 1
            assert await in_thread(note_thread) == 2  # by the thread that finds the first call in its queue
            own, another = threads
            assert own == threading.get_ident() != another

        asyncio.run(main())

    def test_a_thread_that_took_it_all_the_same_does_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        calls: list[int] = []
        began, may_end = threading.Event(), threading.Event()

        def work() -> str:
            calls.append(threading.get_ident())
            began.set()
            assert may_end.wait(30)
            return "done"

        async def main() -> str:
            loop = asyncio.get_running_loop()

            def refuse(_executor: None, call: Callable[..., Any], *arguments: Any) -> None:
                threading.Thread(target=call, args=arguments).start()
                assert began.wait(30)
                loop.call_soon(may_end.set)
                raise RuntimeError("can't start new thread")

            monkeypatch.setattr(loop, "run_in_executor", refuse)
            result = await in_thread(work)
            monkeypatch.undo()
            return result

        assert asyncio.run(main()) == "done"
        assert len(calls) == 1

    def test_its_own_error_is_raised(self) -> None:
        calls: list[object] = []

        def fail(argument: object) -> None:
            calls.append(argument)
            raise RuntimeError("its own")

        with pytest.raises(RuntimeError, match="its own"):
            asyncio.run(in_thread(fail, 7))
        assert calls == [7]
