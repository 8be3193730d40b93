"""What is wrong with files is reported at once with its remedy, and what is cast is said once."""

from collections.abc import Iterator

import pyarrow as pa
import pytest

from artsel_ray import schema
from artsel_ray.data import conformity
from artsel_ray.data.conformity import check_footers
from artsel_ray.data.footers import Footer
from artsel_ray.errors import InputError

GOOD: dict[str, pa.DataType] = {"user_id": pa.string(), "title_id": pa.string(), "timestamp": schema.TIMESTAMP}


def footer(types: dict[str, pa.DataType], uri: str = "logs/x.parquet", **folders: str) -> Footer:
    return Footer(uri, pa.schema(types), frozenset(), dict(folders), [])


def schema_of(table: str) -> dict[str, pa.DataType]:
    return {field.name: field.type for field in schema.TABLES[table]}


def problem(types: dict[str, pa.DataType] | pa.Schema, table: str = "interactions", **folders: str) -> str:
    with pytest.raises(InputError) as caught:
        check_footers({table: [Footer("logs/x.parquet", pa.schema(types), frozenset(), dict(folders), [])]})
    return str(caught.value)


@pytest.fixture(autouse=True)
def _say_again() -> Iterator[None]:
    conformity._reported.clear()
    yield
    conformity._reported.clear()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"user_id": pa.bool_()}, "'user_id' is bool, expected string; in pandas: "
         'df["user_id"] = df["user_id"].astype(str)'),
        ({"timestamp": pa.string()}, "'timestamp' is string, expected timestamp[us, tz=UTC]; in pandas: "
         'df["timestamp"] = pd.to_datetime(df["timestamp"], utc=True)'),
        ({"timestamp": pa.int64()}, "'timestamp' is int64, expected timestamp[us, tz=UTC]; in pandas: "
         'df["timestamp"] = pd.to_datetime(df["timestamp"], unit="s", utc=True) (or unit="ms", "us", "ns")'),
        ({"timestamp": pa.timestamp("ns")}, "'timestamp' is timestamp[ns], without a time zone; name it "
         "with --timezone (of prepare; such as UTC or Europe/Paris), or in pandas: "
         'df["timestamp"] = df["timestamp"].dt.tz_localize("UTC")'),
        ({"watch_seconds": pa.string()}, "'watch_seconds' is string, expected float; in pandas: "
         'df["watch_seconds"] = pd.to_numeric(df["watch_seconds"])'),
    ],
)  # fmt: skip
def test_wrong_type_is_one_line_with_its_remedy(changes: dict[str, pa.DataType], line: str) -> None:
    assert problem({**GOOD, **changes}) == f"logs/x.parquet is not a table of interactions: column {line}"


def test_names_of_fields_stay_in_their_line(capsys: pytest.CaptureFixture[str]) -> None:
    item = pa.struct({"title_name": pa.string(), "x\nerror: forged": pa.string()})
    assert "\n" not in problem({"user_id": pa.string(), "history": item, "title_ids": TEXTS}, "requests")
    check_footers({"requests": [footer({**schema_of("requests"), "user_id": pa.dictionary(pa.int8(), pa.int64())})]})
    assert capsys.readouterr().out.count("\n") == 1


def test_missing_and_repeated_columns_are_named() -> None:
    missing = {"user_id": pa.string(), "Title_ID": pa.string(), "timestamp": schema.TIMESTAMP}
    assert problem(missing).endswith(
        'column \'title_id\' (string) is missing; in pandas: df = df.rename(columns={"Title_ID": "title_id"})'
    )
    twice = pa.schema([*pa.schema(GOOD), pa.field("title_id", pa.string())])
    assert "column 'title_id' occurs 2 times; in pandas: df = df.loc[:, ~df.columns.duplicated()]" in problem(twice)


def test_nested_columns_are_compared_by_their_fields() -> None:
    wrong = {"user_id": pa.string(), "history": pa.list_(pa.struct({"title_name": pa.string()})), "title_ids": TEXTS}
    assert "column 'history' is list<" in problem(wrong, "requests")


TEXTS = pa.list_(pa.string())


