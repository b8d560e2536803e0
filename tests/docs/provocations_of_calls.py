"""Provoke the messages about connections, calls and arguments, by their quotes in ``docs/troubleshooting*.md``.

Each provocation prepares the emulator and uses this provider so that the message is raised, logged or printed.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from airflow.sdk import Connection, task

from airflow_provider_astrobpm.client import operations
from airflow_provider_astrobpm.hooks.astro_zero import AstroZeroHook
from tests.docs.scene import BPM, Scene, Tries

Provocation = Callable[[Scene], Any]


def settings(extra: Any = None, **fields: Any) -> Provocation:
    """Read a connection with these extras and fields."""
    return lambda scene: scene.hook(extra, **fields).settings


def host(host: str, **fields: Any) -> Provocation:
    """Read a connection to a host."""
    return settings(host=host, **{"port": None, "schema": None, **fields})


def answer(kind: str, fault: str, extra: Any = None, **parameters: Any) -> Provocation:
    """List instances, or start one, and get a faulty answer."""

    def provoke(scene: Scene) -> None:
        scene.emulator.fault(kind, fault, times=9, **parameters)
        hook = scene.hook(extra)
        if kind == "start":
            hook.start_instance(BPM)
        else:
            hook.query_instances(["Running"])

    return provoke


def hooked(call: Callable[[AstroZeroHook], Any]) -> Provocation:
    """Call the hook."""
    return lambda scene: call(scene.hook())


def started(**arguments: Any) -> Provocation:
    """Run a start operator."""
    return lambda scene: scene.start(**arguments)


def checked_where_no_variables_are_listed(scene: Scene) -> None:
    """Check variables against a definition that lists none."""
    scene.emulator.switch(definition_variables="absent")
    scene.hook().check_variables(BPM, ["contry"])


def batch(launches: Any, **arguments: Any) -> Provocation:
    """Run a batch operator."""
    return lambda scene: scene.batch(launches, **arguments)


# Not connected.


def not_installed(_: Scene) -> None:
    """Import this provider in an environment without it."""
    python = [sys.executable, "-I", "-S", "-c", "import airflow_provider_astrobpm"]
    raise RuntimeError(subprocess.run(python, capture_output=True, text=True, check=False, timeout=60).stderr)


def unknown_type(_: Scene) -> None:
    """Request the hook of a connection whose type is misspelled."""
    Connection(conn_id="approvals", conn_type="astrozero").get_hook()  # type: ignore[no-untyped-call]


CONNECTION: dict[str, Provocation] = {
    "The conn_id `…` isn't defined": lambda _: AstroZeroHook("of_nobody").settings,
    'Unknown hook type "…"': unknown_type,
    "No module named 'airflow_provider_astrobpm'": not_installed,
    "Connection '…' cannot be used: …": settings(login=None),
    "login (the client id) is empty, and so is the extra 'access_token'": settings(login=None),
    "password (the client secret) is empty, and so is the extra 'access_token'": settings(password=""),
    "host is empty": settings(host=""),
    "host must contain only a domain, a port and a base path": host("https://a:b@astro.example"),
    "host is not a valid URL, or its port is invalid": host("astro.example:no"),
    "an IPv6 address needs brackets, as in https://[2001:db8::1]": host("https://2001:db8::1"),
    "… contains a line break or a control character; paste one line of the downloaded file": settings(
        password="secret\nclient"
    ),
    "host … is not a domain": host("astro example"),
    "schema must be https (or http), not …": host("astro.example", schema="ftp"),
    "host has scheme …, but schema is …": host("https://astro.example", schema="http"),
    "host has port …, but port is …": host("astro.example:443", port=8443),
    "port must be from 1 to 65535, not …": host("astro.example", port=70_000),
    "http:// to … would send the secret unencrypted": host("http://astro.example"),
    "extra is not JSON": settings(extra="verify=false"),
    "extra must be a JSON object": settings(extra="[]"),
    "unknown extra '…'": settings({"verfy": False}),
    "extra '…' must be …": settings({"timezone": "Peking"}),
    "extra 'client_key' is set without 'client_cert'": settings({"client_key": "key.pem"}),
    "extra '…' names …: …": lambda scene: scene.hook({"verify": "/no/such/bundle.pem"}).get_conn(),
}

# Not reached, and faulty answers.


def unsupported_proxy(scene: Scene) -> None:
    """Use a proxy of an unsupported kind."""
    scene.environment.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        scene.environment.delenv(name, raising=False)
    scene.address("https://astro.example").query_instances(["Running"])


def packed_badly(scene: Scene) -> None:
    """Call a server whose answer is not compressed as its header says."""

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"plain")

        def log_message(self, *_: Any) -> None:
            """Stay quiet."""

    with HTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        try:
            hook = scene.hook(
                {"access_token": "ready"},
                host=f"http://127.0.0.1:{server.server_port}",
                port=None,
                schema=None,
            )
            hook.query_instances(["Running"])
        finally:
            thread.join(60)


def listed(scene: Scene, url: str) -> None:
    """List instances at an address."""
    scene.address(url).query_instances(["Running"])


def odd_row(scene: Scene) -> None:
    """List instances, one of which shows no state."""
    instance_id = scene.started()
    scene.emulator.move(instance_id, state="Running")
    scene.emulator.distort(instance_id, {"state": None})
    scene.hook().query_instances(["Running"])


CALLS: dict[str, Provocation] = {
    "the server could not be reached (…)": lambda scene: listed(scene, f"http://127.0.0.1:{scene.free_port}"),
    "the TLS handshake failed (…)": lambda scene: listed(scene, scene.server.url.replace("http:", "https:")),
    "the request could not be sent (…)": unsupported_proxy,
    "no answer came within 'read_timeout'": answer("query", "delay", {"read_timeout": 0.1}, seconds=0.5),
    "the connection was lost (…)": answer("query", "drop_after"),
    "the server failed (HTTP 5…": answer("query", "status", status=503),
    "The first of up to … attempts failed": answer("query", "status", {"max_attempts": 2}, status=503),
    "the server received too many requests (HTTP 429": answer("query", "status", status=429),
    "the server timed out waiting for the request (HTTP 408": answer("query", "status", status=408),
    "the server redirects to …, but redirects are not followed": answer("query", "redirect"),
    "the answer (… bytes, …) is not the documented JSON": answer("query", "html", status=200),
    "the answer does not have the documented form: …": answer("query", "wrong_shape"),
    "the row of instance '…' cannot be read, because …": odd_row,
    "the answer is longer than … bytes ('max_response_bytes')": answer(
        "query", "oversize", {"max_response_bytes": 10_000}, size=100_000
    ),
    "the answer cannot be decompressed": packed_badly,
}

# Refused.


def ready_token(scene: Scene) -> None:
    """Use a ready token that has expired."""
    scene.hook({"access_token": "an-old-token"}).query_instances(["Running"])


def fresh_token(scene: Scene) -> None:
    """Use tokens that another process ends at once."""
    scene.emulator.fault("query", "status", status=401, times=10)
    scene.hook({"max_attempts": 1}).query_instances(["Running"])


def no_token(scene: Scene) -> None:
    """Get a gateway's page from the token endpoint."""
    scene.emulator.fault("token", "html", status=404, times=10)
    scene.hook().query_instances(["Running"])


