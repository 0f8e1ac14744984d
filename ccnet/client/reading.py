"""JSON -> dataclasses, by their annotations; a value of another type is refused, an unknown key is left out."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from datetime import datetime
from fractions import Fraction
from typing import Any, TypeVar, cast

Result = TypeVar("Result")


def read(kind: type[Result], document: Any) -> Result:
    """A JSON value as an instance of a dataclass, the dataclasses in it included.

    Args:
        kind: a dataclass of str, int, float, bool, `Fraction` (a text such as "5/6"), `datetime` (a text of ISO
            8601), `dict[str, Any]`, dataclasses, tuples of these, and None beside them.
        document: the value, as `json.loads` gives it.

    Raises:
        ValueError: a key is missing or a value is of another type; the message says where.
    """
    return cast(Result, _value(kind, document, "the answer"))


def _value(kind: Any, given: Any, where: str) -> Any:
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _object(kind, given, where)
    if origin is tuple:
        return _array(typing.get_args(kind), given, where)
    if origin is types.UnionType:  # X | None
        return None if given is None else _value(typing.get_args(kind)[0], given, where)
    if origin is dict:
        return _plain(dict, given, where)
    if kind is datetime:
        return _moment(_plain(str, given, where), where)
    if kind is Fraction:
        try:
            return Fraction(_plain(str, given, where))
        except (ValueError, ZeroDivisionError) as error:
            raise ValueError(f"{where} is {given!r:.50} and no fraction") from error
    if kind is float:
        return float(_plain((int, float), given, where))
    return _plain(kind, given, where)


def _object(kind: type[Any], given: Any, where: str) -> Any:
    """A dataclass; its fields with a default may be missing."""
    if not isinstance(given, Mapping):
        raise ValueError(f"{where} is {given!r:.50} and no object")
    hints = typing.get_type_hints(kind)
    values = {}
    for field in dataclasses.fields(kind):
        if field.name in given:
            values[field.name] = _value(hints[field.name], given[field.name], f"{where}.{field.name}")
        elif field.default is dataclasses.MISSING:
            raise ValueError(f"{where} has no {field.name!r}")
    return kind(**values)


def _array(kinds: tuple[Any, ...], given: Any, where: str) -> tuple[Any, ...]:
    """A tuple of any length (`tuple[X, ...]`) or of one (`tuple[X, Y]`)."""
    if not isinstance(given, list):
        raise ValueError(f"{where} is {given!r:.50} and no array")
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(given)
    if len(kinds) != len(given):
        raise ValueError(f"{where} has {len(given)} values and not {len(kinds)}")
    return tuple(
        _value(kind, value, f"{where}[{index}]") for index, (kind, value) in enumerate(zip(kinds, given, strict=True))
    )


def _moment(given: str, where: str) -> datetime:
    try:
        return datetime.fromisoformat(given)
    except ValueError as error:
        raise ValueError(f"{where} is {given!r:.50} and no moment") from error


def _plain(kind: Any, given: Any, where: str) -> Any:
    """A value that stays as it is; JSON's true and false are no numbers, though Python's are."""
    if not isinstance(given, kind) or (isinstance(given, bool) and kind is not bool):
        raise ValueError(f"{where} is {given!r:.50}, of another type than expected")
    return given
