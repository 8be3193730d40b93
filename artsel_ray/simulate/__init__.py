"""Simulated worlds: users, titles, artworks and a log of impressions whose oracle is known. Read in this order:

- `settings`: the flags.
- `job`: writes a world, one group of users after another.
- `world`: the formulas: matches, the logging policy, engagement, and the best that a predictor can reach.
- `themes` (with themes.toml): what artworks show and users like.
- `captions` (with captions.toml), `drawing`: captions and images of artworks.
- `histories`: titles and who watched them; `synthetic` generates them, `movielens` reads real ones.
- `tables`: from arrays to the Parquet tables.
"""
