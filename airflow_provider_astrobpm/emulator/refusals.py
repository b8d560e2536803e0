"""Refusals of the emulator: one ``resCode`` for each reason.

The real codes are undocumented, so these are the emulator's own. They have the real prefix, ``405230``, but a client
must not rely on them. Two codes were seen on a real server: 405230602 and 405230603, an invalid token.
"""

from __future__ import annotations

from typing import Literal


class ResultCode:
    """The emulator's ``resCode`` values."""

    SUCCESS = "0"
    BAD_REQUEST = "405230010"
    STATES_MISSING = "405230011"
    UNKNOWN_STATE = "405230012"
    SEVERAL_STATES = "405230013"
    UNKNOWN_FIELD = "405230014"
    UNKNOWN_PROCESS = "405230020"
    NO_ACTIVE_VERSION = "405230021"
    UNKNOWN_VERSION = "405230022"
    UNKNOWN_VARIABLE = "405230023"
    DUPLICATE_BUSINESS_KEY = "405230024"
    UNKNOWN_INSTANCE = "405230030"
    UNKNOWN_ACTION = "405230031"
    INSTANCE_CLOSED = "405230032"
    ALREADY_SO = "405230033"
    STILL_OPEN = "405230034"
    NO_PERSON_AWAITED = "405230035"
    UNKNOWN_DEFINITION = "405230040"
    CSRF = "405230050"
    NO_SUCH_API = "405230060"
    METHOD_NOT_ALLOWED = "405230061"
    FORBIDDEN = "405230070"
    FOREIGN_HOST = "405230080"
    INJECTED = "405230099"
    UNAUTHORISED = "405230602"
    TOKEN_INVALID = "405230603"  # noqa: S105 - a code


class Refusal(Exception):  # noqa: N818 - a refusal is a response, not a failure of the emulator
    """The emulator understood a request and refuses it.

    :param code: the ``resCode``, one of :class:`ResultCode`.
    :param message: the ``resMsg``.
    :param status: a fixed HTTP status; with ``None`` the switch ``refusal_status`` decides.
    """

    def __init__(self, code: str, message: str, *, status: Literal[403, 404, 405] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
