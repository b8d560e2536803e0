"""The plugin as pytest loads it: it costs nothing until it is used, and each test has a reset emulator."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

PACKAGE = "airflow_provider_astrobpm"

HELPERS = """
import json
import threading

from airflow_provider_astrobpm.client import operations
from airflow_provider_astrobpm.client.sync_client import BpmClient
from airflow_provider_astrobpm.client.settings import ClientCredentials, Settings


def client(monkeypatch):
    import os

    given = json.loads(os.environ["AIRFLOW_CONN_ASTRO_ZERO_DEFAULT"])
    credentials = ClientCredentials(given["login"], given["password"])
    return BpmClient(Settings("c", f"http://{given['host']}:{given['port']}", credentials))


def use(emulator, monkeypatch):
    emulator.assert_nothing_started()
    assert emulator.counts()["token"] == 0
    assert emulator.faults() == []
    one = client(monkeypatch)
    one.call(operations.start("PublishApproval"))
    one.close()
    emulator.assert_started("PublishApproval", state="Waiting for user interaction")
    counts = emulator.counts()
    assert (counts["token"], counts["start"]) == (1, 1), "tokens of earlier tests are not reused"
    emulator.decides("PublishApproval", "approve")
    emulator.fault("query", "html")
    emulator.advance(5)
    (server,) = (each for each in threading.enumerate() if each.name == "astro-zero-emulator")
    with open("emulators_used.txt", "a") as emulators_used:
        print(emulator.url, id(server), file=emulators_used)
"""
TWO_TESTS = (
    HELPERS
    + """

def test_one(astro_zero_emulator, monkeypatch):
    use(astro_zero_emulator, monkeypatch)


def test_other(astro_zero_emulator, monkeypatch):
    use(astro_zero_emulator, monkeypatch)
"""
)
RUN = """
import json, os, sys, threading
import pytest

code = pytest.main(sys.argv[1:])
threads = [each.name for each in threading.enumerate()]
variables = [each for each in os.environ if each.startswith("AIRFLOW_CONN_")]
found = {"code": int(code), "threads": threads, "variables": variables, "modules": sorted(sys.modules)}
print("FOUND", json.dumps(found))
"""
MEASURE = """
import importlib, sys, time
import pytest

taken = []
for _ in range(5):
    for name in [each for each in sys.modules if each.startswith("airflow_provider_astrobpm")]:
        del sys.modules[name]
    began = time.process_time()
    importlib.import_module("airflow_provider_astrobpm.pytest_plugin")
    taken.append(time.process_time() - began)
print("MILLISECONDS", min(taken) * 1000)
"""


@pytest.fixture(autouse=True)
def _no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start without a connection, regardless of the environment."""
    monkeypatch.delenv("AIRFLOW_CONN_ASTRO_ZERO_DEFAULT", raising=False)


def emulators_used(pytester: pytest.Pytester) -> list[list[str]]:
    return [line.split() for line in Path(pytester.path / "emulators_used.txt").read_text().splitlines()]


