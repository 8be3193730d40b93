"""Evaluates predictions on held-out examples. Read in this order:

- `settings`: the flags.
- `job`: reads the inputs, writes the outputs.
- `example_table`: examples as arrays, which give users, titles and artworks their numbers.
- `exploration`: predictions of a run that explored: their most likely candidates, and the policy as served.
- `choices`: predictions and the oracle's choices, joined to the examples.
- `permutations`: runs with other orders of the candidates, joined likewise.
- `policies`: all of them as policies on the examples.
- `known_and_new`: the same policies on titles that are known to training and on those that are not, apart.
- `impressions`: the same policies on a log of all impressions.
- `content`: the content of metrics.json.
"""
