"""Metrics of policies on logged choices, each with an interval. Needs numpy only. Read in this order:

- `examples`: the logged choices as arrays, and what a policy does in them.
- `exploration`: what a run that explored would choose, and the policy that it served.
- `off_policy`: the estimators, each a ratio of sums, and warnings about too few weights or a wrong log.
- `metrics`: the tables of metrics. A new metric is an estimator and one line there.
- `held_out`: the same metrics from sums, for validation during training, and the weights that training can use.
- `logging_policy`: how far a log is from a uniform one, and what follows from it.
- `reward_model`: whether a reward model predicts better than a constant, and is calibrated.
- `bootstrap`: intervals, from resamples of the users.
- `policies`: all of this for several policies, on examples or on a log of all impressions, and how much a candidate's
  position decides.
"""
