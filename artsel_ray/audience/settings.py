"""The flags of jobs/explain.py and jobs/propose.py."""

from typing import Annotated

from annotated_types import Ge, Gt, Lt

from artsel_ray.config import Count, EngineSettings, ModelName, Seed, Uri, settings

# One user is no group.
MinUsers = Annotated[int, Ge(2)]


@settings
class ExplainConfig:
    """Shows which user segment gets which artwork of a title, and why, as a table and a page.

    A segment is described by the genres that an artwork's users watch more than the title's other users do, and by the
    terms that distinguish the model's rationales for them. docs/explanations.md.
    """

    predictions: Uri
    """A finished scoring run: the output of jobs/score.py."""
    requests: Uri
    """The requests of that run."""
    titles: Uri
    """Parquet of the titles."""
    artworks: Uri
    """Parquet of the artworks with their captions."""
    output: Uri
    """Where user_segments.parquet and report.html go: a path or URI."""
    min_users: MinUsers = 10
    """For an artwork with fewer users only their number is shown; terms of fewer rationales are not shown."""


@settings
class ProposeConfig:
    """Finds users whom none of a title's artworks suits, and has a model write a brief for one that would.

    For artists: a table and a page. Run again to resume. docs/proposals.md.
    """

    predictions: Uri
    """A finished scoring run: the output of jobs/score.py --decoding rank (or labels)."""
    requests: Uri
    """The requests of that run."""
    titles: Uri
    """Parquet of the titles."""
    artworks: Uri
    """Parquet of the artworks with their captions."""
    model: ModelName
    """Model that writes the briefs: 'smollm2' (bundled), a hub id, or a folder; an instruct model that writes well."""
    output: Uri
    """Where part-*.parquet, report.html and, last, _manifest.json go: a path or URI."""
    share: Annotated[float, Gt(0), Lt(1)] = 0.25
    """Fraction of each title's users, those with the least personalized scores, to analyze."""
    min_users: MinUsers = 20
    """Smallest group of users that gets a proposal."""
    max_proposals: Count = 100
    """Most proposals; those for most users are written."""
    max_tokens: Count = 120
    """Most tokens of a brief."""
    seed: Seed = 0
    """Seed of the sampling of briefs."""
    engine_pool: EngineSettings = EngineSettings()
