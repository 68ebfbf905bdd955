"""Takes secrets out of whatever is shown: the values it was told of, and what stands under a secret's key."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import quote

REDACTED: Final = "***"

_SECRET_KEY: Final = re.compile(r"password|passwd|passphrase|token|secret|authorization|api_?key", re.IGNORECASE)
_SHORT: Final = 4  # a secret shorter than this is replaced only as a whole word, else it would eat every text


class Redaction:
    """Grows as secrets become known; never shows one again."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self.add(secrets)

    def add(self, secrets: Iterable[str]) -> None:
        """Hide these values too, also in the spelling they have in a URL or a repr."""
        for secret in filter(None, (secret.strip() for secret in secrets)):
            self._secrets |= {secret, quote(secret, safe=""), repr(secret)[1:-1]}
        longest_first = sorted(self._secrets, key=lambda secret: (-len(secret), secret))
        self._pattern = re.compile("|".join(map(_one, longest_first))) if longest_first else None

    def text(self, text: str) -> str:
        """`text` without the values."""
        return self._pattern.sub(REDACTED, text) if self._pattern else text

    def value(self, value: object) -> object:
        """`value` without the values, however deep; anything that JSON does not know becomes its text."""
        match value:
            case None | bool() | int() | float():
                return value
            case str():
                return self.text(value)
            case Mapping():
                return {str(key): self.under(str(key), inner) for key, inner in value.items()}
            case list() | tuple() | set() | frozenset():
                return [self.value(inner) for inner in value]
            case _:
                return self.text(str(value))

    def under(self, key: str, value: object) -> object:
        """What may be shown of `value`, which stands under `key`."""
        return REDACTED if _SECRET_KEY.search(key) else self.value(value)


def _one(secret: str) -> str:
    escaped = re.escape(secret)
    return rf"(?<!\w){escaped}(?!\w)" if len(secret) < _SHORT else escaped
