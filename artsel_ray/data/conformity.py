"""Whether files are tables of ours: everything that is wrong, at once and with its remedy, and what will be cast."""

from collections.abc import Iterator, Mapping

import pyarrow as pa

from artsel_ray.data.casting import accepts, is_list, is_text, lacks_zone
from artsel_ray.data.footers import Footer, source_names
from artsel_ray.data.hive import folder_array
from artsel_ray.errors import InputError, first_line
from artsel_ray.schema import TABLES

_reported: set[str] = set()


def check_footers(
    tables: Mapping[str, list[Footer]], fields: Mapping[str, list[pa.Field]] | None = None, timezone: str | None = None
) -> None:
    """Checks that files can be read as the named tables, and prints once what of them is cast.

    Only nullable columns may be missing; additional columns are ignored.

    Args:
        fields: the columns to check, by table; by default all of a table.
        timezone: the time zone of timestamps without one.

    Raises:
        InputError: with everything that is wrong in any of the tables, and a line of pandas that fixes it.
    """
    read = [
        (table, footer, (fields or {}).get(table, list(TABLES[table])))
        for table, footers in tables.items()
        for footer in footers
    ]
    problems: dict[tuple[str, str], list[str]] = {}
    for table, footer, wanted in read:
        for problem in _problems(footer, wanted, timezone):
            problems.setdefault((table, " ".join(problem.split())), []).append(footer.uri)
    if problems:
        raise InputError(_message(problems))
    casts = [f"{table}: {line}" for table, footer, wanted in read for line in _casts(footer, wanted, timezone)]
    lines = [" ".join(line.split()) for line in casts]  # a type names its fields, whatever they are called
    for line in dict.fromkeys(lines):
        if line not in _reported:
            _reported.add(line)
            print(line, flush=True)


def _message(problems: dict[tuple[str, str], list[str]]) -> str:
    lines = []
    for (table, problem), (first, *others) in problems.items():
        more = f" (and {len(others):,} more file{'s' * (len(others) > 1)})" if others else ""
        lines.append(f"{first}{more} is not a table of {table}: {problem}")
    return lines[0] if len(lines) == 1 else f"{len(lines)} columns cannot be read:\n  " + "\n  ".join(lines)


def _problems(footer: Footer, fields: list[pa.Field], timezone: str | None) -> Iterator[str]:
    present = source_names(footer.schema, [field.name for field in fields])
    for field in fields:
        name = present.get(field.name)
        zone = footer.zone(name or "", timezone)
        count = len(footer.schema.get_all_field_indices(name)) if name else 0
        if count > 1:
            yield f"column '{field.name}' occurs {count} times; in pandas: df = df.loc[:, ~df.columns.duplicated()]"
        elif name:
            got = footer.schema.field(name).type
            if not accepts(got, field.type):
                yield f"column '{field.name}' is {got}, expected {field.type}; {_remedy(name, got, field.type)}"
            elif zone is None and lacks_zone(got, field.type):
                yield f"column '{field.name}' is {got}, without a time zone; {_zone_remedy(name, got)}"
        elif field.name in footer.folders:
            yield from _folder_problem(footer, field, zone)
        elif not field.nullable:
            yield f"column '{field.name}' ({field.type}) is missing; {_missing_remedy(footer.schema, field)}"


def _folder_problem(footer: Footer, field: pa.Field, zone: str | None) -> Iterator[str]:
    try:
        folder_array(footer.folders[field.name], field.type, 1, zone)
    except pa.ArrowException as error:
        needs_zone = pa.types.is_timestamp(field.type) and zone is None
        remedy = "name its time zone with --timezone (of prepare)" if needs_zone else "rename the folder"
        yield f"column '{field.name}' is in a folder's name, but no {field.type} ({first_line(error)}); {remedy}"


def _remedy(name: str, got: pa.DataType, expected: pa.DataType) -> str:
    """Returns the line of pandas that makes a column the expected type."""
    column = f'df["{name}"]'
    if pa.types.is_timestamp(expected):
        if pa.types.is_integer(got) or pa.types.is_floating(got):
            return f'in pandas: {column} = pd.to_datetime({column}, unit="s", utc=True) (or unit="ms", "us", "ns")'
        return f"in pandas: {column} = pd.to_datetime({column}, utc=True)"
    if pa.types.is_boolean(expected):
        return f'in pandas: {column} = {column}.isin([True, 1, "1", "true", "True"])'
    if pa.types.is_floating(expected) or pa.types.is_integer(expected):
        return f"in pandas: {column} = pd.to_numeric({column})"
    if pa.types.is_string(expected):
        return f"in pandas: {column} = {column}.astype(str)"
    if is_text(got) and expected == pa.list_(pa.string()):
        return f'in pandas: {column} = {column}.str.split("|")'
    return "docs/data.md has the types"


def _zone_remedy(name: str, got: pa.DataType) -> str:
    if not pa.types.is_timestamp(got):
        return "write its times with a zone (UTC)"
    line = f'df["{name}"] = df["{name}"].dt.tz_localize("UTC")'
    return f"name it with --timezone (of prepare; such as UTC or Europe/Paris), or in pandas: {line}"


def _missing_remedy(schema: pa.Schema, field: pa.Field) -> str:
    alike = [name for name in schema.names if name.lower() == field.name.lower()]
    return f'in pandas: df = df.rename(columns={{"{alike[0] if alike else "OLD"}": "{field.name}"}})'


def _casts(footer: Footer, fields: list[pa.Field], timezone: str | None) -> Iterator[str]:
    """Yields a line for each column whose values change their type, or could come from two sources."""
    present = source_names(footer.schema, [field.name for field in fields])
    for field in fields:
        name = present.get(field.name)
        if name is None:
            if field.name in footer.folders:
                yield f"column '{field.name}' is read from the folders' names"
            continue
        if field.name in footer.folders:
            yield f"column '{field.name}' is in the files and in their folders' names; the files' values count"
        got = footer.schema.field(name).type
        zone = footer.zone(name, timezone)
        if lacks_zone(got, field.type):
            from_int96 = " (INT96)" if name in footer.int96 else ""
            yield f"column '{field.name}': {got}{from_int96} is taken as times in {zone}"
        elif not _is_same_kind(got, field.type):
            yield f"column '{field.name}' is cast from {got} to {field.type}{_loss(got, field.type)}"


def _loss(got: pa.DataType, expected: pa.DataType) -> str:
    if pa.types.is_timestamp(got) and got.unit == "ns":
        return "; fractions of a microsecond are dropped"
    return "; numbers become the nearest float" if pa.types.is_floating(expected) else ""


def _is_same_kind(got: pa.DataType, expected: pa.DataType) -> bool:
    """Returns whether a cast changes at most how Arrow or Parquet lays values out."""
    if pa.types.is_null(got) or got == expected:
        return True
    if pa.types.is_dictionary(got):
        return _is_same_kind(got.value_type, expected)
    if is_list(expected):
        return is_list(got) and _is_same_kind(got.value_type, expected.value_type)
    if pa.types.is_struct(expected):
        return all(_is_same_kind(got.field(field.name).type, field.type) for field in expected)
    if pa.types.is_integer(expected):
        return pa.types.is_integer(got)
    if pa.types.is_floating(expected) and pa.types.is_floating(got):
        return bool(got.bit_width <= expected.bit_width)
    return is_text(got) and is_text(expected)
