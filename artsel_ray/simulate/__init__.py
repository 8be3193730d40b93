"""Simulated worlds: users, titles, artworks and a log of impressions whose oracle is known. Read in this order:

- `settings`: the flags.
- `job`: writes a world, one group of users after another, and its arrays as Parquet tables.
- `world`: the formulas: matches, the logging policy, engagement, and the best that a predictor can reach.
- `lexicon` (with rich_lexicon.toml and small_lexicon.toml): what captions can say, and what only new titles say.
- `artworks` (with captions.toml): what artworks show, as captions and images.
- `histories`: titles and who watched them, generated or from MovieLens.
"""
