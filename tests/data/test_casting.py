"""Values of other writers' types are cast where nothing is lost, and refused where something would be."""

import datetime
import decimal
import math
import uuid
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artsel_ray import schema
from artsel_ray.data.casting import accepts, cast_array, is_list, is_text, lacks_zone

TEXT, TEXTS = pa.string(), pa.list_(pa.string())
Decimal = decimal.Decimal
NAIVE = datetime.datetime(2024, 7, 1, 12)
PARIS = datetime.datetime(2024, 7, 1, 10, tzinfo=datetime.UTC)


def cast(values: pa.Array, type_: pa.DataType, name: str = "x", zone: str | None = None) -> list[Any]:
    assert accepts(values.type, type_)
    got = cast_array(values, pa.field(name, type_), zone)
    got.validate(full=True)
    assert got.type == type_
    return got.to_pylist()


@pytest.mark.parametrize(
    ("values", "type_", "expected"),
    [
        (pa.array([7, None, -7]), TEXT, ["7", None, "-7"]),
        (pa.array([2**64 - 1], pa.uint64()), TEXT, [str(2**64 - 1)]),
        (pa.array([12.0, math.nan, None]), TEXT, ["12", None, None]),
        (pa.array([12.0, math.nan], pa.float16()), TEXT, ["12", None]),
        (pa.array([Decimal("12.00"), None]), TEXT, ["12", None]),
        (pa.array([Decimal(1200)], pa.decimal128(5, -2)), TEXT, ["1200"]),
        (pa.array([Decimal("12.0")], pa.decimal256(60, 1)), TEXT, ["12"]),
        (pa.array([b"a", None], pa.binary_view()), TEXT, ["a", None]),
        (pa.array(["a", None], pa.string_view()), TEXT, ["a", None]),
        (pa.array([uuid.UUID(int=5), None], pa.uuid()), TEXT, [f"{0:08}-0000-0000-0000-{5:012}", None]),
        (pa.array([5, None]).dictionary_encode(), TEXT, ["5", None]),
        (pa.DictionaryArray.from_arrays(pa.array([0, None]), pa.array(["a"], pa.string_view())), TEXT, ["a", None]),
        (pa.array([1999.0, math.nan]), pa.int32(), [1999, None]),
        (pa.array([Decimal("1999.00")]), pa.int32(), [1999]),
        (pa.array([1999], pa.int64()), pa.int32(), [1999]),
        (pa.array([0, 1, None], pa.int8()), pa.bool_(), [False, True, None]),
        (pa.array([0.0, 1.0, math.nan]), pa.bool_(), [False, True, None]),
        (pa.array([Decimal(0), Decimal(1)], pa.decimal128(38, 0)), pa.bool_(), [False, True]),
        (pa.array([Decimal("0.25"), None]), pa.float64(), [0.25, None]),
        (pa.array([2**24 + 1]), pa.float32(), [2.0**24]),
        (pa.nulls(2), TEXTS, [None, None]),
    ],
)
def test_values_keep_their_meaning(values: pa.Array, type_: pa.DataType, expected: list[Any]) -> None:
    assert cast(values, type_) == expected


@pytest.mark.parametrize(
    ("values", "type_", "message"),
    [
        (pa.array([12.5]), TEXT, "was truncated"),
        (pa.array([2.0**54]), TEXT, "not exact above 9,007,199,254,740,992"),
        (pa.array([2.0**25], pa.float32()), TEXT, "not exact above 16,777,216"),
        (pa.array([math.inf]), TEXT, "not exact"),
        (pa.array([Decimal("12.50")]), TEXT, "data loss"),
        (pa.array([1999.5]), pa.int32(), "was truncated"),
        (pa.array([2**40]), pa.int32(), "not in range"),
        (pa.array([0, 1, 2]), pa.bool_(), "other numbers than 0 and 1"),
        (pa.array([0.5]), pa.bool_(), "was truncated"),
    ],
)
def test_what_would_be_lost_is_an_error(values: pa.Array, type_: pa.DataType, message: str) -> None:
    with pytest.raises(pa.ArrowInvalid, match=message):
        cast(values, type_)


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (TEXT, pa.bool_()),
        (TEXT, pa.float64()),
        (TEXT, schema.TIMESTAMP),
        (TEXT, TEXTS),
        (pa.int64(), schema.TIMESTAMP),
        (pa.date32(), schema.TIMESTAMP),
        (pa.bool_(), TEXT),
        (pa.bool_(), pa.float32()),
        (pa.binary(16), TEXT),
        (pa.date32(), TEXT),
        (pa.duration("us"), pa.float32()),
        (pa.list_(pa.list_(TEXT)), TEXTS),
        (pa.struct({"artwork_id": TEXT}), schema.CANDIDATES.value_type),
        (pa.map_(TEXT, TEXT), schema.CANDIDATES),
    ],
)
def test_types_of_another_meaning_are_not_accepted(got: pa.DataType, expected: pa.DataType) -> None:
    assert not accepts(got, expected)


