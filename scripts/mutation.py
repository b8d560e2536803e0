"""Change the modules that decide, one place at a time, and see whether their tests notice; ``python scripts/mutation.py``.

Airflow is imported once. Every mutant has a process of its own, forked from one that has collected the tests already, and runs
only those that reach the changed lines, the fastest first. A change outside of functions takes effect at the import, so its
process collects the tests itself. ``--write`` writes ``docs/testing.md``. The exit code is 1 if a mutant survives for which
``docs/mutants.toml`` gives no reason.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.machinery
import inspect
import json
import math
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import coverage
import pytest

from decisions import DECISIONS
from mutants import compiled, mutants_of
from testing_page import scores_of, table_of, unargued, write_mutation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, FunctionType

    from mutants import Mutant

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "airflow_provider_astrobpm"
KILLED, SURVIVED, TIMED_OUT, RELOAD = "killed", "survived", "timed out", "to be imported"
BROKEN, UNSWAPPABLE = 70, 71
"""The exit statuses of a process that says nothing about its mutant, and of one whose mutant needs an import."""
PYTEST = ["-q", "-x", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
"""The arguments of each run. Assertions of hypothesis are not rewritten, because it is imported already."""
MIN_SECONDS = 10.0  # of CPU that the tests of one mutant may take, or ten times as much as without it
IMPORT_SECONDS = 120.0  # the same, if it takes effect at the import
STUCK_SECONDS = 600.0  # after which a process that does not use its CPU time counts as timed out, too
TICK_SECONDS = 0.005
PRELOADED = ("airflow.models.dag", "airflow.sdk", "hypothesis", "requests", "tenacity", "msgspec", "pydantic")
"""What takes long to import, and is the same for every mutant."""


class Source:
    """A module as it is written, and with a mutant."""

    def __init__(self, name: str, root: Path = ROOT) -> None:
        self.name = f"{PACKAGE}.{name}"
        self.path = root / PACKAGE / f"{name.replace('.', '/')}.py"
        self.text = self.path.read_text(encoding="utf-8")
        self.mutants = mutants_of(self.text)

    def code(self, mutant: Mutant) -> CodeType:
        """Return the code of the module with a mutant."""
        return compiled(self.text, str(self.path), mutant)

    def swap_in(self, mutant: Mutant) -> None:
        """Put a mutant into the function of the imported module that it changes."""
        code, live = self.code(mutant), importlib.import_module(self.name).__dict__
        for name in mutant.scope:
            code = next(one for one in code.co_consts if getattr(one, "co_name", None) == name)
            found = live[name]
            live = getattr(found, "__dict__", {})
        _function(found).__code__ = code

    def load_with(self, mutant: Mutant) -> None:
        """Let the import of the module, which must not have happened yet, return a mutant."""
        code, get_code = self.code(mutant), importlib.machinery.SourceFileLoader.get_code

        def mutated(loader: Any, fullname: str) -> Any:
            return code if fullname == self.name else get_code(loader, fullname)

        importlib.machinery.SourceFileLoader.get_code = mutated  # type: ignore[method-assign]


def _function(found: Any) -> FunctionType:
    inner = getattr(found, "fget", None) or getattr(found, "func", None) or getattr(found, "__func__", found)
    function: FunctionType = inspect.unwrap(inner)
    return function


class SteadyHypothesis:
    """A pytest plugin that makes hypothesis try the same examples for every mutant, and keep none."""

    def pytest_configure(self) -> None:
        """Replace the profile of the tests."""
        import hypothesis  # noqa: PLC0415

        no_shrinking = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
        hypothesis.settings.register_profile(
            "mutation", deadline=None, database=None, derandomize=True, phases=no_shrinking
        )
        hypothesis.settings.load_profile("mutation")


class Session:
    """A pytest plugin that runs all mutants of some modules instead of the tests, which it has collected.

    :param sources: the modules.
    :param chosen: the mutants to run, with the places of their modules.
    :param jobs: how many processes at a time.
    """

    def __init__(self, sources: list[Source], chosen: list[tuple[int, Mutant]], jobs: int) -> None:
        self.sources, self.chosen, self.jobs = sources, chosen, jobs
        self.outcomes: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """End the process of a mutant at the first test that notices it."""
        if report.failed:
            os._exit(1)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Find out which lines each test reaches, then run the mutants."""
        items = session.items
        reached: dict[str, Any] = json.loads(_answer(lambda: json.dumps(self._reached(items))))
        work: list[Callable[[], None]] = []
        limits = []
        for place, mutant in self.chosen:
            source = self.sources[place]
            lines = reached["lines"][place]
            hit = {one for line in range(mutant.lines[0], mutant.lines[1] + 1) for one in lines.get(str(line), ())}
            tests = sorted(hit, key=lambda one: reached["seconds"][one])
            limits.append(max(MIN_SECONDS, 10 * sum(reached["seconds"][one] for one in tests)))
            work.append(lambda source=source, mutant=mutant, tests=tests: self._run(source, mutant, [items[one] for one in tests]))  # type: ignore[misc]
        self.outcomes = run_all(work, limits, self.jobs)
        return True

    def _reached(self, items: list[pytest.Item]) -> dict[str, Any]:
        paths = [str(source.path) for source in self.sources]
        measured = coverage.Coverage(data_file=None, include=paths, config_file=False)
        seconds = []
        measured.start()
        for number, item in enumerate(items):
            measured.switch_context(str(number))
            began = time.process_time()
            _run_item(item)
            seconds.append(time.process_time() - began)
        measured.stop()
        data = measured.get_data()
        lines = [
            {line: [int(one) for one in tests if one] for line, tests in data.contexts_by_lineno(path).items()}
            for path in paths
        ]
        return {"seconds": seconds, "lines": lines}

    @staticmethod
    def _run(source: Source, mutant: Mutant, items: list[pytest.Item]) -> None:
        try:
            source.swap_in(mutant)
        except ValueError:  # it uses other variables of the functions around it
            os._exit(UNSWAPPABLE)
        for item in items:
            _run_item(item)