def test_problems_of_several_tables_and_files_are_one_error() -> None:
    wrong = footer({**GOOD, "user_id": pa.bool_(), "watch_seconds": pa.string()})
    again = footer({**GOOD, "user_id": pa.bool_()}, "logs/y.parquet")
    titles = footer({"title_id": pa.string(), "name": pa.string(), "genres": pa.string()}, "t.parquet")
    with pytest.raises(InputError) as caught:
        check_footers({"titles": [titles], "interactions": [wrong, again]})
    head, *lines = str(caught.value).splitlines()
    assert head == "3 columns cannot be read:"
    assert [line.partition(" is ")[0].strip() for line in lines] == [
        "t.parquet",
        "logs/x.parquet (and 1 more file)",
        "logs/x.parquet",
    ]


def test_only_the_wanted_columns_are_checked() -> None:
    wanted = {"interactions": [schema.INTERACTIONS.field("user_id")]}
    check_footers({"interactions": [footer({"user_id": pa.string(), "timestamp": pa.bool_()})]}, wanted)
    with pytest.raises(InputError, match="'user_id'"):
        check_footers({"interactions": [footer({"timestamp": schema.TIMESTAMP})]}, wanted)


def test_column_may_be_in_the_folders_names(capsys: pytest.CaptureFixture[str]) -> None:
    without = {name: GOOD[name] for name in ("title_id", "timestamp")}
    check_footers({"interactions": [footer(without, user_id="7", dt="2024-01-01")] * 3})
    check_footers({"interactions": [footer(GOOD, user_id="7")]})
    assert capsys.readouterr().out.splitlines() == [
        "interactions: column 'user_id' is read from the folders' names",
        "interactions: column 'user_id' is in the files and in their folders' names; the files' values count",
    ]
    assert "'watch_seconds' is in a folder's name, but no float (" in problem(GOOD, watch_seconds="long")
    times = {name: GOOD[name] for name in ("user_id", "title_id")}
    assert problem(times, timestamp="2024-01-01").endswith("name its time zone with --timezone (of prepare)")


def test_casts_are_said_once_for_each_table(capsys: pytest.CaptureFixture[str]) -> None:
    types = {
        "user_id": pa.int64(),
        "title_id": pa.dictionary(pa.int32(), pa.large_string()),
        "timestamp": pa.timestamp("ns", "Asia/Tokyo"),
        "watch_seconds": pa.decimal128(5, 2),
    }
    for _ in range(2):
        check_footers({"interactions": [footer(types)] * 2})
    assert capsys.readouterr().out.splitlines() == [
        "interactions: column 'user_id' is cast from int64 to string",
        "interactions: column 'timestamp' is cast from timestamp[ns, tz=Asia/Tokyo] to timestamp[us, tz=UTC]; "
        "fractions of a microsecond are dropped",
        "interactions: column 'watch_seconds' is cast from decimal128(5, 2) to float; numbers become the nearest float",
    ]


def test_zone_of_times_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    naive = {**GOOD, "timestamp": pa.timestamp("us")}
    check_footers({"interactions": [footer(naive)]}, timezone="Europe/Paris")
    int96 = Footer("x", pa.schema(naive), frozenset({"timestamp"}), {}, [])
    check_footers({"interactions": [int96]}, timezone="Europe/Paris")
    assert capsys.readouterr().out.splitlines() == [
        "interactions: column 'timestamp': timestamp[us] is taken as times in Europe/Paris",
        "interactions: column 'timestamp': timestamp[us] (INT96) is taken as times in UTC",
    ]


def test_our_own_types_are_cast_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    for name, table in schema.TABLES.items():
        check_footers({name: [Footer("x", table, frozenset(), {}, [])]})
    view = pa.schema(
        {"title_id": pa.string_view(), "name": pa.large_string(), "genres": pa.large_list(pa.string_view())}
    )
    check_footers({"titles": [Footer("x", view, frozenset(), {}, [])]})
    wider = {**schema_of("impressions"), "propensity": pa.float32()}
    check_footers({"impressions": [footer(wider)]})
    assert capsys.readouterr().out == ""