@pytest.mark.parametrize(
    "type_",
    [pa.large_list(pa.large_string()), pa.list_view(TEXT), pa.large_list_view(pa.string_view()), pa.list_(TEXT, 2)],
)
def test_every_kind_of_list_of_text_is_read(type_: pa.DataType) -> None:
    values = pa.array([["a", None], None, ["b", "c"]], type_)
    assert is_list(type_)
    assert is_text(type_.value_type)
    assert cast(values, TEXTS) == [["a", None], None, ["b", "c"]]
    assert cast(values[1:], TEXTS) == [None, ["b", "c"]]


def test_lists_of_numbers_are_ids() -> None:
    assert cast(pa.array([[1], None, []]), TEXTS) == [["1"], None, []]
    assert cast(pa.array([["a"]]).cast(pa.list_(pa.dictionary(pa.int8(), TEXT))), TEXTS) == [["a"]]


def test_nested_values_are_cast_by_the_names_of_their_fields() -> None:
    item = pa.struct(
        {
            "watch_seconds": pa.int64(),
            "more": pa.timestamp("ns"),
            "timestamp": pa.timestamp("ns"),
            "title_name": pa.int16(),
            "genres": pa.large_list(pa.string_view()),
        }
    )
    watched = {"timestamp": NAIVE, "title_name": 300, "genres": ["War"], "watch_seconds": 1, "more": None}
    values = pa.array([[watched, None], None, []], pa.large_list(item))
    assert lacks_zone(values.type, schema.HISTORY)
    expected = {"timestamp": PARIS, "title_name": "300", "genres": ["War"], "watch_seconds": 1.0}
    assert cast(values, schema.HISTORY, zone="Europe/Paris") == [[expected, None], None, []]
    # Only of fields that are read.
    assert not lacks_zone(values.type, pa.list_(pa.struct({"genres": TEXTS})))


def test_times_are_instants() -> None:
    naive = pa.array([NAIVE, None], pa.timestamp("ns"))
    assert cast(naive, schema.TIMESTAMP, zone="Europe/Paris") == [PARIS, None]
    assert lacks_zone(naive.type, schema.TIMESTAMP)
    for unit in ("s", "ms", "us", "ns"):
        zoned = pa.array([PARIS], pa.timestamp(unit, "Asia/Tokyo"))
        assert not lacks_zone(zoned.type, schema.TIMESTAMP)
        assert cast(zoned, schema.TIMESTAMP, zone="Europe/Paris") == [PARIS]
    finer = pa.array([1_999, -1_999], pa.timestamp("ns", "UTC"))
    assert cast_array(finer, pa.field("x", schema.TIMESTAMP), None).cast(pa.int64()).to_pylist() == [1, -1]


@pytest.mark.parametrize("hour", [(3, 31), (10, 27)])
def test_local_time_that_is_no_single_instant_is_an_error(hour: tuple[int, int]) -> None:
    values = pa.array([datetime.datetime(2024, *hour, 2, 30)], pa.timestamp("us"))
    with pytest.raises(pa.ArrowInvalid, match=r"ambiguous|doesn't exist"):
        cast(values, schema.TIMESTAMP, zone="Europe/Paris")


def test_shares_a_rounding_above_one_become_one() -> None:
    near = pa.array([1.0000001, 1.0000002, 0.5, 1.00001, math.nan, None], pa.float32())
    one, again, half, above, wrong, null = cast(near, pa.float64(), "propensity")
    assert (one, again, half, null) == (1, 1, 0.5, None)
    assert above > 1
    assert math.isnan(wrong)
    assert cast(pa.array([1 + 2**-52]), pa.float64(), "probability") == [1.0]
    assert cast(pa.array([1 + 2**-52]), pa.float64(), "watch_seconds") == [1 + 2**-52]
    ranked = schema.PREDICTIONS.field("candidates").type
    (row,) = cast(pa.array([[{"artwork_id": "a", "probability": 1 + 2**-52}]], ranked), ranked)
    assert row[0]["probability"] == 1


INTEGERS = st.none() | st.integers(-(2**53), 2**53)


@given(st.lists(INTEGERS))
def test_ids_are_the_same_text_from_any_type_of_numbers(ids: list[int | None]) -> None:
    expected = [None if each is None else str(each) for each in ids]
    for type_ in (pa.int64(), pa.float64(), pa.decimal128(38, 2)):
        values = pa.array(
            [None if each is None else Decimal(each) for each in ids] if "dec" in str(type_) else ids, type_
        )
        assert cast(values, TEXT) == expected
        assert cast(values.dictionary_encode(), TEXT) == expected


@given(st.lists(st.none() | st.floats(width=32), max_size=5))
def test_float_is_an_integer_only_if_nothing_is_lost(values: list[float | None]) -> None:
    array = pa.array(values, pa.float32())
    whole = all(each is None or math.isnan(each) or (abs(each) <= 2**24 and each == int(each)) for each in values)
    if whole:
        expected = [None if each is None or math.isnan(each) else int(each) for each in values]
        assert cast(array, pa.int32()) == expected
    else:
        with pytest.raises(pa.ArrowInvalid):
            cast(array, pa.int32())


@given(st.lists(st.none() | st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"])))), st.integers(0, 3))
def test_lists_of_any_kind_keep_their_items(lists: list[list[str | None] | None], start: int) -> None:
    for kind in (pa.list_, pa.large_list, pa.list_view, pa.large_list_view):
        values = pa.array(lists, kind(pa.large_string()))[start:]
        assert cast(values, TEXTS) == lists[start:]
