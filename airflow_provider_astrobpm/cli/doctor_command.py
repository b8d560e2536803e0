"""The command ``doctor``: finds out how an endpoint behaves, and prints a report."""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

from airflow_provider_astrobpm.cli.runner import connected, say
from airflow_provider_astrobpm.client import validation
from airflow_provider_astrobpm.client.transcript_writer import TranscriptWriter
from airflow_provider_astrobpm.doctor.probe_sender import ProbeSender
from airflow_provider_astrobpm.doctor.run import run_doctor
from airflow_provider_astrobpm.doctor.start_markers import make_key
from airflow_provider_astrobpm.hooks import masking

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from airflow_provider_astrobpm.client.settings import Settings


def doctor(args: argparse.Namespace) -> int:
    """Examine the endpoint of a connection, print the report, and return the exit code.

    Without ``--start``, nothing is changed. With it, all started instances are terminated, also after Ctrl-C or SIGTERM.

    :param args: ``conn_id``, ``start`` (the name of a BPM, or ``None``), ``output`` (``"text"`` or ``"json"``) and ``record``
        (a file that is created, or ``None``).
    :raises SettingsError: if the connection cannot be used.
    :raises ValueError: if the file cannot be created.
    """
    process = None if args.start is None else validation.identifier(args.start, "--start")
    with connected(args.conn_id) as hook:
        settings = hook.settings
    sender = ProbeSender(settings, on_token=masking.token_masker(settings))
    with ExitStack() as ends:
        if args.record is not None:
            writer = ends.enter_context(closing(_transcript(settings, args.record)))
            sender.record(writer)
        ends.enter_context(closing(sender))
        ends.enter_context(_sigterm_as_interrupt())
        key, refused_key = (make_key(token_hex(6)) for _ in range(2))
        report = run_doctor(sender, process=process, key=key, refused_key=refused_key, say=say)
    sys.stdout.write(f"{report.as_json() if args.output == 'json' else report.as_text()}\n")
    return report.exit_code


def _transcript(settings: Settings, file: str) -> TranscriptWriter:
    writer = TranscriptWriter(settings, file=Path(file), warn=say)
    try:
        writer.open()
    except OSError as error:
        raise ValueError(f"--record: {file} cannot be created: {error.strerror or error}") from None
    return writer


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C, so that the started instances are terminated."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set signal handlers
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
