"""The state of one emulator, and how it is reset."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from airflow_provider_astrobpm.emulator.clock import VirtualClock
from airflow_provider_astrobpm.emulator.engine import Engine
from airflow_provider_astrobpm.emulator.faults import FaultRules
from airflow_provider_astrobpm.emulator.process_scripts import DEFAULT_SCRIPT, Process, load_script
from airflow_provider_astrobpm.emulator.request_log import RequestLog
from airflow_provider_astrobpm.emulator.switches import Switches
from airflow_provider_astrobpm.emulator.token_store import TokenStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_astrobpm.emulator.replay import Replay

CLIENT_ID = "emulator-client"
CLIENT_SECRET = "emulator-only-secret"  # noqa: S105 - valid only for emulators
TOKEN_LIFETIME = 600

OutageMode = Literal["off", "cut", "503"]


@dataclass(frozen=True)
class EmulatorSettings:
    """The initial state of an emulator.

    :param processes: the processes that can be started.
    :param token_lifetime: seconds; 600 is the only value in the API reference.
    :param base_path: a prefix of every path of the API, such as ``/portal/x``.
    :param allowed_hosts: host names that are accepted in addition to IP addresses and localhost.
    :param replay: answers every request to the API, instead of the processes.
    """

    processes: tuple[Process, ...] = field(default_factory=lambda: tuple(load_script(DEFAULT_SCRIPT)))
    switches: Switches = field(default_factory=Switches)
    client_id: str = CLIENT_ID
    client_secret: str = field(default=CLIENT_SECRET, repr=False)
    token_lifetime: int = TOKEN_LIFETIME
    base_path: str = ""
    allowed_hosts: frozenset[str] = frozenset()
    replay: Replay | None = None

    def __post_init__(self) -> None:
        if self.token_lifetime < 1:
            raise ValueError(f"token_lifetime must be at least 1 second, not {self.token_lifetime}")
        if self.base_path and (not self.base_path.startswith("/") or self.base_path.endswith("/")):
            raise ValueError(
                f"base_path must begin with a slash and not end with one, not {self.base_path!r}"
            )
        if not self.client_id or not self.client_secret:
            raise ValueError("client_id and client_secret must not be empty")


class Emulator:
    """The state of one emulator. Not thread-safe: it belongs to the event loop that serves it.

    The ``listeners`` are called after each request that may have changed something.
    """

    engine: Engine
    tokens: TokenStore
    outage: OutageMode

    def __init__(self, settings: EmulatorSettings | None = None) -> None:
        self.settings = settings or EmulatorSettings()
        self.clock = VirtualClock()
        self.faults = FaultRules()
        self.request_log = RequestLog()
        self.listeners: set[Callable[[], None]] = set()
        self.replay = self.settings.replay
        self.reset()

    @property
    def switches(self) -> Switches:
        """The current switches."""
        return self.engine.switches

    def notify_listeners(self) -> None:
        """Call every listener."""
        for listener in tuple(self.listeners):
            listener()

    def reset(self) -> None:
        """Remove instances, tokens, faults and outages, and restore the switches and processes of the settings."""
        self.clock.ahead = 0.0
        self.faults.active.clear()
        self.request_log.reset()
        self.outage = "off"
        self.replay = self.settings.replay
        if self.replay is not None:
            self.replay.rewind()
        self.engine = Engine(self.clock, self.settings.processes, self.settings.switches)
        self.tokens = TokenStore(self.clock, self.settings.token_lifetime)