def resumed_too_early(scene: Scene) -> None:
    """Resume an instance, which the server refuses."""
    one = scene.started()
    scene.hook().suspend_instance(one)
    scene.emulator.fault("action", "status", status=400)
    scene.hook().resume_instance(one)


def suspended_too_late(scene: Scene) -> None:
    """Suspend an instance that has ended, where that is no good."""
    scene.hook().suspend_instance(scene.started("Instant"), if_closed="fail")


def lagging(**switches: Any) -> Provocation:
    """Terminate an instance where that does not show."""

    def provoke(scene: Scene) -> None:
        one = scene.started()
        scene.emulator.switch(**{"action_lag": 3600, **switches})
        scene.hook({"start_grace": 1, "instance_lookup": "list"}).terminate_instance(one)

    return provoke


def unreadable_then(scene: Scene) -> None:
    """Terminate an instance; the effect does not show, and lists fail."""
    scene.emulator.fault("query", "status", status=503, times=99)
    lagging()(scene)


def variables_in_doubt(scene: Scene) -> None:
    """Set variables, and lose the answer."""
    one = scene.started()
    scene.emulator.fault("variables", "drop_after")
    scene.hook().set_variables(one, {"country": "CN"})


def deletion_in_doubt(scene: Scene) -> None:
    """Delete an instance that could not be read before, and lose the answer."""
    one = scene.started()
    scene.emulator.fault("query", "status", status=503, times=2)
    scene.emulator.fault("delete", "drop_after")
    scene.hook({"instance_lookup": "list"}).delete_instance(one)


REFUSALS: dict[str, Provocation] = {
    "the client id or the secret was refused": lambda scene: scene.hook(
        password="wrong-secret"
    ).query_instances(["Running"]),
    "the access token was refused": ready_token,
    "an access token that was just issued was refused": fresh_token,
    "no token was issued, but the answer does not say that the client id or the secret is wrong": no_token,
    "the server refused (HTTP …, resCode '…'": hooked(lambda hook: hook.start_instance("NoSuchProcess")),
    "the server refused, and the instance is '…'": resumed_too_early,
    "instance '…' of '…' has already ended, in state '…'": suspended_too_late,
    "… of instance '…' was accepted, but shows no effect after … s: the instance is '…'": lagging(),
    "… of instance '…' was accepted, but then the instance could not be read (…)": unreadable_then,
    "… of instance '…' was accepted, but instance '…' is in none of the states": lagging(
        action_lag=0.5, keep_closed=False
    ),
    "; the variables may have been set anyway, and there is no way to check": variables_in_doubt,
    "; the instance does not exist, and it is unknown whether it existed before": deletion_in_doubt,
}

