"""The flags of jobs/prepare.py."""

from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from annotated_types import Ge, Gt, Lt
from pydantic import model_validator

from artsel_ray.config import DEFAULT_LIMITS, AssetKind, Assets, Count, RowLimits, Seed, Share, Uri, settings
from artsel_ray.errors import InputError

Split = Literal["hash", "time", "title"]


@settings
class PrepareConfig:
    """Turns logs and artworks into examples, splits and requests; invalid rows go to OUTPUT/rejected."""

    input: Uri
    """Folder with titles/, artworks/, interactions/ and impressions/ (Parquet): a path or URI."""
    output: Uri
    """Where examples/{train,validation,test}/, requests/test/ and rejected/ go: a path or URI."""
    history_length: Count = 50
    """Number of most recent interactions, strictly before the impression, in an example's history."""
    asset_kind: AssetKind = "artwork"
    """Kind of assets that are candidates, by the column asset_kind; impressions of other kinds are left out."""
    assets: Assets = "caption"
    """What the model will get of a candidate: its caption, or its image, which image_uri must then name."""
    image_root: tuple[Uri, ...] = ()
    """More folders or URIs that images may be read from: image_uri leads below the artworks' folder, or below one of
    these. With credentials of the environment, so name no more than the images' own."""
    split: Split = "hash"
    """Assign user-title pairs to splits by a salted hash, or the newest pairs to test by time. With title, by hash, but
    train has no pair of the newest titles; validation and test have pairs of known and of new titles."""
    new_titles: Annotated[float, Gt(0), Lt(1)] = 0.3
    """With --split title: share of titles that are new, those first shown last. Three quarters of them, the newest, are
    for test, the others for validation."""
    train_size: Count = 110_000
    """Maximum number of examples in train. With fewer pairs than the three sizes ask for, each split gets its share."""
    validation_size: Annotated[int, Ge(0)] = 1_000
    """Maximum number of examples in validation; with --split title, of known and of new titles each."""
    test_size: Annotated[int, Ge(0)] = 5_000
    """Maximum number of examples in test; with --split title, of known and of new titles each."""
    max_reject_rate: Share = 0.1
    """Largest share of invalid impressions; with more, the job stops with exit code 1."""
    buckets: Count | None = None
    """Number of groups of users, each of which one task processes. Default: one per 300,000 interactions."""
    limits: RowLimits = DEFAULT_LIMITS
    seed: Seed = 0
    """Salt of the hash that assigns pairs to splits."""
    timezone: str | None = None
    """Time zone of timestamps without one, such as UTC or Europe/Paris; they are refused if it is omitted."""

    @model_validator(mode="after")
    def _zone_is_known(self) -> Self:
        try:
            ZoneInfo(self.timezone or "UTC")
        except (KeyError, ValueError, OSError):
            raise InputError(
                f"--timezone is {self.timezone!r}; it must be an IANA time zone, such as UTC or Europe/Paris"
            ) from None
        return self
