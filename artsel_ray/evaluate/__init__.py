"""Evaluates predictions on held-out examples. Read in this order:

- `settings`: the flags.
- `job`: reads the inputs, writes the outputs.
- `example_table`: examples as arrays, which give users, titles and artworks their numbers.
- `choices`: predictions, the oracle's choices and permuted runs, joined to the examples; all of them as policies.
- `impressions`: the same policies on a log of all impressions.
- `content`: the content of metrics.json.
"""
