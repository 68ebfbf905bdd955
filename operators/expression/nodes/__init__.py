"""Syntax tree nodes by class: each handler takes the translator and the node, and gives the node's value."""

from operators.expression.nodes.call import AGGREGATES, CALLS, is_aggregate, is_unknown_call
from operators.expression.nodes.conditional import CONDITIONALS
from operators.expression.nodes.leaf import LEAVES, struct_field
from operators.expression.nodes.operator import OPERATORS

HANDLERS = {**LEAVES, **OPERATORS, **CALLS, **CONDITIONALS}

__all__ = ["AGGREGATES", "HANDLERS", "is_aggregate", "is_unknown_call", "struct_field"]
