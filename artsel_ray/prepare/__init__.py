"""From logs and artworks to examples, splits and requests, in three stages on Ray. Read in this order:

- `settings`: the flags.
- `job`: claims the output, runs the stages, and reports what became of every row.
- `plan`: what every task of a run knows, and the slices of its input.
- `partition`: stage 1, from a slice of a log to its valid rows by bucket of users.
- `pairs`: stage 2, from a bucket's rows to pairs of user and title with their histories.
- `splits`: which pairs are for training, validation and test.
- `examples`: stage 3, from a bucket's pairs to examples and requests.
- `outcomes`: the counts of rows by what became of them, and the invalid rows.
"""
