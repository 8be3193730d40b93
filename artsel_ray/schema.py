"""Every table's Arrow schema, and with it every column name, once.

Ids are strings, times are `timestamp[us, UTC]`. A field that may be null is nullable here; all others
must be filled in every row.
"""

from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from artsel_ray.errors import InputError

TIMESTAMP = pa.timestamp("us", tz="UTC")
AssetKind = Literal["artwork", "synopsis", "trailer"]
Assets = Literal["caption", "image"]


def _required(name: str, type_: pa.DataType) -> pa.Field:
    return pa.field(name, type_, nullable=False)


HISTORY = pa.list_(
    pa.struct(
        [
            pa.field("timestamp", TIMESTAMP),
            pa.field("title_name", pa.string()),
            pa.field("genres", pa.list_(pa.string())),
            pa.field("watch_seconds", pa.float32()),
        ]
    )
)
CANDIDATES = pa.list_(pa.struct([pa.field("artwork_id", pa.string()), pa.field("caption", pa.string())]))

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
        pa.field("reason", pa.string()),
        pa.field("image_uris", pa.list_(pa.string())),
    ]
)
REQUESTS = pa.schema(
    [
        _required("user_id", pa.string()),
        _required("history", HISTORY),
        _required("title_ids", pa.list_(pa.string())),
    ]
)
PREDICTIONS = pa.schema(
    [
        _required("user_id", pa.string()),
        _required("title_id", pa.string()),
        _required("artwork_id", pa.string()),
        pa.field("probability", pa.float64()),
        pa.field("propensity", pa.float64()),
        pa.field(
            "candidates",
            pa.list_(pa.struct([pa.field("artwork_id", pa.string()), pa.field("probability", pa.float64())])),
        ),
        pa.field("reason", pa.string()),
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
        pa.field("validation_ips", pa.float64()),
        pa.field("validation_accuracy", pa.float64()),
        pa.field("loss", pa.float64()),
        pa.field("step", pa.int64()),
        _required("seconds", pa.float64()),
        pa.field("error", pa.string()),
    ]
)

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
    pa.struct(
        [
            pa.field("genre", pa.string()),
            pa.field("inside", pa.float64()),
            pa.field("outside", pa.float64()),
            pa.field("low", pa.float64()),
            pa.field("high", pa.float64()),
        ]
    )
)
USER_SEGMENTS = pa.schema(
    [
        _required("title_id", pa.string()),
        _required("artwork_id", pa.string()),
        _required("users", pa.int64()),
        _required("share", pa.float64()),
        _required("favourites", OVER_INDEXED_GENRES),
        _required("words", pa.list_(pa.string())),
    ]
)
PROPOSALS = pa.schema(
    [
        _required("title_id", pa.string()),
        _required("users", pa.int64()),
        _required("share", pa.float64()),
        _required("favourites", OVER_INDEXED_GENRES),
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
    "rejected": INVALID_ROWS,
    "oracle": ORACLE,
    "trials": TRIALS,
    "results": RESULTS,
    "tastes": USER_SEGMENTS,
    "proposals": PROPOSALS,
}


def conform(schema: pa.Schema, table: str, source: str, columns: list[str] | None = None) -> None:
    """Checks that a file's schema can be read as the named table's.

    A field may be missing only where null is allowed; more columns than expected are passed over; a narrower
    type of the same kind (`int32` for `int64`, `float32` for `float64`, `large_string` for `string`, any unit
    or zone of timestamp that has a zone) is accepted.

    Args:
        columns: only these are looked at, where given.

    Raises:
        InputError: naming the source, the difference, and both schemas.
    """
    expected = TABLES[table]
    problems = []
    for field in expected:
        if columns is not None and field.name not in columns:
            continue
        found = schema.get_all_field_indices(field.name)
        if len(found) > 1:
            problems.append(f"column '{field.name}' stands {len(found)} times")
        elif not found:
            if not field.nullable:
                problems.append(f"column '{field.name}' ({field.type}) is missing")
        elif not _compatible(schema.field(found[0]).type, field.type):
            problems.append(f"column '{field.name}' is {schema.field(found[0]).type}, expected {field.type}")
    if problems:
        raise InputError(
            f"{source} is not a table of {table}: {'; '.join(problems)}\n"
            f"expected:\n{_describe(expected)}\ngot:\n{_describe(schema)}"
        )


def _describe(schema: pa.Schema) -> str:
    return "\n".join(f"  {field.name}: {field.type}{'?' if field.nullable else ''}" for field in schema)


def _compatible(got: pa.DataType, expected: pa.DataType) -> bool:
    if got == expected or pa.types.is_null(got):
        return True
    if pa.types.is_dictionary(got):
        return _compatible(got.value_type, expected)
    if pa.types.is_struct(expected):
        return pa.types.is_struct(got) and all(
            got.get_field_index(field.name) >= 0 and _compatible(got.field(field.name).type, field.type)
            for field in expected
        )
    if pa.types.is_list(expected):
        return (pa.types.is_list(got) or pa.types.is_large_list(got)) and _compatible(
            got.value_type, expected.value_type
        )
    same_kind = (
        (pa.types.is_string, pa.types.is_large_string),
        (pa.types.is_floating, pa.types.is_integer),
        (pa.types.is_integer,),
        (pa.types.is_timestamp,),
    )
    for expected_kind, *other_kinds in same_kind:
        if expected_kind(expected):
            zoned = not pa.types.is_timestamp(expected) or getattr(got, "tz", None) is not None
            return zoned and any(kind(got) for kind in (expected_kind, *other_kinds))
    return False


def cast(table: pa.Table, name: str, source: str, columns: list[str] | None = None) -> pa.Table:
    """Returns the table with exactly the named table's columns, order and types; absent nullable columns are null.

    Nulls in columns that must be filled stay null: a job rejects those rows, it does not stop for them. Parts of a
    microsecond are dropped, and integers are rounded to the nearest float: neither is worth a job.

    Args:
        columns: only these, in this order, where given.

    Raises:
        InputError: where the schema differs or a value does not fit the type.
    """
    conform(table.schema, name, source, columns)
    fields = [TABLES[name].field(column).with_nullable(True) for column in columns or TABLES[name].names]
    arrays = []
    for field in fields:
        if field.name not in table.column_names:
            arrays.append(pa.nulls(table.num_rows, field.type))
            continue
        try:
            rounded = pc.CastOptions(field.type, allow_time_truncate=True, allow_float_truncate=True)
            arrays.append(table.column(field.name).cast(options=rounded))
        except pa.ArrowInvalid as error:
            raise InputError(f"{source}: column '{field.name}' does not fit {field.type}: {error}") from None
    return pa.table(arrays, schema=pa.schema(fields))


def broken_text(table: pa.Table) -> dict[str, list[int]]:
    """Returns the columns with text that is not UTF-8, also inside lists and structs, and the numbers of such rows.

    Parquet's readers do not look at it, and Arrow's functions and Python stop at it, each with an error of its own.
    """
    try:
        table.validate(full=True)
    except pa.ArrowInvalid:
        found = {name: _broken(table[name].combine_chunks()) for name in table.column_names}
        return {name: rows for name, rows in found.items() if rows}
    return {}


def _broken(values: pa.Array) -> list[int]:
    if pa.types.is_list(values.type):
        places = pa.array(_broken(pc.list_flatten(values)), pa.int64())
        return sorted(set(pc.list_parent_indices(values).take(places).to_pylist()))
    if pa.types.is_struct(values.type):
        fields = (_broken(values.field(place)) for place in range(values.type.num_fields))
        return sorted(set().union(*fields))
    if not pa.types.is_string(values.type):
        return []
    return [row for row, value in enumerate(values.cast(pa.binary()).to_pylist()) if value and not _is_text(value)]


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
