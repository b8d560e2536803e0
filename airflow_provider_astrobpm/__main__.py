"""``python -m airflow_provider_astrobpm``: the commands of ``airflow astro-zero``, on every Airflow."""

from airflow_provider_astrobpm.cli.definition import make_parser


def main(arguments: list[str] | None = None) -> None:
    """Run a command, and exit with its code.

    :param arguments: what follows the name of the program; by default what it was called with.
    """
    args = make_parser().parse_args(arguments)
    args.func(args)


if __name__ == "__main__":
    main()
