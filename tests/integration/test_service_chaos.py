"""A few rounds of `make chaos OPTIONS=--service`: random operations, cut short by kill -9. The seed is printed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.broker import Broker
from tests.service_chaos import ServiceUnderFire

_ROUNDS = 5


@pytest.mark.kafka
@pytest.mark.slow
def test_operations_cut_short(kafka: Broker, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    left = iter(range(_ROUNDS))
    ServiceUnderFire(kafka, tmp_path, seed).rounds(lambda: next(left, None) is not None)
