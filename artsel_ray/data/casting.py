"""Casts values of other writers' types to ours: which are accepted, and how, so that nothing is lost.

Two casts lose something, and the reader reports them: fractions of a microsecond are dropped, and numbers become the
nearest float.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# Integers up to these are exact in a floating-point number, by its bits.
_EXACT = {16: 2**11, 32: 2**24, 64: 2**53}
# A float32 softmax of a single likely artwork ends some roundings above 1.
_SHARES, _ROUNDING = ("propensity", "probability"), 1e-6


def is_text(type_: pa.DataType) -> bool:
    """Returns whether a type is any of Arrow's kinds of strings."""
    return pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_)


def is_list(type_: pa.DataType) -> bool:
    """Returns whether a type is any of Arrow's kinds of lists."""
    kinds = ("list", "large_list", "list_view", "large_list_view", "fixed_size_list")
    return any(getattr(pa.types, f"is_{kind}")(type_) for kind in kinds)


def accepts(got: pa.DataType, expected: pa.DataType) -> bool:
    """Returns whether values of one type can be cast to another, by the types alone; see `cast_array`."""
    if got == expected or pa.types.is_null(got):
        return True
    if pa.types.is_dictionary(got):
        return accepts(got.value_type, expected)
    if pa.types.is_struct(expected):
        return pa.types.is_struct(got) and all(
            got.get_field_index(field.name) >= 0 and accepts(got.field(field.name).type, field.type)
            for field in expected
        )
    if pa.types.is_list(expected):
        return is_list(got) and accepts(got.value_type, expected.value_type)
    if pa.types.is_timestamp(expected):
        return pa.types.is_timestamp(got)
    is_number = pa.types.is_integer(got) or pa.types.is_floating(got) or pa.types.is_decimal(got)
    if pa.types.is_string(expected):
        is_bytes = pa.types.is_binary(got) or pa.types.is_large_binary(got) or pa.types.is_binary_view(got)
        return is_number or is_bytes or is_text(got) or isinstance(got, pa.UuidType)
    return is_number and (
        pa.types.is_floating(expected) or pa.types.is_integer(expected) or pa.types.is_boolean(expected)
    )


def lacks_zone(got: pa.DataType, expected: pa.DataType) -> bool:
    """Returns whether a cast needs the time zone of timestamps that have none."""
    if pa.types.is_null(got):
        return False
    if pa.types.is_dictionary(got):
        return lacks_zone(got.value_type, expected)
    if pa.types.is_struct(expected):
        return any(lacks_zone(got.field(field.name).type, field.type) for field in expected)
    if pa.types.is_list(expected):
        return lacks_zone(got.value_type, expected.value_type)
    return pa.types.is_timestamp(expected) and got.tz is None


def cast_array(values: pa.Array, field: pa.Field, zone: str | None) -> pa.Array:
    """Returns values as a field's type; nulls stay null.

    Whole numbers of any type become text, integers, or, if 0 or 1, truth values; in those, NaN becomes null. Bytes
    that are not UTF-8 are kept. Shares of 1 with a rounding error become 1.

    Args:
        zone: the time zone of timestamps without one.

    Raises:
        pyarrow.ArrowInvalid: if a value does not fit the type.
    """
    expected, got = field.type, values.type
    if got == expected and not _has_share(field):
        return values
    if pa.types.is_null(got):
        return pa.nulls(len(values), expected)
    if pa.types.is_dictionary(got):
        return cast_array(values.dictionary, field, zone).take(values.indices)
    if pa.types.is_list(expected):
        ends = np.cumsum(pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False))
        offsets = pa.array(np.concatenate([[0], ends]), pa.int32())
        items = cast_array(pc.list_flatten(values), expected.value_field, zone)
        return pa.ListArray.from_arrays(offsets, items, type=expected, mask=values.is_null())
    if pa.types.is_struct(expected):
        inner = [cast_array(pc.struct_field(values, each.name), each, zone) for each in expected]
        return pa.StructArray.from_arrays(inner, fields=list(expected), mask=values.is_null())
    return _clipped(_cast_leaf(values, expected, zone), field)


def _has_share(field: pa.Field) -> bool:
    if pa.types.is_list(field.type):
        return _has_share(field.type.value_field)
    if pa.types.is_struct(field.type):
        return any(_has_share(each) for each in field.type)
    return field.name in _SHARES


def _clipped(values: pa.Array, field: pa.Field) -> pa.Array:
    if not _has_share(field):
        return values
    rounded = pc.and_(pc.greater(values, 1), pc.less_equal(values, 1 + _ROUNDING))
    return pc.if_else(pc.fill_null(rounded, False), pa.scalar(1, field.type), values)


def _cast_leaf(values: pa.Array, expected: pa.DataType, zone: str | None) -> pa.Array:
    got = values.type
    if pa.types.is_timestamp(expected) and got.tz is None:
        values = pc.assume_timezone(values, zone)  # refuses times that occur twice or never in the zone
    elif isinstance(got, pa.UuidType):
        values = pa.array([None if each is None else str(each) for each in values.to_pylist()], pa.string())
    elif not pa.types.is_floating(expected) and (pa.types.is_floating(got) or pa.types.is_decimal(got)):
        values = _whole(values)
    if pa.types.is_boolean(expected) and got != expected:
        values = _zero_or_one(values)
    is_float = pa.types.is_floating(expected)
    return values.cast(
        options=pc.CastOptions(
            expected, allow_time_truncate=True, allow_float_truncate=is_float, allow_invalid_utf8=True
        )
    )


def _whole(values: pa.Array) -> pa.Array:
    """Returns floats as int64, or decimals without their scale; fails at fractions."""
    if pa.types.is_decimal(values.type):
        return values.cast(pa.decimal256(76, 0) if pa.types.is_decimal256(values.type) else pa.decimal128(38, 0))
    exact = _EXACT[values.type.bit_width]
    values = values.cast(pa.float64())
    if pc.any(pc.greater(pc.abs(pc.if_else(pc.is_nan(values), 0, values)), exact)).as_py():
        raise pa.ArrowInvalid(f"numbers of this type are not exact above {exact:,}")
    return pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values).cast(pa.int64())


def _zero_or_one(values: pa.Array) -> pa.Array:
    numbers = values.cast(pa.int64())
    if not pc.all(pc.is_in(numbers.drop_null(), pa.array([0, 1], pa.int64()))).as_py():
        raise pa.ArrowInvalid("other numbers than 0 and 1")
    return numbers
