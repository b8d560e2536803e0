"""What the tests of batches share: pauses without jitter."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _no_jitter(no_jitter: None) -> None:
    pass
