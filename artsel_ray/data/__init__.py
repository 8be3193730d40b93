"""Tables in: every table is read, cast and checked here. Read in this order:

- `checked_reader`: the one reader of tables: valid rows, and invalid rows with their reasons.
- `casting`: which types of other writers fit a table, and the casts.
- `checks`: which rows of a table are invalid, and why.
- `images`: one image, from any storage to plain pixels.
- `catalog`: titles with their artworks as arrays; their images are validated on Ray.
- `shuffle`: a partition by key through storage, between two stages of a job.
"""
