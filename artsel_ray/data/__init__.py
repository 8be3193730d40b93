"""Tables in: every table is read, cast and checked here. Read in this order:

- `checked_reader`: the one reader of tables: valid rows, and invalid rows with their reasons.
- `footers`: what a file says of itself, and a table's columns out of it.
- `hive`: columns in the names of folders.
- `limits`: what one row may cost, and how it is cut before it costs it.
- `casting`: which types of other writers are accepted, and how their values are cast.
- `conformity`: everything that is wrong with files, at once and with its remedy; and what is cast.
- `checks`: which rows of a table are invalid, and why.
- `image_files`: files of images that the data names, only below folders that the operator named.
- `images`: one image, from any storage to plain pixels.
- `catalog`: titles with their artworks as arrays; their images are validated on Ray.
- `priors`: another model's predictions as a prior.
- `shuffle`: a partition by key through storage, between two stages of a job.
"""
