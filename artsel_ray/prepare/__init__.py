"""From logs and artworks to examples, splits and requests, in three stages on Ray. Read in this order:

- `settings`: the flags.
- `job`: claims the output, runs the stages, and reports what became of every row.
- `plan`: what every task of a run knows, the slices of its input, the counts of rows by outcome, and the invalid rows.
- `pairs`: stage 1, from a slice of a log to its valid rows, sorted by bucket of users; stage 2, from a bucket's rows of
  all slices to pairs of user and title, each at its first engagement, with the range of its history.
- `splits`: which pairs are for training, validation and test; cut when the keys of all pairs are known.
- `examples`: stage 3, from a bucket's pairs to examples and requests.
"""
