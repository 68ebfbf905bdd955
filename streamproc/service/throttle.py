"""Guessing is slow: an address that has tried several different wrong tokens is not listened to for a while.

The same wrong token again is no new guess: a client that was set up wrongly does not lock out its neighbours.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

GUESSES_MAX: Final = 10  # different wrong tokens of one address within the window
WINDOW_SECONDS: Final = 60.0
ADDRESSES_MAX: Final = 1024  # remembered; the one that has been silent longest is forgotten first

_IPV6_PREFIX: Final = 64  # one customer has at least that many addresses


@dataclass(slots=True)
class _Guesses:
    until: float
    digests: set[bytes] = field(default_factory=set)


class Throttle:
    """Counts wrong guesses by address, in bounded memory. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._guesses: OrderedDict[str, _Guesses] = OrderedDict()

    def wait_seconds(self, address: str) -> float:
        """How long nothing that this address shows is looked at; 0: it is."""
        guesses = self._guesses.get(_network(address))
        if guesses is None or len(guesses.digests) < GUESSES_MAX:
            return 0.0
        return max(0.0, guesses.until - self._clock())

    def failed(self, address: str, digest: bytes) -> None:
        """`digest` was shown and is nobody's."""
        network, now = _network(address), self._clock()
        guesses = self._guesses.get(network)
        if guesses is None or guesses.until <= now:
            guesses = self._guesses[network] = _Guesses(now + WINDOW_SECONDS)
        if len(guesses.digests) < GUESSES_MAX:
            guesses.digests.add(digest)
        self._guesses.move_to_end(network)
        if len(self._guesses) > ADDRESSES_MAX:
            self._guesses.popitem(last=False)


def _network(address: str) -> str:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(ip), _IPV6_PREFIX), strict=False))
    return address
