"""Fuzz one target in this process: ``python -m tests.fuzz.fuzz_one TARGET [libFuzzer's options and folders]``.

What it leaves in the temporary folder is removed by ``tests.fuzz``, which starts it.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from pathlib import Path

SLOWER_WITH_COVERAGE = 5  # times, at most: what the instrumentation costs


def main() -> None:
    """Fuzz until libFuzzer's options say stop, or a fault is found."""
    import atheris  # noqa: PLC0415 - the only dependency of the group ``fuzz``

    os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="astrobpm-fuzz-"))
    os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
    warnings.simplefilter("ignore")
    with atheris.instrument_imports(include=["airflow_provider_astrobpm"]):
        from tests.fuzz import inputs, mutator, targets  # noqa: PLC0415 - instrumented as they are imported

    name = sys.argv.pop(1)
    # A merge begins this program again, by its name.
    with tempfile.NamedTemporaryFile("w", prefix="astrobpm-fuzz-", delete=False) as again:
        again.write(f'#!/bin/sh\nexec {sys.executable} -m tests.fuzz.fuzz_one {name} "$@"\n')
    Path(again.name).chmod(0o700)
    sys.argv[0] = again.name
    seconds = inputs.MAX_SECONDS * SLOWER_WITH_COVERAGE

    def change(data: bytes, max_size: int, seed: int) -> bytes:
        return mutator.mutate(data, max_size, seed, atheris.Mutate)

    def test_one(data: bytes) -> None:
        try:
            targets.run(name, data, seconds)
        except BaseException:
            # libFuzzer writes it too, unless its own alarm ends the process first.
            targets.OUTPUT.mkdir(parents=True, exist_ok=True)
            (targets.OUTPUT / f"{name}-fault").write_bytes(data)
            raise

    atheris.Setup(sys.argv, test_one, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
