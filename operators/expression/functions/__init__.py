"""The scalar functions, by name; every module beside this one registers its own in the table."""

from operators.expression.functions import collection, number, text, time
from operators.expression.functions.registry import FUNCTIONS, REFUSED, Call, call_function

__all__ = ["FUNCTIONS", "REFUSED", "Call", "call_function", "collection", "number", "text", "time"]
