"""x"""

from __future__ import annotations

from random import Random

from tests.bpm.history import *
from tests.bpm.history_server import USED_FAULTS
from tests.bpm.history_world import World


def history_of(seed, subject):
    rng = Random(seed)
    return any_history(rng.choice, subject, USED_FAULTS)


def fails(history):
    try:
        World(history).run()
    except AssertionError:
        return True
    return False
