"""Metrics of policies on logged choices, each with an interval. Needs numpy only. Read in this order:

- `examples`: the logged choices as arrays, and what a policy does in them.
- `off_policy`: the estimators, each a ratio of sums, and warnings about too few weights or a wrong log.
- `metrics`: the tables of metrics. A new metric is an estimator and one line there.
- `bootstrap`: intervals, from resamples of the users.
- `policies`: all of this for several policies, on examples or on a log of all impressions.
- `position_bias`: how much a candidate's position decides, from the same examples in several orders.
"""
