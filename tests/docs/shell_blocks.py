"""Run the shell blocks by bash, in a separate folder, with an emulator if the page has one."""

from __future__ import annotations

import functools
import http.client
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.warm_python import write_commands

if TYPE_CHECKING:
    from tests.docs.blocks import Block

PORT = "8765"
"""The emulator's port on the pages."""

BLOCK_TIMEOUT_SECONDS = 30.0

_BASH = ("bash", "-euo", "pipefail")


def run_shell(
    block: Block, port: int, folder: Path, environment: dict[str, str]
) -> tuple[str, dict[str, str]]:
    """Run a block, and the shell code of its note before it.

    :param port: that of an emulator, which takes the place of the one in the text.
    :param folder: the working directory of the commands.
    :param environment: environment variables for the commands, in addition to those of this process.
    :returns: the output of the block on stdout, and its shell's environment at the end.
    """
    printed, left = folder / ".printed", folder / ".environment"
    (folder / ".curlrc").write_text("fail\n")  # otherwise curl exits with 0 after any answer
    script = "\n".join(
        [
            block.notes["setting"].text if "setting" in block.notes else "",
            f"exec 3>&1 >{printed.name}",
            block.text,
            "exec >&3",
            f"env -0 >{left.name}",
        ]
    )
    with subprocess.Popen(
        [*_BASH, "-c", script.replace(PORT, str(port))],
        cwd=folder,
        env={**_environment(), "HOME": str(folder), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said, _ = process.communicate(timeout=BLOCK_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise AssertionError(
                f"{block} has not ended after {BLOCK_TIMEOUT_SECONDS:g} s; does it serve?"
            ) from None
    output = printed.read_text() if printed.exists() else ""
    assert process.returncode == 0, f"{block} ended with code {process.returncode}\n{output}{said}"
    after = dict(entry.partition("=")[::2] for entry in left.read_text().split("\0") if entry)
    return output.replace(str(port), PORT), after


def serve(block: Block, port: int, folder: Path) -> None:
    """Run the command of a block until it answers at its port, and stop it as Ctrl-C does. Its note before it is run first.

    :param port: a free one, which takes the place of the one in the text.
    """
    assert PORT in block.text, f"{block} serves, and names no port {PORT}"
    before = block.notes["setting"].text if "setting" in block.notes else ""
    log = folder / ".log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*_BASH, "-c", f"{before}\nexec {block.text.replace(PORT, str(port))}"],
            cwd=folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + BLOCK_TIMEOUT_SECONDS
        while not _answers(port):
            assert process.poll() is None, f"{block} has ended\n{log.read_text()}"
            assert time.monotonic() < deadline, f"{block} does not answer\n{log.read_text()}"
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(BLOCK_TIMEOUT_SECONDS) == 0, f"{block} failed\n{log.read_text()}"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(BLOCK_TIMEOUT_SECONDS)


def matches(shown: str, printed: str) -> bool:
    """Return whether an output is as a page shows it; ``…`` stands for any text."""
    parts = [re.escape(part) for part in shown.strip().split("…")]
    return re.fullmatch(".*?".join(parts), printed.strip(), re.DOTALL) is not None


def _environment() -> dict[str, str]:
    """Return the environment of a shell in which the virtual environment of these tests is active."""
    tools = [str(_commands()), str(Path(sys.executable).parent)]
    return {**os.environ, "PATH": os.pathsep.join([*tools, os.environ.get("PATH", os.defpath)])}


@functools.cache
def _commands() -> Path:
    """Return a folder with ``python`` and ``airflow``, which do not import everything again for each command."""
    folder = Path(os.environ["AIRFLOW_HOME"]) / "commands"
    folder.mkdir()
    write_commands(folder)
    return folder


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/_emulator/counts")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
