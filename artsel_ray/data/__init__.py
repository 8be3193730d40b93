"""Tables in: every table is read, cast and checked here. Read in this order:

- `checked_reader`: the one reader of tables: valid rows, and invalid rows with their reasons.
- `casting`: which types of other writers fit a table, and the casts.
- `checks`: which rows of a table are invalid, and why.
- `catalog`: titles with their artworks as arrays.
- `images`: one image, from any storage to plain pixels.
- `image_validation`: the images of a catalog, checked on Ray before anything relies on them.
- `shuffle`: a partition by key through storage, between two stages of a job.
"""
