"""Names and types that every table keeps to."""

import pyarrow as pa
import pytest

from artsel_ray.schema import TABLES, TIMESTAMP


@pytest.mark.parametrize("name", TABLES)
def test_ids_are_strings_and_times_are_microseconds_in_utc(name: str) -> None:
    for field in TABLES[name]:
        if field.name.endswith("_id"):
            assert field.type == pa.string()
        if pa.types.is_timestamp(field.type):
            assert field.type == TIMESTAMP


@pytest.mark.parametrize("name", TABLES)
def test_column_names_are_unique(name: str) -> None:
    assert len(set(TABLES[name].names)) == len(TABLES[name].names)