def test_the_plugin_imports_nothing_until_it_is_used(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_something_else(): pass")
    done = pytester.run(sys.executable, "-c", RUN, "-q", "-p", "no:cacheprovider")
    (line,) = (each for each in done.outlines if each.startswith("FOUND "))
    found = json.loads(line.removeprefix("FOUND "))
    assert (found["code"], found["threads"]) == (0, ["MainThread"])
    heavy = {"airflow", "aiohttp", "msgspec", "requests", "yaml", "tenacity", PACKAGE}
    assert {name for name in found["modules"] if name.partition(".")[0] in heavy} == {
        PACKAGE,
        f"{PACKAGE}.pytest_plugin",
    }


def test_importing_the_plugin_takes_less_than_five_milliseconds(pytester: pytest.Pytester) -> None:
    done = pytester.run(sys.executable, "-c", MEASURE)
    (line,) = done.outlines
    assert float(line.removeprefix("MILLISECONDS ")) < 5


def test_tests_get_a_reset_emulator_and_share_one_server(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nfilterwarnings = error\naddopts = --strict-markers --strict-config")
    pytester.makepyfile(TWO_TESTS)
    done = pytester.run(sys.executable, "-c", RUN, "-q", "-p", "no:cacheprovider")
    (line,) = (each for each in done.outlines if each.startswith("FOUND "))
    found = json.loads(line.removeprefix("FOUND "))
    assert (found["code"], found["threads"], found["variables"]) == (0, ["MainThread"], [])
    assert "airflow" not in found["modules"], "the emulator needs no Airflow"
    first, second = emulators_used(pytester)
    assert first == second


def test_each_xdist_process_has_its_own_emulator(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TWO_TESTS)
    done = pytester.runpytest_subprocess("-q", "-n", "2", "--dist", "each", "-p", "no:cacheprovider")
    done.assert_outcomes(passed=4)
    assert len({url for url, _ in emulators_used(pytester)}) == 2


def test_failures_show_no_secret(pytester: pytest.Pytester) -> None:
    failing = """
import pytest

def test_assert(astro_zero_emulator, astro_zero_emulator_server):
    emulator = astro_zero_emulator
    astro_zero_emulator.assert_started("PublishApproval")

def test_extra(astro_zero_emulator):
    astro_zero_emulator.connect(verify={1})

def test_conn_id(astro_zero_emulator):
    astro_zero_emulator.connect("not an id")

def test_refusal(astro_zero_emulator):
    astro_zero_emulator.decides("Unheard", "approve")

def test_complete(astro_zero_emulator):
    astro_zero_emulator.complete("PublishApproval", "approve")

@pytest.fixture
def broken(astro_zero_emulator, monkeypatch):
    raise RuntimeError("in a fixture")

def test_fixture(broken):
    pass
"""
    pytester.makepyfile(failing)
    options = ("-vv", "--showlocals", "--tb=long", "--full-trace", "--setup-show", "-p", "no:cacheprovider")
    done = pytester.runpytest_inprocess(*options)
    done.assert_outcomes(failed=5, errors=1)
    output = done.stdout.str() + done.stderr.str()
    assert "to be started once, but it was started 0 times" in output
    assert "emulator-only-secret" not in output


def test_a_failed_check_points_to_the_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile('def test_it(astro_zero_emulator):\n    astro_zero_emulator.assert_started("P")\n')
    done = pytester.runpytest_inprocess("-q", "-p", "no:cacheprovider")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(
        ["E * AssertionError: Expected P to be started once*", "*test_a_failed_check*.py:2: *"]
    )


PLANNED_ACTIONS = """
import pytest


def test_late(astro_zero_emulator):
    astro_zero_emulator.start("Instant")
    astro_zero_emulator.breaks("Instant", after=1)
    astro_zero_emulator.start("Instant")


def test_happens(astro_zero_emulator):
    astro_zero_emulator.breaks("Instant")
    astro_zero_emulator.start("Instant")


def test_nothing_started(astro_zero_emulator):
    astro_zero_emulator.suspends("Instant")


def test_optional(astro_zero_emulator):
    astro_zero_emulator.suspends("Instant", optional=True)


def test_fails_anyway(astro_zero_emulator):
    astro_zero_emulator.suspends("Instant")
    assert 1 == 2


def test_asks_later(request):
    request.getfixturevalue("astro_zero_emulator").terminates("Instant")


@pytest.fixture
def mine(astro_zero_emulator):
    return astro_zero_emulator


def test_by_another_name(mine):
    mine.terminates("Instant")
"""


def test_missed_actions_fail_the_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(PLANNED_ACTIONS)
    done = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider", "-rpfE", timeout=120)
    done.assert_outcomes(failed=4, passed=3, errors=1)
    output = done.stdout.str()
    assert "each Instant should have been broken 1 s after its start, but 1 of them was not: 002N" in output
    assert output.count("These planned actions did not happen:") >= 4
    # An error in the teardown is reported after the result of the test, which was a pass.
    ends = {
        line.partition("::")[2].split()[0]: line.split()[0] for line in done.outlines if "::test_" in line
    }
    assert ends == {
        "test_happens": "PASSED",
        "test_optional": "PASSED",
        "test_asks_later": "ERROR",
        "test_late": "FAILED",
        "test_nothing_started": "FAILED",
        "test_fails_anyway": "FAILED",
        "test_by_another_name": "FAILED",
    }


def test_the_emulator_behaves_like_a_report(pytester: pytest.Pytester) -> None:
    points = [{"name": "terminate", "value": "User Terminated"}, {"name": "token_lifetime", "value": 30}]
    pytester.mkdir("tenants")
    report = json.dumps({"signed_in": True, "points": points})
    Path(pytester.path / "tenants" / "sandbox.json").write_text(report, encoding="utf-8")
    pytester.makeini("[pytest]\nastro_zero_like = tenants/sandbox.json")
    pytester.makepyfile(
        """
        def test_first(astro_zero_emulator):
            assert astro_zero_emulator.switches()["terminate_state"] == "User Terminated"
            astro_zero_emulator.switch(terminate_state="Terminated")


        def test_second(astro_zero_emulator, astro_zero_emulator_server):
            assert astro_zero_emulator.switches()["terminate_state"] == "User Terminated"
            assert astro_zero_emulator_server.settings.token_lifetime == 30
        """
    )
    pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider").assert_outcomes(passed=2)


def test_a_report_that_cannot_be_read_is_an_error(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nastro_zero_like = absent.json")
    pytester.makepyfile("def test_one(astro_zero_emulator): pass")
    done = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider")
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*astro_zero_like: *absent.json cannot be read: No such file or directory*"])
