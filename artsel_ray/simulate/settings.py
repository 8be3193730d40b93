"""The flags of jobs/simulate.py."""

from typing import Annotated, Literal, Self

from annotated_types import Ge, Le
from pydantic import model_validator

from artsel_ray.config import AssetKind, Seed, Share, Uri, settings
from artsel_ray.errors import InputError
from artsel_ray.simulate.lexicon import Lexicon


@settings
class SimulateConfig:
    """Writes a simulated world: titles, artworks, interactions, impressions, and separately the oracle.

    With --source movielens the histories, titles, years and genres are real; artworks, captions and engagement are
    always simulated.
    """

    output: Uri
    """Where the world goes: a path or URI; OUTPUT/{titles,artworks,interactions,impressions,oracle}/*.parquet."""
    source: Literal["movielens", "synthetic"] = "synthetic"
    """Real histories (MovieLens 100K, for research only, fetched at run time) or generated ones of any size."""
    users: Annotated[int, Ge(1), Le(10**9)] | None = None
    """Number of users; with movielens at most 943. Default: 1,000 synthetic users, or all of MovieLens."""
    titles: Annotated[int, Ge(2), Le(10**6)] | None = None
    """Number of titles; with movielens at most 1,682, the most watched. Default: 500, or all of MovieLens."""
    interactions_per_user: Annotated[float, Ge(1), Le(100_000)] = 60.0
    """Mean number of interactions of a synthetic user."""
    min_candidates: Annotated[int, Ge(1), Le(1000)] = 4
    """Minimum number of artworks of a title."""
    max_candidates: Annotated[int, Ge(1), Le(1000)] = 44
    """Maximum number of artworks of a title."""
    themes: Annotated[int, Ge(2), Le(12)] = 10
    """Number of themes that an artwork can show and a user can like, 2 to 12. Fewer is easier."""
    caption_tokens: Annotated[int, Ge(8), Le(10_000)] = 200
    """Mean length of a caption in tokens. Below 10, captions are headlines that begin with their subject: easier."""
    shared_words: Share = 0.3
    """Chance that a sentence about a theme names one of its genres, as histories do. More is easier."""
    lexicon: Lexicon = "rich"
    """Phrases that captions draw from: rich has 162 for each theme, with frequencies by Zipf's law; small has the 25 of
    earlier versions for each theme, equally frequent, which is easier."""
    new_words: Share = 0.3
    """Share of titles that are new: they are first shown in the last tenth of the log, and their captions use phrases
    that no other title's captions use. 0 with --lexicon small, which has too few phrases."""
    taste_strength: Annotated[float, Ge(0), Le(100)] = 2.0
    """Weight of a match between taste and themes in the log-odds of engagement. More is easier."""
    engagement_rate: Annotated[float, Ge(0.001), Le(0.999)] = 0.2
    """Share of impressions that the user engages with. A lower rate reveals more of the taste and is easier."""
    noise: Annotated[float, Ge(0), Le(100)] = 0.5
    """Standard deviation of an artwork's appeal to all users, unrelated to taste. Lower is easier."""
    exploration: Annotated[float, Ge(0.001), Le(1)] = 0.2
    """Share of impressions for which the logging policy draws the artwork uniformly."""
    asset_kind: AssetKind = "artwork"
    """What the candidates are, and how their captions are written."""
    images: bool = False
    """Also draw an image of each artwork: one band per theme, as wide as the theme's weight."""
    seed: Seed = 0
    """Source of all draws: the same seed and flags write the same world."""

    @model_validator(mode="after")
    def _flags_fit(self) -> Self:
        if self.max_candidates < self.min_candidates:
            raise InputError(
                f"--max-candidates is {self.max_candidates}; it must be at least --min-candidates {self.min_candidates}"
            )
        if self.lexicon == "small" and self.new_words:
            raise InputError(f"--new-words is {self.new_words:g}; with --lexicon small it must be 0: add --new-words 0")
        if self.source == "movielens":
            for name, most in (("users", 943), ("titles", 1682)):
                if (getattr(self, name) or 0) > most:
                    raise InputError(f"--{name} is {getattr(self, name)}; MovieLens 100K has {most:,}")
        return self
