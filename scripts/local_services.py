"""A private PostgreSQL and Redis for a ``Stack``. They run Debian's programs, but not Debian's services.

Both listen on a free port of the loopback interface, require a password that is generated at start, and write only below
the scratch folder.
"""

from __future__ import annotations

import grp
import os
import pwd
import secrets
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from local_stack import StackError, free_port

if TYPE_CHECKING:
    from local_stack import Child, Stack

INSTALL_SECONDS = 300
START_SECONDS = 60

_DEBIAN_BINARIES = Path("/usr/lib/postgresql")  # has a folder for each version; none of them is on the PATH
_POLICY = Path("/usr/sbin/policy-rc.d")
_START_NO_SERVICE = "#!/bin/sh\nexit 101\n"


def install_services(stack: Stack) -> None:
    """Install Debian's packages ``postgresql`` and ``redis-server`` if their programs are missing.

    :raises StackError: if the installation fails, or needs root and this process is not root.
    """
    missing = [
        package
        for package, program in (
            ("postgresql", _postgres_program("initdb")),
            ("redis-server", _redis_program()),
        )
        if program is None
    ]
    if not missing:
        return
    if os.geteuid() != 0:
        raise StackError(f"as root: apt-get install --no-install-recommends {' '.join(missing)}")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # The packages start their own service unless this file forbids it.
    made = not _POLICY.exists()
    if made:
        _POLICY.write_text(_START_NO_SERVICE)
        _POLICY.chmod(0o755)
    try:
        stack.run("apt-get update", ["apt-get", "update", "-qq"], env, INSTALL_SECONDS)
        install = ["apt-get", "install", "-qq", "--yes", "--no-install-recommends", *missing]
        stack.run("apt-get install", install, env, INSTALL_SECONDS)
    finally:
        if made:
            _POLICY.unlink()


def start_postgres(stack: Stack) -> str:
    """Start an empty database, and return its address without a scheme: ``user:password@host:port/name``."""
    initdb, postgres = _postgres_program("initdb"), _postgres_program("postgres")
    if initdb is None or postgres is None:
        raise StackError("PostgreSQL is not installed")
    port, password = free_port(), secrets.token_hex()
    folder = stack.home / "postgres"
    folder.mkdir()
    data, password_file = folder / "data", folder / "password"
    password_file.write_text(password)
    as_owner: list[str] = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        owner = pwd.getpwnam("postgres")
        for path in (folder, password_file):
            os.chown(path, owner.pw_uid, owner.pw_gid)
        stack.home.chmod(0o711)  # the owner must be able to pass through it, but not to list it
        group = grp.getgrgid(owner.pw_gid).gr_name
        as_owner = ["setpriv", f"--reuid={owner.pw_name}", f"--regid={group}", "--init-groups"]
        as_owner += ["env", f"--chdir={folder}"]  # it needs a working directory that it may enter
    env = {"PATH": os.environ.get("PATH", os.defpath), "PGDATA": str(data), "LC_ALL": "C.UTF-8"}
    access = ["--username=airflow", "--auth=scram-sha-256", f"--pwfile={password_file}"]
    # No sync: the data is temporary.
    stack.run("initdb", [*as_owner, str(initdb), *access, "--encoding=UTF8", "--no-sync"], env, START_SECONDS)
    settings = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "max_connections": "200",
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
    }
    given = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    child = stack.start("postgres", [*as_owner, str(postgres), "-p", str(port), *given], env)
    child.end_with = signal.SIGINT  # on SIGTERM it waits for its clients
    _until_printed(child, "database system is ready to accept connections")
    return f"airflow:{password}@127.0.0.1:{port}/postgres"


def start_redis(stack: Stack) -> str:
    """Start an empty in-memory Redis, and return its URL."""
    program = _redis_program()
    if program is None:
        raise StackError("Redis is not installed")
    port, password = free_port(), secrets.token_hex()
    folder = stack.home / "redis"
    folder.mkdir(mode=0o700)
    configuration = folder / "redis.conf"
    lines = ["bind 127.0.0.1", f"port {port}", f"requirepass {password}", f"dir {folder}"]
    configuration.write_text("\n".join([*lines, 'save ""', "appendonly no"]))
    child = stack.start("redis", [program, str(configuration)], {"PATH": os.environ.get("PATH", os.defpath)})
    _until_printed(child, "Ready to accept connections")
    return f"redis://:{password}@127.0.0.1:{port}/0"


def _until_printed(child: Child, text: str) -> None:
    child.wait_for(f"{text!r}", lambda: text in child.output() or None, START_SECONDS)


def _postgres_program(name: str) -> Path | None:
    """Return a program of the newest installed version."""
    found = [path for path in _DEBIAN_BINARIES.glob(f"*/bin/{name}") if path.parents[1].name.isdigit()]
    return max(found, key=lambda path: int(path.parents[1].name), default=None)


def _redis_program() -> str | None:
    return shutil.which("redis-server")
