"""Columns in the names of folders, as Hive and Spark escape them."""

import datetime
from urllib.parse import quote

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artsel_ray import schema
from artsel_ray.data.hive import folder_array, folder_values


def test_values_are_percent_decoded_and_stay_text() -> None:
    path = "/w/artworks/asset_kind=artwork/user_id=007/t%3Dx=a%2Fb%3Dc d/k==/part=0.parquet"
    assert folder_values(path) == {"asset_kind": "artwork", "user_id": "007", "t=x": "a/b=c d", "k": "="}


def test_null_and_nameless_folders() -> None:
    assert folder_values("a=__HIVE_DEFAULT_PARTITION__/=x/a.parquet") == {"a": None}
    assert folder_values("bucket/plain/a.parquet") == {}
    assert folder_values("a=1/a=2/p.parquet") == {"a": "2"}


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(st.dictionaries(NAMES, st.text(st.characters(exclude_categories=["Cs"])), max_size=3))
def test_any_value_survives_escaping(values: dict[str, str]) -> None:
    folders = [f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in values.items()]
    assert folder_values("/".join(["root", *folders, "part-0.parquet"])) == values


@given(st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"])), st.text(max_size=3))
def test_any_path_is_parsed(folder: str, more: str) -> None:
    assert all(name for name in folder_values(f"{folder}/{more}/a.parquet"))


@pytest.mark.parametrize(
    ("value", "type_", "expected"),
    [
        ("007", pa.string(), "007"),
        ("2024", pa.int32(), 2024),
        ("0.25", pa.float64(), 0.25),
        ("true", pa.bool_(), True),
        (None, pa.string(), None),
        (None, pa.list_(pa.string()), None),
        ("2024-07-01 12:00:00Z", schema.TIMESTAMP, datetime.datetime(2024, 7, 1, 12, tzinfo=datetime.UTC)),
    ],
)
def test_folders_value_fills_a_column_of_its_type(value: str | None, type_: pa.DataType, expected: object) -> None:
    for zone in (None, "Europe/Paris"):
        assert folder_array(value, type_, 2, zone).to_pylist() == [expected] * 2
        assert folder_array(value, type_, 0, zone).type == type_


def test_time_without_a_zone_needs_one() -> None:
    with pytest.raises(pa.ArrowInvalid, match="zone"):
        folder_array("2024-07-01", schema.TIMESTAMP, 1, None)
    (found,) = folder_array("2024-07-01", schema.TIMESTAMP, 1, "Europe/Paris").to_pylist()
    assert found == datetime.datetime(2024, 6, 30, 22, tzinfo=datetime.UTC)


@pytest.mark.parametrize(("value", "type_"), [("x", pa.int32()), ("2", pa.bool_()), ("a", pa.list_(pa.string()))])
def test_value_of_another_type_is_an_error(value: str, type_: pa.DataType) -> None:
    with pytest.raises(pa.ArrowException):
        folder_array(value, type_, 1, None)
