"""SQL scalar expressions over columns, type-checked against a schema and compiled to polars.

The semantics are Flink's and the SQL standard's: three-valued logic, integer division toward zero,
text and numbers never compared. Where a value cannot be computed without changing it (a number out of
range, text that is no number) evaluation raises; nothing depends on the clock or on chance.
"""

from operators.expression.compile import Scalar, compile_predicate, compile_scalar
from operators.expression.error import ExpressionError, TypeNotKnown

__all__ = ["ExpressionError", "Scalar", "TypeNotKnown", "compile_predicate", "compile_scalar"]
