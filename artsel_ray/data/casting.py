"""Casts tables of other writers to ours: which types are accepted, and how they are cast."""

import pyarrow as pa
import pyarrow.compute as pc

from artsel_ray.errors import InputError
from artsel_ray.schema import TABLES

_RENAMED = {"rationale": "reason"}
"""Columns and their names in an earlier version, whose outputs still load."""


def source_names(schema: pa.Schema, columns: list[str]) -> dict[str, str]:
    """Returns the columns that a file has, each with its name there, which may be an earlier version's."""
    found = {column: column if column in schema.names else _RENAMED.get(column, column) for column in columns}
    return {column: name for column, name in found.items() if name in schema.names}


def conform(schema: pa.Schema, table: str, source: str, columns: list[str] | None = None) -> None:
    """Checks that a file's schema can be cast to the named table's.

    Only nullable columns may be missing; additional columns are ignored. Other types of the same kind are accepted:
    any width of integers and floats, integers for floats, `large_string` and dictionaries for `string`, and any unit
    and zone of a timestamp with a zone.

    Args:
        table: the table's name, as in `schema.TABLES`.
        source: the file's name, for the error.
        columns: the columns to check; all if None.

    Raises:
        InputError: naming the source, the difference, and both schemas.
    """
    expected = TABLES[table]
    names = columns or expected.names
    present = source_names(schema, names)
    problems = []
    for field in (expected.field(name) for name in names):
        count = len(schema.get_all_field_indices(present.get(field.name, field.name)))
        if count > 1:
            problems.append(f"column '{field.name}' occurs {count} times")
        elif not count:
            if not field.nullable:
                problems.append(f"column '{field.name}' ({field.type}) is missing")
        elif not _compatible(got := schema.field(present[field.name]).type, field.type):
            problems.append(f"column '{field.name}' is {got}, expected {field.type}")
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
        is_list = pa.types.is_list(got) or pa.types.is_large_list(got)
        return is_list and _compatible(got.value_type, expected.value_type)
    if pa.types.is_timestamp(expected):
        return pa.types.is_timestamp(got) and got.tz is not None
    if pa.types.is_string(expected):
        return pa.types.is_string(got) or pa.types.is_large_string(got)
    if pa.types.is_floating(expected):
        return pa.types.is_floating(got) or pa.types.is_integer(got)
    return pa.types.is_integer(expected) and pa.types.is_integer(got)


def cast(table: pa.Table, name: str, source: str, fields: list[pa.Field] | None = None) -> pa.Table:
    """Returns the table with exactly the named table's columns, order and types; absent columns are null.

    Nulls in required columns stay null: those rows are invalid, and checked later. Fractions of a microsecond are
    dropped, and integers are rounded to the nearest float.

    Args:
        table: rows of a schema that `conform` accepts.
        name: the table's name, as in `schema.TABLES`.
        source: the file's name, for the error.
        fields: the fields to return, in this order; all if None.

    Raises:
        InputError: if a value does not fit the type.
    """
    fields = [field.with_nullable(True) for field in fields or TABLES[name]]
    present = source_names(table.schema, [field.name for field in fields])
    arrays = []
    for field in fields:
        rounded = pc.CastOptions(field.type, allow_time_truncate=True, allow_float_truncate=True)
        values = table[present[field.name]] if field.name in present else pa.nulls(table.num_rows, field.type)
        try:
            arrays.append(values.cast(options=rounded))
        except pa.ArrowInvalid as error:
            raise InputError(f"{source}: column '{field.name}' does not fit {field.type}: {error}") from None
    return pa.table(arrays, schema=pa.schema(fields))
