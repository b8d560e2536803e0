"""The commands and their options, in the classes that Airflow uses for its own commands.

Airflow calls ``get_cli_commands`` each time its command line starts (since Airflow 3.2, through the key ``cli`` of the
provider info). So this module is cheap to import: the module of a command is imported when the command runs. The same
definitions build the parser of ``python -m airflow_provider_astrobpm``, which works on every Airflow version.

A command is a function in a module of this package. It takes the parsed arguments, gets its hook from
``runner.connected(args.conn_id)`` (a plain hook would not read Airflow's database here), and returns its exit code, or
``None`` for 0. It does not catch the hook's errors: ``runner`` prints each of them as one sentence on stderr, without a
traceback, and maps it to an exit code. See ``read_commands.show_instance`` for an example.

An option has the same name as the corresponding argument of an operator.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from airflow.cli.cli_config import ARG_OUTPUT, ARG_VERBOSE, ARG_YES, ActionCommand, Arg, GroupCommand

from airflow_provider_astrobpm.cli import exit_codes
from airflow_provider_astrobpm.client.states import STATES
from airflow_provider_astrobpm.hooks import DEFAULT_CONN_ID

NAME = "astro-zero"
HELP = "Manage BPM instances of Huawei Cloud Astro Zero"


class _UnabbreviatedArg(Arg):
    """An argument that makes its parser reject abbreviated options.

    Airflow creates the parser, and by default argparse accepts abbreviations such as ``--variab`` for ``--variables``.
    """

    def add_to_parser(self, parser: argparse.ArgumentParser) -> None:
        """Add the argument to the parser of a command."""
        parser.allow_abbrev = False
        super().add_to_parser(parser)


def _arg(*flags: str, **options: Any) -> Arg:
    return _UnabbreviatedArg(flags, **options)  # type: ignore[no-untyped-call]


CONN_ID = _arg(
    "--conn-id",
    "--astro-zero-conn-id",
    dest="conn_id",
    help="The Airflow connection of type astro_zero (default: %(default)s)",
    default=DEFAULT_CONN_ID,
    metavar="CONN_ID",
)

ANY_CONN_ID = _arg(
    "--conn-id",
    "--astro-zero-conn-id",
    dest="conn_id",
    help=f"Only tasks with this Airflow connection (default: any; with --orphans: {DEFAULT_CONN_ID})",
    metavar="CONN_ID",
)

ID = _arg("instance_id", nargs="?", metavar="ID", help="The id of the instance")
IDS = _arg(
    "instance_ids", nargs="*", metavar="ID", help="The ids of the instances; cannot be combined with a filter"
)

STATE = _arg(
    "--state",
    "--states",
    dest="state",
    action="append",
    metavar="STATE",
    help="Only instances in this state; its first words are enough if they are unambiguous. Repeatable. One of: "
    + ", ".join(STATES),
)
ALL = _arg("--all", action="store_true", help="Include instances in all states, also closed ones")
BPM_NAME = _arg("--bpm-name", metavar="NAME", help="Only instances of the BPM with this name")
BUSINESS_KEY = _arg("--business-key", metavar="KEY", help="Only instances with this business key")
OLDER_THAN = _arg(
    "--older-than",
    metavar="AGE",
    help="Only instances that started longer ago than this, such as 90s, 15m, 2h, 7d or 1d12h. Requires the connection's "
    "extra 'timezone'",
)
YOUNGER_THAN = _arg(
    "--younger-than",
    metavar="AGE",
    help="Only instances that started more recently than this; same format as --older-than",
)
FILTER = (STATE, BPM_NAME, BUSINESS_KEY, OLDER_THAN, YOUNGER_THAN)

ORPHANS = _arg(
    "--orphans",
    action="store_true",
    help="Only open instances that a task of this Airflow has started and for which no task waits; a filter narrows them "
    "further. Requires Airflow's database",
)

MAX_CONCURRENCY = _arg(
    "--max-concurrency",
    type=int,
    default=8,
    metavar="N",
    help="Maximum number of instances to change at a time (default: %(default)s)",
)
DRY_RUN = _arg("--dry-run", action="store_true", help="Show what would be changed, without changing anything")
VARIABLE = _arg(
    "--variable",
    action="append",
    metavar="NAME=VALUE",
    help="A variable and its value, which is read as JSON if it is valid JSON, and as text otherwise. Repeatable",
)
VARIABLES = (
    VARIABLE,
    _arg(
        "--variables",
        metavar="JSON",
        help="A JSON object of variables and their values. --variable takes precedence over it",
    ),
    _arg(
        "--variables-file",
        metavar="PATH",
        help="A file with such a JSON object. --variable and --variables take precedence over it",
    ),
)
CHECK_VARIABLES = _arg(
    "--check-variables",
    "--check",
    dest="check_variables",
    action="store_true",
    help="Read the definition of the BPM first, and change nothing if it lacks one of the variables",
)
POLL_INTERVAL = _arg(
    "--poll-interval",
    type=float,
    default=10.0,
    metavar="SECONDS",
    help="Seconds between polls, at least 1 (default: %(default)g)",
)
TIMEOUT = _arg(
    "--timeout", type=float, metavar="SECONDS", help="Seconds after which the wait times out (default: never)"
)

BULK = (IDS, *FILTER, MAX_CONCURRENCY, DRY_RUN, ARG_YES, ARG_OUTPUT)
BULK_DESCRIPTION = (
    "Give ids or a filter. Without --state, a filter matches only instances that have not ended. The command first lists"
    " and counts\nthe instances that it would change, then asks for confirmation, and changes only those. --yes skips the"
    " question; it is\nrequired without a terminal. --dry-run changes nothing. After Ctrl-C no further instance is changed, but"
    " changes already\nsent are completed."
)


def _command(
    name: str,
    help_text: str,
    function: str,
    *args: Arg,
    description: str = "",
    conn_id: Arg = CONN_ID,
) -> ActionCommand:
    """Describe a command.

    :param function: the function of the command as ``module.name``, relative to this package.
    :param conn_id: its option ``--conn-id``.
    """
    return ActionCommand(
        name=name,
        help=help_text,
        description=f"{help_text}.\n{description}".strip(),
        func=partial(_run, function),
        args=(*args, conn_id, ARG_VERBOSE),
        epilog=exit_codes.table(),
    )


def _run(function: str, args: argparse.Namespace) -> None:
    from airflow_provider_astrobpm.cli.runner import run  # noqa: PLC0415 - only if a command runs

    run(function, args)


COMMANDS = (
    _command(
        "list",
        "List instances",
        "read_commands.list_instances",
        *FILTER,
        ALL,
        ARG_OUTPUT,
        description="By default, instances that have not ended; see --state and --all. Each state takes one request.",
    ),
    _command(
        "show",
        "Show an instance",
        "read_commands.show_instance",
        ID,
        _arg(
            "--business-key",
            metavar="KEY",
            help="The business key of the instance, if you do not know its id",
        ),
        _arg(
            "--bpm-name",
            metavar="NAME",
            help="The name of its BPM, if instances of other BPMs have the same business key",
        ),
        ARG_OUTPUT,
    ),
    _command(
        "definitions",
        "List BPM definitions, one row per version, or show one with its variables",
        "read_commands.definitions",
        _arg(
            "what",
            nargs="*",
            metavar="show NAME",
            help="Show the definition of the BPM with this name, with its variables, instead of a list",
        ),
        _arg("--version", help="With show: the version to show (default: the enabled one)"),
        _arg("--bpm-name", metavar="NAME", help="Only versions of the BPM with this name"),
        _arg("--like", action="store_true", help="Match a part of the name"),
        _arg("--enabled", action="store_true", help="Only enabled versions"),
        ARG_OUTPUT,
    ),
    _command(
        "start",
        "Start an instance",
        "start_command.start_instance",
        _arg(
            "bpm_name",
            nargs="?",
            metavar="BPM_NAME",
            help="The BPM's name, with its namespace if it has one",
        ),
        _arg("--bpm-name", dest="bpm_name_too", metavar="NAME", help="The same as BPM_NAME, as an option"),
        *VARIABLES,
        CHECK_VARIABLES,
        _arg("--business-key", metavar="KEY", help="The business key of the new instance"),
        _arg("--title", help="The title of the new instance"),
        _arg("--version", help="The version to start, enabled or not (default: the enabled one)"),
        _arg("--wait-for-completion", action="store_true", help="Wait until the instance has ended"),
        POLL_INTERVAL,
        TIMEOUT,
        ARG_OUTPUT,
        description="The start is never sent again if the server may have processed it.",
    ),
    *(
        _command(
            name,
            f"{name.capitalize()} instances",
            f"change_commands.{name}",
            *((ORPHANS,) if name == "terminate" else ()),
            *BULK,
            description=BULK_DESCRIPTION,
        )
        for name in ("suspend", "resume", "terminate")
    ),
    _command(
        "set",
        "Set variables of instances",
        "change_commands.set_variables",
        *VARIABLES,
        CHECK_VARIABLES,
        *BULK,
        description="Astro Zero silently ignores unknown and read-only variables; --check-variables reports unknown ones.\n"
        + BULK_DESCRIPTION,
    ),
    _command(
        "watch",
        "Watch instances until they have ended",
        "watch_command.watch",
        IDS,
        *FILTER,
        _arg(
            "--until-state",
            action="append",
            metavar="STATE",
            help="Watch until they are in this state instead. Repeatable",
        ),
        POLL_INTERVAL,
        TIMEOUT,
        description="Give ids or a filter. A filter is evaluated once, at the beginning. Without a terminal, each change is printed as a line.",
    ),
    _command(
        "gates",
        "List the tasks that wait for instances, or what is open without such a task",
        "gates_command.gates",
        _arg(
            "--bpm-name", metavar="NAME", help="Only tasks that wait for instances of the BPM with this name"
        ),
        _arg(
            "--older-than",
            metavar="AGE",
            help="Only tasks that have waited longer than this, such as 90s, 15m, 2h, 7d or 1d12h; with --orphans, instances "
            "that started longer ago, which requires the connection's extra 'timezone'",
        ),
        _arg(
            "--instances",
            action="store_true",
            help="One row for each instance of a batch, instead of one for the batch",
        ),
        ORPHANS,
        ARG_OUTPUT,
        description="The longest wait comes first. Reads the tasks from Airflow's database, so it runs where Airflow's own commands "
        "run. Each\nstate takes one request for each connection.",
        conn_id=ANY_CONN_ID,
    ),
    _command(
        "doctor",
        "Find out how an endpoint behaves where the API reference is silent",
        "doctor_command.doctor",
        _arg(
            "--start",
            metavar="BPM_NAME",
            help="Also start instances of this BPM to probe more, and terminate them. Without it, nothing is changed",
        ),
        _arg(
            "-o",
            "--output",
            choices=("text", "json"),
            default="text",
            metavar="(text, json)",
            help="Output format (default: %(default)s)",
        ),
        _arg(
            "--record",
            metavar="FILE",
            help="Also record all requests and answers in this file, which must not exist yet, for a bug report. Names and values are "
            "replaced by stand-ins",
        ),
    ),
)


def get_cli_commands() -> list[GroupCommand]:
    """Return the commands for Airflow's command line, as one group."""
    return [GroupCommand(name=NAME, help=HELP, subcommands=COMMANDS, epilog=exit_codes.table())]


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of ``python -m airflow_provider_astrobpm``."""
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_astrobpm",
        description=f"{HELP}.",
        epilog=exit_codes.table(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)
    for command in COMMANDS:
        subparser = subparsers.add_parser(
            command.name,
            help=command.help,
            description=command.description,
            epilog=command.epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for arg in command.args:
            arg.add_to_parser(subparser)
        subparser.set_defaults(func=command.func)
    return parser
