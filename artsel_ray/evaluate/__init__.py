"""Evaluates predictions on held-out examples. Read in this order:

- `settings`: the flags.
- `job`: reads the inputs, writes the outputs.
- `example_table`: examples as arrays, which give users, titles and artworks their numbers.
- `choices`: predictions, the oracle's choices and permuted runs, joined to the examples; all of them as policies.
- `known_and_new`: the same policies on titles that are known to training and on those that are not, apart.
- `impressions`: the same policies on a log of all impressions.
- `content`: the content of metrics.json.
"""
