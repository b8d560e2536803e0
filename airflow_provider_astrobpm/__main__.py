"""``python -m airflow_provider_astrobpm``: the commands of ``airflow astro-zero``, on every Airflow version."""

from airflow_provider_astrobpm.cli.definition import make_parser


def main(arguments: list[str] | None = None) -> None:
    """Run a command, and exit with its code.

    :param arguments: the command-line arguments; by default, those of this process.
    """
    args = make_parser().parse_args(arguments)
    args.func(args)


if __name__ == "__main__":
    main()
