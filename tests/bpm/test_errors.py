"""Errors keep what they say wherever they are carried."""

from __future__ import annotations

import copy
import pickle

import pytest

from airflow_provider_astrobpm.bpm import errors
from airflow_provider_astrobpm.bpm.instance import BpmInstance

INSTANCE = BpmInstance(id="1", name="A", state="Broken", is_closed=True)
CAUSE = errors.InterruptedCallError("cut", status=200, res_code="7", res_msg="words")

ERRORS = [
    CAUSE,
    errors.SettingsError("host is empty", "my_conn"),
    errors.AmbiguousStartError(CAUSE, "k"),
    errors.InstanceNotFoundError("instance '1'", most_rows=500, refusal=CAUSE),
    errors.SeveralInstancesError("business key 'k'", [INSTANCE, INSTANCE]),
    errors.InstanceClosedError(INSTANCE),
    errors.WaitFailedError(INSTANCE, "it ended"),
    errors.WaitTimeoutError("instance '1'", 60, INSTANCE),
    errors.UnknownEventError({"status": "?"}, "no such status"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickling_and_copying(error: errors.AstroZeroError) -> None:
    error.locate("do it", "my_conn")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert vars(again).keys() == vars(error).keys()
