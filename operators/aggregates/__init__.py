"""Aggregates as mergeable columnar partials.

`count sum min max avg stddev variance first_value last_value median quantile_cont approx_count_distinct
array_agg`, each with `filter (where …)`, and expressions over them. All but `count(*)` and `array_agg`
pass over nulls; all but the counts are null where there was nothing to aggregate. `stddev` and
`variance` are the sample's (null for a single value), `stddev_pop` and `var_pop` the population's.
"""

from operators.aggregates.compile import AggregateErrors, compile_aggregates
from operators.aggregates.plan import AggregatePlan

__all__ = ["AggregateErrors", "AggregatePlan", "compile_aggregates"]
