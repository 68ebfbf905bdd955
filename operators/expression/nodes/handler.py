"""The shape of a handler; what handlers need of the translator is its public methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from operators.expression.value import Value

if TYPE_CHECKING:
    from operators.expression.translator import Translator

Handler = Callable[["Translator", Any], Value]
