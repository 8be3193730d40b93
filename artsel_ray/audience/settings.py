"""The flags of jobs/explain.py and jobs/propose.py."""

from typing import Annotated

from annotated_types import Ge, Gt, Lt

from artsel_ray.config import DEFAULT_LIMITS, Count, EngineSettings, ModelName, RowLimits, Seed, Uri, settings

# A segment of one user would identify that user.
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
    """Minimum users of everything that is said: on both sides of a comparison, per genre, and rationales per term.
    Smaller segments show only a count."""
    limits: RowLimits = DEFAULT_LIMITS


@settings
class ProposeConfig:
    """Finds users whom no artwork of a title suits, and has a model write a brief for a suitable one.

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
    """Model that writes the briefs: 'smollm2' (bundled), a hub id, or a folder; preferably a large instruct model."""
    output: Uri
    """Where part-*.parquet, report.html and, last, _manifest.json go: a path or URI."""
    share: Annotated[float, Gt(0), Lt(1)] = 0.25
    """Fraction of each title's users, those with the least personalized scores, to analyze."""
    min_users: MinUsers = 20
    """Minimum users in a group that gets a proposal."""
    max_proposals: Count = 100
    """Maximum number of proposals; those for the most users are kept."""
    max_tokens: Count = 120
    """Maximum length of a brief, in tokens."""
    seed: Seed = 0
    """Seed of the sampling of briefs."""
    limits: RowLimits = DEFAULT_LIMITS
    engine_pool: EngineSettings = EngineSettings()
