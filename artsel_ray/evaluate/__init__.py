"""Evaluates predictions on held-out examples. Read in this order:

- `settings`: the flags.
- `job`: reads the inputs, writes the outputs.
- `example_table`: examples as arrays, which give users, titles and artworks their numbers.
- `choices`: predictions, and the oracle's choices, joined to the examples.
- `policies`: the model and its references as policies on the examples.
- `impressions`: the same policies on a log of all impressions.
- `permutations`: runs of the same pairs with their candidates in other orders.
- `content`: the content of metrics.json.
"""
