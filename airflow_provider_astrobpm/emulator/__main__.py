"""``python -m airflow_provider_astrobpm.emulator``: run an emulator in the terminal."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import shlex
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from airflow_provider_astrobpm.emulator.control_api import PREFIX
from airflow_provider_astrobpm.emulator.doctor_report import read_report
from airflow_provider_astrobpm.emulator.emulator_state import (
    CLIENT_ID,
    CLIENT_SECRET,
    TOKEN_LIFETIME,
    Emulator,
    EmulatorSettings,
)
from airflow_provider_astrobpm.emulator.process_scripts import DEFAULT_SCRIPT, load_script
from airflow_provider_astrobpm.emulator.replay import Replay
from airflow_provider_astrobpm.emulator.server_thread import connection_json, listening
from airflow_provider_astrobpm.emulator.switches import describe_switches, parse_switch
from airflow_provider_astrobpm.emulator.transcript_reader import read_transcript

CONNECTION_VARIABLE = "AIRFLOW_CONN_ASTRO_ZERO_DEFAULT"
_WITHOUT_REPLAY = ("like", "switch", "processes")  # options that have no effect on a replay
_ABOUT = """\
Run a local Astro Zero: a server that speaks the documented BPM API, with its state in memory.
It prints the Airflow connection to itself and runs until it is interrupted."""


def main(arguments: list[str] | None = None) -> int:
    """Run the emulator until it is interrupted, and return the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.replay and (unused := [name for name in _WITHOUT_REPLAY if getattr(options, name)]):
        others = ", ".join(f"--{name}" for name in unused)
        parser.error(f"--replay answers from a transcript alone; do not combine it with {others}")
    try:
        like = read_report(options.like) if options.like else None
        replay = Replay(read_transcript(options.replay), _complain) if options.replay else None
        base = like.applied_to(EmulatorSettings()) if like else EmulatorSettings()
        settings = replace(
            base,
            processes=tuple(
                process for file in options.processes or [DEFAULT_SCRIPT] for process in load_script(file)
            ),
            switches=base.switches.changed(**dict(map(parse_switch, options.switch))),
            client_id=options.client_id,
            client_secret=options.client_secret,
            token_lifetime=base.token_lifetime if options.token_lifetime is None else options.token_lifetime,
            base_path=options.base_path,
            allowed_hosts=frozenset({options.host, *options.allowed_host}),
            replay=replay,
        )
    except OSError as error:
        parser.error(f"{error.filename} cannot be read: {error.strerror or error}")
    except ValueError as error:
        parser.error(str(error))
    for line in like.lines() if like else ():
        _say(line)
    if replay:
        _say(f"Recorded exchanges to replay: {len(replay.unused())}. Files: {replay.transcript.files}.")
        for line in replay.transcript.notes:
            _complain(line)
    if not _is_loopback(options.host):
        _complain(
            f"Warning: {options.host} can be reached from other machines; the emulator protects nothing."
        )
    try:
        with suppress(KeyboardInterrupt):
            asyncio.run(_run(settings, options.host, options.port))
    except OSError as error:
        _complain(f"Cannot listen on {options.host} port {options.port}: {error}")
        return 1
    for line in replay.summary() if replay else ():
        _complain(line)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        prog="python -m airflow_provider_astrobpm.emulator",
        description=_ABOUT,
        epilog=f"switches for behaviour that the API reference leaves open:\n\n{describe_switches()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=_port, default=0, help="the port to listen on (default: 0, a free port)"
    )
    parser.add_argument(
        "--processes",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help=f"a YAML file of processes to offer; repeatable (default: {DEFAULT_SCRIPT}, which shows the format)",
    )
    parser.add_argument(
        "--like",
        type=Path,
        metavar="FILE",
        help="a report that 'airflow astro-zero doctor --output json' has written: behave like that environment",
    )
    parser.add_argument(
        "--replay",
        type=Path,
        metavar="FILE|FOLDER",
        help="a transcript, or a folder of them, that the connection's extra 'record' or 'doctor --record' has written: "
        "answer from it, and print where a request differs",
    )
    parser.add_argument(
        "--switch", action="append", default=[], metavar="NAME=POSITION", help="see below; repeatable"
    )
    parser.add_argument(
        "--allowed-host",
        type=_host_name,
        action="append",
        default=[],
        metavar="NAME",
        help="a host name to accept in addition to IP addresses, localhost and --host; repeatable",
    )
    parser.add_argument("--client-id", default=CLIENT_ID, help="(default: %(default)s)")
    parser.add_argument("--client-secret", default=CLIENT_SECRET, help="(default: %(default)s)")
    parser.add_argument(
        "--token-lifetime",
        type=int,
        metavar="SECONDS",
        help=f"how long a token is valid (default: as in the file of --like, otherwise {TOKEN_LIFETIME})",
    )
    parser.add_argument(
        "--base-path", default="", metavar="PATH", help="a prefix of every path of the API, such as /portal/x"
    )
    return parser


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"a port must be from 0 to 65535, not {port}")
    return port


def _host_name(text: str) -> str:
    if not text or ":" in text or "/" in text:
        raise argparse.ArgumentTypeError(
            f"must be a name such as emulator.example, without a port, not {text!r}"
        )
    return text


async def _run(settings: EmulatorSettings, host: str, port: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    with suppress(NotImplementedError):  # Windows, where Ctrl-C raises KeyboardInterrupt
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
    emulator = Emulator(settings)
    async with listening(emulator, host, port) as actual:
        address = f"http://{f'[{host}]' if ':' in host else host}:{actual}"
        _say(f"Astro Zero emulator: {address}{settings.base_path}")
        _say(f"Web page:            {address}/")
        _say(f"Control API:         {address}{PREFIX}")
        # The provider accepts a plain http:// instance URL only for this machine.
        shown_at = f"{address}/instances/{{instance_id}}" if _is_loopback(host) else None
        connection = connection_json(emulator, host, actual, instance_url=shown_at)
        _say(f"export {CONNECTION_VARIABLE}={shlex.quote(connection)}")
        await stop.wait()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _complain(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
