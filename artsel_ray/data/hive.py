"""Columns that are in the names of a file's folders: `asset_kind=artwork/part-0.parquet`, as Hive and Spark write."""

from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

_NULL = "__HIVE_DEFAULT_PARTITION__"


def folder_values(path: str) -> dict[str, str | None]:
    """Returns the columns in the folders' names of a file's path, percent-decoded; of a repeated one, the last."""
    pairs = (folder.partition("=") for folder in path.split("/")[:-1] if "=" in folder.lstrip("="))
    return {unquote(name): None if value == _NULL else unquote(value) for name, _, value in pairs}


def folder_array(value: str | None, type_: pa.DataType, rows: int, zone: str | None) -> pa.Array:
    """Returns a folder's value as a column of this type.

    Args:
        zone: the time zone of a timestamp without one.

    Raises:
        pyarrow.ArrowException: if the text is no value of the type.
    """
    if value is None:
        return pa.nulls(rows, type_)
    text = pa.array([value], pa.string())
    if pa.types.is_timestamp(type_) and zone is not None:
        text = _localized(text, zone)
    return pa.repeat(text.cast(type_)[0], rows)


def _localized(text: pa.Array, zone: str) -> pa.Array:
    try:
        return pc.assume_timezone(text.cast(pa.timestamp("us")), zone)
    except pa.ArrowInvalid:  # it has a zone
        return text
