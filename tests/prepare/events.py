"""Events of one bucket of users, with the catalog that they refer to."""

import numpy as np
import pyarrow as pa

from artsel_ray import schema
from artsel_ray.data.catalog import Catalog
from artsel_ray.data.checked_reader import with_source_rows

FILES = {"interactions": ["i.parquet"], "impressions": ["e.parquet"]}
CATALOG = Catalog(
    title_ids=pa.array(["t0", "t1"]),
    names=pa.array(["Zero", "Один"]),
    genres=pa.array([["Drama"], []], pa.list_(pa.string())),
    artwork_ids=pa.array(["a0", "a1", "b0", "b1", "b2"]),
    offsets=np.array([0, 2, 5]),
    contents=pa.array([f"caption {n}" for n in range(5)], pa.large_string()),
    other_ids=pa.array(["trailer"], pa.string()),
)


def _table(rows: list[tuple], fields: dict[str, pa.DataType]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(fields)
    arrays = [pa.array(column, type_) for column, type_ in zip(columns, fields.values(), strict=True)]
    return with_source_rows(pa.table(arrays, names=list(fields)), 0, 0)


def interactions_table(rows: list[tuple]) -> pa.Table:
    types = {"user_id": pa.string(), "title": pa.int32(), "timestamp": schema.TIMESTAMP, "watch_seconds": pa.float32()}
    return _table(rows, types)


def impressions_table(rows: list[tuple]) -> pa.Table:
    types = {
        "user_id": pa.string(),
        "title": pa.int32(),
        "label": pa.int32(),
        "timestamp": schema.TIMESTAMP,
        "engaged": pa.bool_(),
        "propensity": pa.float64(),
    }
    return _table(rows, types)
