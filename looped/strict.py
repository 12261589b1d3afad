"""Checks for the fields of configurations, and their conversion to and from plain dictionaries."""

import dataclasses
import difflib
import functools
import inspect
import json
import types
import typing
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, TypeVar, Union

T = TypeVar("T")
LARGEST = (2 - 2**-23) * 2.0**127
"""The largest finite number in float32, the type in which models compute."""


class Measured:
    """The base of results. Their numbers may be infinite or not a number; those of configurations may not."""

    __slots__ = ()


@typing.dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(dataclasses.field,))
def frozen(cls: type[T]) -> type[T]:
    """The decorator of every configuration: frozen, keyword-only, with slots.

    Choices are checked when one is made, and that numbers are finite in float32.
    """
    own: Any = getattr(cls, "__post_init__", None)

    def __post_init__(self: Any) -> None:  # noqa: N807
        for f in dataclasses.fields(self) if not isinstance(self, Measured) else ():
            value = getattr(self, f.name)
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, float):
                    check(abs(number) <= LARGEST, f.name, value, f"finite numbers of at most {LARGEST:.2g}")
        for name, choices in _choices(type(self)).items():
            value = getattr(self, name)
            if value not in choices:
                hint = nearest(value, filter(None, choices)) if isinstance(value, str) else ""
                check(False, name, value, f"one of {', '.join(map(str, choices))}{hint}")
        if own is not None:
            own(self)

    cls.__post_init__ = __post_init__  # type: ignore[attr-defined]
    methods = [inspect.unwrap(method) for method in (*vars(cls).values(), own) if callable(method)]
    made = dataclasses.dataclass(frozen=True, kw_only=True, slots=True)(cls)
    # A class with slots is a new class, so `super()` in its methods must refer to the new one (as from Python 3.14 on).
    for method in filter(inspect.isfunction, methods):
        for name, cell in zip(method.__code__.co_freevars, method.__closure__ or (), strict=True):
            if name == "__class__":
                cell.cell_contents = made
    return made


@functools.cache
def _choices(cls: Any) -> dict[str, tuple[Any, ...]]:
    """The fields that have one of some fixed values, with these values."""
    found = {}
    for name, kind in typing.get_type_hints(cls).items():
        literals = [kind, *typing.get_args(kind)] if typing.get_origin(kind) is not Literal else [kind]
        values = [v for k in literals if typing.get_origin(k) is Literal for v in typing.get_args(k)]
        if values and all(typing.get_origin(k) is Literal or k is type(None) for k in literals[1:]):
            found[name] = (*values, *([None] if type(None) in literals else []))
    return found


def check(ok: bool, field_name: str, value: object, allowed: str) -> None:
    """Raise ValueError with the field, its value and the allowed values, unless `ok`."""
    if not ok:
        raise ValueError(f"{field_name}={shown(value)}: expected {allowed}")


def shown(value: object) -> str:
    """The value in a message, not longer than a line."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def is_number(value: object) -> bool:
    """Whether the value is a real number; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def at_least(least: int, **values: int | None) -> None:
    """Raise ValueError for the first of the named values that is no whole number from `least` on; None is allowed."""
    for name, value in values.items():
        whole = isinstance(value, Integral) and is_number(value)
        check(value is None or whole, name, value, f"a whole number, at least {least}")
        check(value is None or value >= least, name, value, f"at least {least}")


def positive(config: Any, *names: str) -> None:
    """Raise ValueError for the first of the named fields that is below 1; None is allowed."""
    at_least(1, **{name: getattr(config, name) for name in names})


def fraction(config: Any, *names: str) -> None:
    """Raise ValueError for the first of the named fields that is not from 0 to 1; None is allowed."""
    for name in names:
        value = getattr(config, name)
        if value is not None:
            check(0 <= value <= 1, name, value, "a number from 0 to 1")


def forbid_unused(config: Any, condition: str, *names: str) -> None:
    """Raise ValueError if one of the fields `names` is set, because it has no effect under `condition`.

    The caller checks the condition. A field counts as set if it differs from its default.
    """
    for name in names:
        value, default = getattr(config, name), config.__dataclass_fields__[name].default
        if value != default:
            raise ValueError(f"{name}={value!r}: has no effect when {condition}; expected {default!r}")