def _run_item(item: pytest.Item) -> None:
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)


def _answer(work: Callable[[], str]) -> str:
    """Return what a forked process computes."""
    with tempfile.NamedTemporaryFile("r", encoding="utf-8") as answer:
        done = _fork(lambda: Path(answer.name).write_text(work(), encoding="utf-8") and None)
        if os.waitstatus_to_exitcode(os.waitpid(done, 0)[1]):
            raise SystemExit("mutation: the tests fail without a mutant")
        return answer.read()


def _fork(work: Callable[[], Any], limit: float = math.inf) -> int:
    """Start a silent process in a process group of its own. It exits with what ``work`` returns, or as broken if that raises.

    :param limit: the CPU time in seconds after which it is killed.
    """
    pid = os.fork()
    if pid:
        return pid
    status = BROKEN
    try:
        os.setpgid(0, 0)
        if limit < math.inf:
            resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(limit), math.ceil(limit)))
        silent = os.open(os.devnull if "MUTATION_DEBUG" not in os.environ else "/dev/stderr", os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        status = work() or 0
    except BaseException:  # noqa: BLE001 - it is the outcome
        traceback.print_exc()
    finally:
        os._exit(status)


def run_all(work: list[Callable[[], Any]], limits: list[float], jobs: int) -> list[str]:
    """Run each piece of work in a process, and return its outcomes: a process that fails has killed its mutant.

    :param limits: the seconds that each may take.
    """
    outcomes = [SURVIVED] * len(work)
    running: dict[int, tuple[int, float]] = {}
    waiting = iter(range(len(work)))
    while True:
        while len(running) < jobs and (place := next(waiting, None)) is not None:
            running[_fork(work[place], limits[place])] = place, time.monotonic() + STUCK_SECONDS
        if not running:
            return outcomes
        for pid, (place, limit) in list(running.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if not done and time.monotonic() < limit:
                continue
            outcomes[place] = _outcome(os.waitstatus_to_exitcode(status)) if done else TIMED_OUT
            del running[pid]
            try:
                os.killpg(pid, signal.SIGKILL)  # also what its tests have started
            except ProcessLookupError:
                pass
            if not done:
                os.waitpid(pid, 0)
        time.sleep(TICK_SECONDS)


def _outcome(status: int) -> str:
    if status == BROKEN:
        raise SystemExit("mutation: a process did not get as far as its tests; MUTATION_DEBUG=1 shows why")
    if status in {-signal.SIGXCPU, -signal.SIGKILL}:
        return TIMED_OUT
    return {0: SURVIVED, UNSWAPPABLE: RELOAD}.get(status, KILLED)


def _collect_and_run(source: Source, mutant: Mutant, tests: tuple[str, ...]) -> int:
    source.load_with(mutant)
    status = pytest.main([*PYTEST, *tests], plugins=[SteadyHypothesis()])
    # A mutant may also break the import, which interrupts the collection. Any other status says nothing about it.
    return {pytest.ExitCode.OK: 0, pytest.ExitCode.TESTS_FAILED: 1, pytest.ExitCode.INTERRUPTED: 1}.get(
        pytest.ExitCode(status), BROKEN
    )


def measure(
    tests_of: dict[str, tuple[str, ...]], jobs: int, share: float = 1.0, seed: int = 0, root: Path = ROOT
) -> Iterator[tuple[str, Mutant, str]]:
    """Yield each mutant of some modules with its outcome.

    :param tests_of: the tests of each module.
    :param share: the share of the mutants to run, chosen by ``seed``.
    """
    groups = defaultdict(list)
    for name, tests in tests_of.items():
        groups[tests].append(Source(name, root))
    for tests, sources in groups.items():
        every = [(place, one) for place, source in enumerate(sources) for one in source.mutants]
        some = random.Random(seed).sample(every, max(1, round(share * len(every))))  # noqa: S311
        swapped = sorted((one for one in some if one[1].swappable), key=lambda one: one[0])
        loaded = [one for one in some if not one[1].swappable]

        def session(sources: Any = sources, swapped: Any = swapped, tests: Any = tests) -> str:
            plugin = Session(sources, swapped, jobs)
            if status := pytest.main([*PYTEST, *tests], plugins=[SteadyHypothesis(), plugin]):
                raise RuntimeError(f"pytest ended with {status!r}")
            return json.dumps(plugin.outcomes)

        outcomes = json.loads(_answer(session))
        again = [one for one, outcome in zip(swapped, outcomes, strict=True) if outcome == RELOAD]
        loaded += again
        swapped = [one for one in swapped if one not in again]
        outcomes = [outcome for outcome in outcomes if outcome != RELOAD]
        imports = [
            lambda source=sources[place], one=one, tests=tests: _collect_and_run(source, one, tests)  # type: ignore[misc]
            for place, one in loaded
        ]
        outcomes += run_all(imports, [IMPORT_SECONDS] * len(imports), jobs)
        for (place, mutant), outcome in zip([*swapped, *loaded], outcomes, strict=True):
            yield sources[place].name.removeprefix(f"{PACKAGE}."), mutant, outcome


def main() -> int:
    """Run the mutants, print the scores and the survivors without a reason, and write the page."""
    parser = argparse.ArgumentParser(description="Run the tests of the modules that decide against their mutants.")
    parser.add_argument("modules", nargs="*", choices=[[], *DECISIONS], help="all by default")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at a time")
    parser.add_argument("--share", type=float, default=1.0, help="the share of the mutants to run, chosen by --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="write docs/testing.md")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["AIRFLOW_HOME"] = home
        for name in PRELOADED:
            importlib.import_module(name)
        began = time.monotonic()
        results = []
        for one in measure(
            {name: DECISIONS[name] for name in chosen.modules or DECISIONS}, chosen.jobs, chosen.share, chosen.seed
        ):
            results.append(one)
            with open("/tmp/w/cov/results.jsonl", "a") as f: f.write(json.dumps([one[0], one[1].lines, one[1].scope, one[1].text, one[2]]) + "\n")
    scores = scores_of(results)
    print(table_of(scores), f"in {(time.monotonic() - began) / 60:.0f} min", sep="\n")
    missing = unargued(results)
    for module, mutant in missing:
        print(f"survived: {module} line {mutant.lines[0]}, {'.'.join(mutant.scope)}: {mutant.text}")
    if chosen.write:
        write_mutation(results, time.monotonic() - began)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
