"""The commands and their arguments, in the classes in which Airflow describes its own.

Airflow calls ``get_cli_commands`` whenever its command line starts (since Airflow 3.2, by the key ``cli`` of the provider
info), so importing this costs next to nothing: the module of a command is imported when the command runs. The same
definitions make the parser of ``python -m airflow_provider_astrobpm``, on every Airflow.

A command is a function of its own module. It takes the parsed arguments, gets its hook by ``runner.connected(args.conn_id)``
(a plain hook would not look into Airflow's database here), and returns its exit code, or ``None`` for 0. It lets pass what
the hook raises: ``runner`` prints each error of the provider as one sentence to stderr, without a traceback, and turns it
into the exit code that ``exit_codes`` has for it. ``doctor`` of ``cli/doctor_command.py`` does the same.

An option has the name of the argument that means the same to an operator. The names that options had before are taken too,
and not shown.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from airflow.cli.cli_config import ARG_OUTPUT, ARG_VERBOSE, ARG_YES, ActionCommand, Arg, GroupCommand

from airflow_provider_astrobpm.bpm.states import STATES
from airflow_provider_astrobpm.cli import exit_codes
from airflow_provider_astrobpm.hooks import DEFAULT_CONN_ID

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "astro-zero"
HELP = "Steer BPM instances of Huawei Cloud Astro Zero"


class _WholeName(Arg):
    """An argument whose parser takes options by their whole names alone.

    Airflow makes the parser, and argparse takes any beginning of an option: ``--variab`` for ``--variables``.
    """

    def add_to_parser(self, parser: argparse.ArgumentParser) -> None:
        """Add it to the parser of a command."""
        parser.allow_abbrev = False
        super().add_to_parser(parser)


def _arg(*flags: str, **options: Any) -> Arg:
    return _WholeName(flags, **options)  # type: ignore[no-untyped-call]


def _former(*flags: str, dest: str, **options: Any) -> Arg:
    """Describe a name that an option had before."""
    return _arg(*flags, dest=dest, help=argparse.SUPPRESS, default=argparse.SUPPRESS, **options)


CONN_ID = _arg(
    "--conn-id",
    "--astro-zero-conn-id",
    dest="conn_id",
    help="The Airflow connection of type astro_zero (default: %(default)s)",
    default=DEFAULT_CONN_ID,
    metavar="CONN_ID",
)

ID = _arg("instance_id", nargs="?", metavar="ID", help="The id of the instance")
IDS = _arg("instance_ids", nargs="*", metavar="ID", help="The ids of the instances, instead of a filter")

STATE = _arg(
    "--state",
    "--states",
    dest="state",
    action="append",
    metavar="STATE",
    help="Only instances in this state, by its name or its first word; may be given several times. One of: "
    + ", ".join(STATES),
)
ALL = _arg("--all", action="store_true", help="Instances in all states, also those that have ended")
BPM_NAME = _arg("--bpm-name", metavar="NAME", help="Only instances of the BPM of this name")
FORMER_BPM_NAME = _former("--process", dest="bpm_name")
BUSINESS_KEY = _arg("--business-key", metavar="KEY", help="Only instances that carry this business key")
OLDER_THAN = _arg(
    "--older-than",
    metavar="AGE",
    help="Only instances that were started longer ago, such as 90s, 15m, 2h, 7d or 1d12h. Needs the connection's extra "
    "'timezone'",
)
YOUNGER_THAN = _arg(
    "--younger-than", metavar="AGE", help="Only instances that were started since; as --older-than"
)
FILTER = (STATE, BPM_NAME, FORMER_BPM_NAME, BUSINESS_KEY, OLDER_THAN, YOUNGER_THAN)

MAX_CONCURRENCY = (
    _arg(
        "--max-concurrency",
        type=int,
        default=8,
        metavar="N",
        help="How many instances are changed at a time at most (default: %(default)s)",
    ),
    _former("--concurrency", dest="max_concurrency", type=int),
)
DRY_RUN = _arg("--dry-run", action="store_true", help="Show what would be changed, and change nothing")
VARIABLE = _arg(
    "--variable",
    action="append",
    metavar="NAME=VALUE",
    help="A variable and its value: JSON where it reads as JSON, and text otherwise. May be given several times",
)
VARIABLES = (
    VARIABLE,
    _arg(
        "--variables",
        metavar="JSON",
        help="A JSON object of variables and their values. Those of --variable come before it",
    ),
    _arg(
        "--variables-file",
        metavar="PATH",
        help="A file that holds such an object. Those of --variable and --variables come before it",
    ),
)
CHECK_VARIABLES = _arg(
    "--check-variables",
    "--check",
    dest="check_variables",
    action="store_true",
    help="Read the definition of the BPM first, and send nothing if it lacks one of the variables",
)
POLL_INTERVAL = (
    _arg(
        "--poll-interval",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="Seconds between two looks, at least 1 (default: %(default)g)",
    ),
    _former("--interval", dest="poll_interval", type=float),
)
TIMEOUT = _arg(
    "--timeout", type=float, metavar="SECONDS", help="Seconds after which the wait fails (default: never)"
)

BULK = (IDS, *FILTER, *MAX_CONCURRENCY, DRY_RUN, ARG_YES, ARG_OUTPUT)
BULK_DESCRIPTION = (
    "Give ids or a filter. Without --state a filter takes the instances that have not ended. What would be changed is shown"
    " and\ncounted first, and you are asked; nothing else is ever changed. With --yes you are not asked, and without a"
    " terminal you have\nto give it. With --dry-run nothing is changed at all. Ctrl-C stops it; what is under way then comes to its end."
)


def _command(name: str, help_text: str, function: str, *args: Arg, description: str = "") -> ActionCommand:
    """Describe a command.

    :param function: where the function of the command is: ``module.name``, within this package.
    """
    return ActionCommand(
        name=name,
        help=help_text,
        description=f"{help_text}.\n{description}".strip(),
        func=_lazy(function),
        args=(*args, CONN_ID, ARG_VERBOSE),
        epilog=exit_codes.table(),
    )


def _lazy(function: str) -> Callable[[argparse.Namespace], None]:
    def command(args: argparse.Namespace) -> None:
        from airflow_provider_astrobpm.cli.runner import run  # noqa: PLC0415 - only when it runs

        run(function, args)

    return command


COMMANDS = (
    _command(
        "list",
        "List instances",
        "read_commands.list_instances",
        *FILTER,
        ALL,
        ARG_OUTPUT,
        description="Those that have not ended, unless --state or --all says otherwise. Each state costs a request.",
    ),
    _command(
        "show",
        "Show an instance",
        "read_commands.show_instance",
        ID,
        _arg(
            "--business-key",
            metavar="KEY",
            help="The business key that it carries, where you do not have its id",
        ),
        _arg(
            "--bpm-name",
            metavar="NAME",
            help="The BPM's name, where other BPMs' instances carry the key too",
        ),
        FORMER_BPM_NAME,
        ARG_OUTPUT,
    ),
    _command(
        "definitions",
        "List BPM definitions, one row a version, or show one with its variables",
        "read_commands.definitions",
        _arg(
            "what",
            nargs="*",
            metavar="show NAME",
            help="Show the definition of the BPM of this name, with its variables, instead of a list",
        ),
        _arg("--version", help="With show: the version to show; by default the enabled one"),
        _arg("--bpm-name", metavar="NAME", help="Only versions of the BPM of this name"),
        FORMER_BPM_NAME,
        _arg("--like", action="store_true", help="A part of the name is enough"),
        _arg("--enabled", action="store_true", help="Only versions that a start takes"),
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
            help="The BPM's name, with its namespace where it has one",
        ),
        _arg("--bpm-name", dest="bpm_name_too", metavar="NAME", help="The same, as an option"),
        *VARIABLES,
        CHECK_VARIABLES,
        _arg("--business-key", metavar="KEY", help="The business key that the instance is to carry"),
        _arg("--title", help="The title of the instance"),
        _arg("--version", help="The version to run, even if it is not the enabled one"),
        _arg("--wait-for-completion", action="store_true", help="Wait until the instance has ended"),
        _former("--wait", dest="wait_for_completion", action="store_true"),
        *POLL_INTERVAL,
        TIMEOUT,
        ARG_OUTPUT,
        description="It is started by one request, which is never sent again when it may have been taken.",
    ),
    _command("suspend", "Suspend instances", "change_commands.suspend", *BULK, description=BULK_DESCRIPTION),
    _command("resume", "Resume instances", "change_commands.resume", *BULK, description=BULK_DESCRIPTION),
    _command(
        "terminate", "Terminate instances", "change_commands.terminate", *BULK, description=BULK_DESCRIPTION
    ),
    _command(
        "set",
        "Set variables of instances",
        "change_commands.set_variables",
        *VARIABLES,
        CHECK_VARIABLES,
        *BULK,
        description="Astro Zero ignores unknown and read-only names without a word; --check-variables finds unknown ones.\n"
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
            help="Watch until they are in this state instead; may be given several times",
        ),
        *POLL_INTERVAL,
        TIMEOUT,
        description="Give ids or a filter; those that it takes now are watched. Without a terminal each change is a line.",
    ),
    _command(
        "doctor",
        "Find out what an endpoint really does at the points that its API reference leaves open",
        "doctor_command.doctor",
        _arg(
            "--start",
            metavar="BPM_NAME",
            help="Start an instance of this BPM to probe more, and terminate it. Without it nothing is changed",
        ),
        _arg(
            "-o",
            "--output",
            choices=("text", "json"),
            default="text",
            metavar="(text, json)",
            help="Output format (default: %(default)s)",
        ),
    ),
)


def get_cli_commands() -> list[GroupCommand]:
    """Return the commands for Airflow's command line: one group."""
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