def ordered(config: Any, what: str) -> None:
    """Raise ValueError if the field min_`what` is larger than max_`what`; None is allowed."""
    low, high = getattr(config, f"min_{what}"), getattr(config, f"max_{what}")
    if low is not None and high is not None:
        check(low <= high, f"min_{what}", low, f"at most max_{what}={high}")


class Named:
    """The base of configurations of several kinds. Their plain data begin with the `name` of the kind."""

    __slots__ = ()
    name: ClassVar[str]

    @classmethod
    def kind(cls, name: str) -> type:
        """The configuration class of that name.

        Raises:
            ValueError: the name is unknown.
        """
        raise NotImplementedError


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON values; the inverse of `from_dict`."""
    values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    if isinstance(config, Named):
        values = {"name": config.name} | values
    parts = {key: to_dict(value) if dataclasses.is_dataclass(value) else value for key, value in values.items()}
    return json.loads(json.dumps(parts))


def from_dict(cls: type[T], data: object, path: str = "") -> T:
    """Build `cls` from plain JSON values.

    Raises:
        ValueError: an unknown key, a wrong type or an impossible value; names the field.
    """
    return _convert(cls, data, path or cls.__name__)


def nearest(word: str, options: Iterable[str]) -> str:
    """' (did you mean X?)' with the option nearest to `word`, or ''."""
    close = difflib.get_close_matches(word, list(options), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _convert(kind: Any, value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(kind) or hasattr(kind, "kind_of"):
        return _convert_dataclass(kind, value, path)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return _convert_union(args, value, path)
    if origin is Literal:
        # `True == 1` in Python: compare the types as well.
        if not any(value == a and type(value) is type(a) for a in args):
            hint = nearest(value, [a for a in args if isinstance(a, str)]) if isinstance(value, str) else ""
            raise ValueError(f"{path}={shown(value)}: expected one of {', '.join(map(str, args))}{hint}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple) or (args[-1] is not Ellipsis and len(value) != len(args)):
            length = "values" if args[-1] is Ellipsis else len(args)
            raise ValueError(f"{path}={shown(value)}: expected a list of {length}")
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else args
        return tuple(_convert(k, v, f"{path}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    if kind is Any:
        return value
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{path}={shown(value)}: expected an object")
        return {key: _convert(args[1], inner, f"{path}.{key}") for key, inner in value.items()}
    if type(value) is int and kind in (int, float) and abs(value) >= 2**63:
        raise ValueError(f"{path}={shown(value)}: expected a number of 64 bits")
    if kind is float and type(value) is int:
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{path}={shown(value)}: expected {kind.__name__}, not {type(value).__name__}")
    return value


def _convert_union(args: tuple[Any, ...], value: Any, path: str) -> Any:
    if value is None and type(None) in args:
        return None
    options = [a for a in args if a is not type(None)]
    if len(options) == 1:
        return _convert(options[0], value, path)
    raise TypeError(f"{path}: unions of {options} are not supported")


def _convert_dataclass(cls: Any, data: Any, path: str) -> Any:
    if not isinstance(data, dict):
        raise ValueError(f"{path}={shown(data)}: expected an object with the fields of {cls.__name__}")
    if issubclass(cls, Named):
        try:
            cls = cls.kind(str(data.get("name")))
        except ValueError as error:
            raise ValueError(f"{path}.name: {error}") from None
        data = {key: value for key, value in data.items() if key != "name"}
    if hasattr(cls, "kind_of"):
        try:
            cls = cls.kind_of(data)
        except ValueError as error:
            raise ValueError(f"{path}.{error}") from None
    kinds = _type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]
    for key in data:
        if key not in known:
            raise ValueError(f"{path}.{key}: unknown key{nearest(key, known)}")
    needed = [f.name for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING]
    if missing := [name for name in needed if name not in data]:
        raise ValueError(f"{path}: missing {', '.join(missing)}")
    values = {key: _convert(kinds[key], value, f"{path}.{key}") for key, value in data.items()}
    try:
        return cls(**values)
    except ValueError as error:
        raise ValueError(f"{path}.{error}") from None


_type_hints = functools.cache(typing.get_type_hints)  # cached, because a file may have thousands of rows of one class
