"""Simulated worlds: users, titles, artworks and a log of impressions whose oracle is known. Read in this order:

- `settings`: the flags.
- `job`: writes a world, one group of users after another, and its arrays as Parquet tables.
- `world`: the formulas: matches, the logging policy, engagement, and the best that a predictor can reach.
- `artworks` (with themes.toml and captions.toml): what artworks show and users like, as captions and images.
- `histories`: titles and who watched them, generated or from MovieLens.
"""
