"""Every table's Arrow schema, and with it every column name, once.

Ids are strings, times are `timestamp[us, UTC]`. A field that may be null is nullable here; all others
must be filled in every row.
"""

import pyarrow as pa

TIMESTAMP = pa.timestamp("us", tz="UTC")


def _required(name: str, type_: pa.DataType) -> pa.Field:
    return pa.field(name, type_, nullable=False)


HISTORY = pa.list_(
    pa.struct(
        {
            "timestamp": TIMESTAMP,
            "title_name": pa.string(),
            "genres": pa.list_(pa.string()),
            "watch_seconds": pa.float32(),
        }
    )
)
CANDIDATES = pa.list_(pa.struct({"artwork_id": pa.string(), "caption": pa.string()}))

TITLES = pa.schema(
    [
        _required("title_id", pa.string()),
        _required("name", pa.string()),
        pa.field("year", pa.int32()),
        _required("genres", pa.list_(pa.string())),
        pa.field("synopsis", pa.string()),
    ]
)
ARTWORKS = pa.schema(
    [
        _required("artwork_id", pa.string()),
        _required("title_id", pa.string()),
        pa.field("caption", pa.string()),
        pa.field("image_uri", pa.string()),
        pa.field("asset_kind", pa.string()),
    ]
)
CAPTIONED = pa.schema([*ARTWORKS, pa.field("model_id", pa.string()), pa.field("fingerprint", pa.string())])
INTERACTIONS = pa.schema(
    [
        _required("user_id", pa.string()),
        _required("title_id", pa.string()),
        _required("timestamp", TIMESTAMP),
        pa.field("watch_seconds", pa.float32()),
    ]
)
IMPRESSIONS = pa.schema(
    [
        _required("user_id", pa.string()),
        _required("title_id", pa.string()),
        _required("artwork_id", pa.string()),
        _required("timestamp", TIMESTAMP),
        _required("engaged", pa.bool_()),
        pa.field("propensity", pa.float64()),
    ]
)
EXAMPLES = pa.schema(
    [
        _required("example_id", pa.string()),
        _required("user_id", pa.string()),
        _required("title_id", pa.string()),
        _required("title_name", pa.string()),
        _required("title_genres", pa.list_(pa.string())),
        _required("history", HISTORY),
        _required("candidates", CANDIDATES),
        _required("label", pa.int32()),
        pa.field("propensity", pa.float64()),
        _required("timestamp", TIMESTAMP),
        pa.field("rationale", pa.string()),
        pa.field("image_uris", pa.list_(pa.string())),
    ]
)
REQUESTS = pa.schema(
    [_required("user_id", pa.string()), _required("history", HISTORY), _required("title_ids", pa.list_(pa.string()))]
)
PREDICTIONS = pa.schema(
    [
        _required("user_id", pa.string()),
        _required("title_id", pa.string()),
        _required("artwork_id", pa.string()),
        pa.field("probability", pa.float64()),
        pa.field("propensity", pa.float64()),
        pa.field("candidates", pa.list_(pa.struct({"artwork_id": pa.string(), "probability": pa.float64()}))),
        pa.field("rationale", pa.string()),
        _required("model_id", pa.string()),
        _required("fingerprint", pa.string()),
        _required("scored_at", TIMESTAMP),
    ]
)
INVALID_ROWS = pa.schema(
    [
        _required("table", pa.string()),
        _required("file", pa.string()),
        pa.field("row", pa.int64()),
        _required("column", pa.string()),
        _required("reason", pa.string()),
        pa.field("user_id", pa.string()),
        pa.field("title_id", pa.string()),
        pa.field("artwork_id", pa.string()),
    ]
)
ORACLE = pa.schema(
    [
        _required("user_id", pa.string()),
        _required("title_id", pa.string()),
        _required("artwork_ids", pa.list_(pa.string())),
        _required("engagement_probabilities", pa.list_(pa.float64())),
        _required("propensities", pa.list_(pa.float64())),
    ]
)
TRIALS = pa.schema(
    [
        _required("learning_rate", pa.float64()),
        _required("status", pa.string()),
        pa.field("validation_snips_logged", pa.float64()),
        pa.field("validation_snips_logged_random", pa.float64()),
        pa.field("validation_ips_logged", pa.float64()),
        pa.field("validation_effective_sample_size", pa.float64()),
        pa.field("validation_ips", pa.float64()),
        pa.field("validation_accuracy", pa.float64()),
        pa.field("loss", pa.float64()),
        pa.field("step", pa.int64()),
        _required("seconds", pa.float64()),
        pa.field("error", pa.string()),
    ]
)
TEXT_VECTORS = pa.schema([_required("text_fingerprint", pa.string()), _required("vector", pa.list_(pa.float32()))])
RESULTS = pa.schema(
    [
        _required("table", pa.string()),
        _required("row", pa.string()),
        _required("run", pa.string()),
        *(
            pa.field(f"{metric}{change}{end}", pa.float64())
            for metric in ("accuracy", "ips")
            for change in ("", "_over_production", "_over_zero_shot")
            for end in ("", "_low", "_high")
        ),
        _required("paper_is_over", pa.string()),
        _required("paper_accuracy", pa.float64()),
        _required("paper_ips", pa.float64()),
        pa.field("error", pa.string()),
    ]
)

OVER_INDEXED_GENRES = pa.list_(
    pa.struct({"genre": pa.string(), **dict.fromkeys(("inside", "outside", "low", "high"), pa.float64())})
)
USER_SEGMENTS = pa.schema(
    [
        _required("title_id", pa.string()),
        _required("artwork_id", pa.string()),
        _required("users", pa.int64()),
        _required("share", pa.float64()),
        _required("over_indexed_genres", OVER_INDEXED_GENRES),
        _required("distinctive_terms", pa.list_(pa.string())),
    ]
)
PROPOSALS = pa.schema(
    [
        _required("title_id", pa.string()),
        _required("users", pa.int64()),
        _required("share", pa.float64()),
        _required("over_indexed_genres", OVER_INDEXED_GENRES),
        pa.field("brief", pa.string()),
        _required("model_id", pa.string()),
    ]
)

TABLES = {
    "titles": TITLES,
    "artworks": ARTWORKS,
    "captioned": CAPTIONED,
    "interactions": INTERACTIONS,
    "impressions": IMPRESSIONS,
    "examples": EXAMPLES,
    "requests": REQUESTS,
    "predictions": PREDICTIONS,
    "invalid_rows": INVALID_ROWS,
    "oracle": ORACLE,
    "trials": TRIALS,
    "text_vectors": TEXT_VECTORS,
    "results": RESULTS,
    "user_segments": USER_SEGMENTS,
    "proposals": PROPOSALS,
}