# Arguments.


def decorated(**arguments: Any) -> Provocation:
    """Run a task made from a function that returns the given value."""
    returned = arguments.pop("returned", None)

    def provoke(_: Scene) -> None:
        made: Any = task.astro_bpm(task_id="gate", bpm_name=BPM, **arguments)(lambda: returned)()
        made.operator.execute(Tries().context)

    return provoke


async def variables() -> dict[str, Any]:
    """Return variables, as a coroutine."""
    return {}


def came_out_as_none(scene: Scene) -> None:
    """Run a sensor whose template rendered to ``None``."""
    scene.sense(instance_id="{{ a template }}", before=lambda made: setattr(made, "instance_id", None))


ARGUMENTS: dict[str, Provocation] = {
    "… must be a text that is not blank, not …": hooked(lambda hook: hook.get_instance(" ")),
    "… must not be '…': a template renders this if it finds nothing": started(business_key="None"),
    "… must be a text without NUL characters and lone surrogates, not …": hooked(
        lambda hook: hook.get_instance("\ud800")
    ),
    "… must not contain U+FFFD, which stands for a lost character: …": started(
        bp_statuses=["Appr\ufffdoved"]
    ),
    "… must be an id, not …": hooked(lambda hook: hook.suspend_instance("..")),
    "… must be a list of texts, not …": started(bp_statuses="Approved"),
    "… must not be empty; omit it instead": started(bp_statuses=[]),
    "… is None; omit it instead": started(states=None),
    "… must be one of …, not …": started(states=["Finished"]),
    "… cannot mean success and failure at once": started(bp_statuses=["Yes"], failed_bp_statuses=["Yes"]),
    "… must be a number of seconds, at least … and at most …, not …": started(poll_interval=0.1),
    "… must be a whole number, at least …, not …": batch([], max_concurrency=0),
    "… must be a number per second, more than 0, not …": batch([], rate_limit=0),
    "… must be a whole number, or a share as a float below 1, not …": batch([], max_failures=1.5),
    "variables must be a mapping of names to JSON values, not …": started(variables=["a"]),
    "variables… cannot be sent: it is …": started(variables={"a": {"b": [b"a"]}}),
    "it is the datetime …, and the time zone of Astro Zero's timestamps is unknown": started(
        variables={"due": datetime(2018, 12, 12, tzinfo=timezone.utc)}
    ),
    "variables must be a mapping of names to JSON values, not a text": started(variables="a=1"),
    "each name in variables must be a text that is not blank, not …": started(variables={1: "a"}),
    "… must be a text, not …; write a text, and add quotes inside a template": started(version=1.1),
    "… must be True or False, not …": started(deferrable="no"),
    "timeout must be more than 0": started(timeout=0),
    "on_timeout has no effect without a timeout or an execution_timeout": started(
        timeout=None, on_timeout="suspend"
    ),
    "fields must include …, which every instance needs": lambda _: operations.query("Running", fields=["id"]),
    "variables must be names, or a mapping of names to JSON values, not …": hooked(
        lambda hook: hook.check_variables(BPM, "country")
    ),
    "check_variables needs validate_first=True": batch([], check_variables=True, validate_first=False),
    "… has no variable '…' (did you mean '…'?).": started(variables={"contry": "CN"}, check_variables=True),
    "Cannot check whether … has the variables …: …": checked_where_no_variables_are_listed,
    "variables must name at least one variable to set": hooked(lambda hook: hook.set_variables("1", {})),
    "… is given twice: as an argument and as variable '…'": started(
        title="one", variables={"$Flow.Title": "two"}
    ),
    "if_open_instance_exists has no effect without a business_key": started(if_open_instance_exists="adopt"),
    "… has no effect with wait_for_completion=False": started(states=["Running"], wait_for_completion=False),
    "give exactly one of instance_id and business_key": lambda scene: scene.sense(),
    "bpm_name has no effect with an instance_id; it narrows a search by business_key": lambda scene: (
        scene.sense(instance_id="1", bpm_name="A")
    ),
    "@task.astro_bpm takes no variables": decorated(variables={"a": 1}),
    "@task.astro_bpm takes a plain function": lambda _: task.astro_bpm(bpm_name=BPM)(variables)(),
    "… must return the variables as a mapping of names to JSON values, or None, not …": decorated(
        returned=["a"]
    ),
    "… was provided, but rendered as None": came_out_as_none,
}
