"""Frozen dataclasses as configuration: JSON round trip, overrides, differences and a stable hash.

This module is only the machinery. The configuration of a training run is in
`tpugraphs_rank.run_config`. A configuration is a frozen dataclass. Its fields are numbers, strings,
booleans, None, JSON objects (`dict`), tuples of those, or further configurations ("sections"). A
field with `hashed=False` in its metadata (paths, verbosity) does not change what is computed, so it
is left out of the hash and of the differences.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
import dataclasses
import difflib
import hashlib
import json
import math
import operator
import types
import typing
from typing import Any, TypeVar

from tpugraphs_rank import errors
from tpugraphs_rank import escaping

ConfigT = TypeVar("ConfigT")

_LONGEST_NAME = 255
_LONGEST_TEXT = 4096  # The longest path that the system accepts.
_MOST_ELEMENTS = 64  # Of a list.

Choices = tuple[Any, ...] | Callable[[], Iterable[Any]]


def setting(default: Any, help: str, *, choices: Choices = (), minimum: Any = None,
            maximum: Any = None, above: Any = None, hashed: bool = True, common: bool = False,
            objects: bool = False) -> Any:
  """A dataclass field with its help text and its valid values.

  Args:
    default: the default value. A dict is copied for each configuration.
    help: one or two sentences with the unit. The flag's help shows them.
    choices: the valid values (for a tuple field: of each element), where they can be listed. A
      function is called whenever the values are needed, so that they may include names that are
      registered later.
    minimum: the smallest valid value.
    maximum: the largest valid value.
    above: every valid value is greater than this.
    hashed: whether the setting changes what is computed.
    common: whether many users need the setting. The short help lists only these.
    objects: whether the setting is a tuple of JSON objects. Its flag takes a JSON list.
  """
  metadata = {"help": help, "choices": choices, "minimum": minimum, "maximum": maximum,
              "above": above, "hashed": hashed, "common": common, "objects": objects}
  if isinstance(default, dict):
    return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata, hash=False)
  return dataclasses.field(default=default, metadata=metadata, hash=False if objects else None)


def section(default: Any, title: str) -> Any:
  """A dataclass field that holds a nested configuration.

  Args:
    default: the nested configuration with its defaults.
    title: heading of its settings in the help.
  """
  return dataclasses.field(default=default, metadata={"title": title})


def choices_of(field: dataclasses.Field) -> tuple[Any, ...]:
  """The valid values of a setting as of now; empty where they cannot be listed."""
  choices = field.metadata.get("choices", ())
  return tuple(choices() if callable(choices) else choices)


def nearest(name: str, known: Iterable[str]) -> str:
  """' (did you mean X?)' for the known name most similar to `name`; '' if none is similar."""
  if len(name) > _LONGEST_NAME:  # The comparison takes the square of the length.
    return ""
  close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
  return f" (did you mean {close[0]!r}?)" if close else ""


def field_types(cls: type) -> dict[str, Any]:
  """The resolved type of each field of a configuration class."""
  return typing.get_type_hints(cls)


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field, Any]]:
  """Yields (dotted name, field, value) of every setting, section by section.

  `config` may be an instance or a class whose fields all have defaults.
  """
  if isinstance(config, type):
    config = config()
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if dataclasses.is_dataclass(value):
      yield from leaves(value, f"{prefix}{field.name}.")
    else:
      yield prefix + field.name, field, value


def section_titles(cls: type) -> dict[str, str]:
  """The title of each top-level section, by the section's name."""
  return {field.name: field.metadata["title"] for field in dataclasses.fields(cls)
          if "title" in field.metadata}


def flag_names(cls: type) -> dict[str, str]:
  """The dotted name of every setting, by its flag's name: `hidden_width` to
  `model.hidden_width`."""
  return {name.rpartition(".")[2]: name for name, _, _ in leaves(cls)}


def to_dict(config: Any) -> dict[str, Any]:
  """The configuration as plain JSON values; tuples become lists."""
  return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(cls: type[ConfigT], values: Mapping[str, Any], *, source: str = "configuration",
              base: Any = None) -> ConfigT:
  """Builds a configuration from JSON values.

  Settings that are missing in `values` come from `base`, or else from the defaults. If the class
  has a static method `prepare`, it receives the values and the source first, and returns the values
  to use: it may register names that the choices of other settings then include.

  Args:
    cls: the configuration class.
    values: nested JSON values.
    source: where the values come from, for example a file name. Messages begin with it.
    base: a configuration of this class.

  Raises:
    ConfigError: an unknown key (the message suggests the nearest known one), a wrong type, or a
      value out of range.
  """
  return _prepared(cls, values, source, base if base is not None else cls(), source)


def _prepared(cls: type[ConfigT], values: Mapping[str, Any], source: str, base: Any,
              file: str | None) -> ConfigT:
  """As `from_dict`; `file` is None for values that the user gave, not a file."""
  prepare = getattr(cls, "prepare", None)
  if prepare is not None and isinstance(values, Mapping):
    values = prepare(values, file)
  return _build(cls, values, source, "", base)


def _build(cls: Any, values: Any, source: str, prefix: str, base: Any) -> Any:
  if not isinstance(values, Mapping):
    raise errors.ConfigError(
        f"{source}: {prefix.rstrip('.') or 'the configuration'} is {type(values).__name__}; "
        "expected an object of settings")
  known = {field.name: field for field in dataclasses.fields(cls)}
  hints = field_types(cls)
  changes = {}
  for key, value in values.items():
    if key not in known:
      raise errors.ConfigError(
          f"{source}: unknown setting {escaping.value(prefix + key)}{nearest(key, known)}; "
          f"known here: {', '.join(sorted(known))}")
    if dataclasses.is_dataclass(hints[key]):
      changes[key] = _build(hints[key], value, source, f"{prefix}{key}.", getattr(base, key))
    else:
      changes[key] = _checked(value, hints[key], known[key], source, prefix + key)
  return dataclasses.replace(base, **changes)


def _checked(value: Any, hint: Any, field: dataclasses.Field, source: str, name: str) -> Any:
  """`value` converted to the type of its field.

  Raises:
    ConfigError: it has another type, or is not among the valid values.
  """
  converted = _converted(value, hint)
  if converted is _WRONG:
    size = " of at most 64 bits" if _is_long(value) else ""
    raise errors.ConfigError(
        f"{source}: {name} = {escaping.value(value)} is not {_describe(hint)}{size}")
  elements = converted if isinstance(converted, tuple) else (converted,)
  if len(elements) > _MOST_ELEMENTS:
    raise errors.ConfigError(
        f"{source}: {name} has {len(elements):,} elements; expected at most {_MOST_ELEMENTS}")
  choices = choices_of(field)
  is_open = callable(field.metadata.get("choices"))
  for element in elements:
    if element is None:
      continue
    if isinstance(element, str) and (len(element) > _LONGEST_TEXT or "\0" in element):
      raise errors.ConfigError(
          f"{source}: {name} = {escaping.value(element)}; expected at most {_LONGEST_TEXT:,} "
          "characters, none of which is a null character")
    if choices and element not in choices:
      raise errors.ConfigError(
          f"{source}: {name} = {escaping.value(element)}"
          f"{nearest(str(element), map(str, choices))}; expected one of: "
          f"{', '.join(map(str, choices))}{_MORE if is_open else ''}")
    for limit, wrong, text in _LIMITS:
      bound = field.metadata.get(limit)
      if bound is not None and wrong(element, bound):
        bound = f"{bound:,}" if isinstance(bound, int) else bound
        raise errors.ConfigError(
            f"{source}: {name} = {escaping.value(element)}; expected {text} {bound}")
  return converted


# Where choices are a function, plugins may add names.
_MORE = ". A plugin (--plugin) registers further names"

# For each kind of limit when a value violates it, and the words of the message.
_LIMITS: tuple[tuple[str, Callable[[Any, Any], bool], str], ...] = (
    ("minimum", operator.lt, "at least"), ("maximum", operator.gt, "at most"),
    ("above", operator.le, "greater than"))

_WRONG = object()


def _is_long(value: Any) -> bool:
  """JSON has whole numbers of any length; the libraries that use the settings do not."""
  return isinstance(value, int) and not -2**63 <= value < 2**63


def _converted(value: Any, hint: Any) -> Any:
  if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
    value = value.tolist()  # NumPy's numbers and arrays as Python's.
  origin = typing.get_origin(hint)
  if origin in (typing.Union, types.UnionType):
    for option in typing.get_args(hint):
      converted = _converted(value, option)
      if converted is not _WRONG:
        return converted
    return _WRONG
  if hint is type(None):
    return None if value is None else _WRONG
  if origin is tuple:
    if not isinstance(value, (list, tuple)):
      return _WRONG
    converted = tuple(_converted(element, typing.get_args(hint)[0]) for element in value)
    return _WRONG if any(element is _WRONG for element in converted) else converted
  if origin is dict:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
      return _WRONG
    try:  # The same value as when it is read from JSON later.
      return json.loads(json.dumps(dict(value), allow_nan=False))
    except (TypeError, ValueError):
      return _WRONG
  if hint is bool:
    return value if isinstance(value, bool) else _WRONG
  if _is_long(value):
    return _WRONG
  if hint is int:
    return value if isinstance(value, int) and not isinstance(value, bool) else _WRONG
  if hint is float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
      return _WRONG
    return float(value)
  if hint is str:
    return value if isinstance(value, str) else _WRONG
  raise TypeError(f"a configuration field cannot be of type {hint}")


def _describe(hint: Any) -> str:
  origin = typing.get_origin(hint)
  if origin in (typing.Union, types.UnionType):
    return " or ".join(_describe(option) for option in typing.get_args(hint))
  if origin is tuple:
    return f"a list in which each element is {_describe(typing.get_args(hint)[0])}"
  if origin is dict:
    return "a JSON object"
  return {bool: "true or false", int: "a whole number", float: "a finite number",
          str: "a string", type(None): "null"}.get(hint, str(hint))


def override(config: ConfigT, changes: Mapping[str, Any], *, source: str = "flags") -> ConfigT:
  """A copy with some settings changed by the user, by dotted name (`"model.hidden_width"`).

  Raises:
    ConfigError: as for `from_dict`.
  """
  nested: dict[str, Any] = {}
  for name, value in changes.items():
    *sections, leaf = name.split(".")
    target = nested
    for part in sections:
      target = target.setdefault(part, {})
    target[leaf] = value
  return _prepared(type(config), nested, source, config, None)


def override_by_flag(config: ConfigT, changes: Mapping[str, Any], *, source: str = "settings"
                     ) -> ConfigT:
  """A copy with some settings changed, by flag name (`"hidden_width"`).

  Raises:
    ConfigError: an unknown name (the message suggests the nearest), or as for `from_dict`.
  """
  names = flag_names(type(config))
  for name in changes:
    if name not in names:
      raise errors.ConfigError(
          f"{source}: unknown setting {escaping.value(name)}{nearest(name, names)}; known "
          f"settings: {', '.join(sorted(names))}")
  return override(config, {names[name]: value for name, value in changes.items()}, source=source)


def stable_hash(config: Any) -> str:
  """16 hexadecimal digits that depend on every hashed setting and on nothing else.

  The hash is the same in all processes and on all machines, in whatever order the fields are
  defined. An empty JSON object, or list of objects, is left out, as if the setting did not exist.
  """
  hashed = {name: value for name, field, value in leaves(config)
            if field.metadata.get("hashed", True) and value != {}
            and (value or not field.metadata.get("objects"))}
  text = json.dumps(hashed, sort_keys=True, separators=(",", ":"))
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(stored: Any, requested: Any) -> list[str]:
  """One line for each hashed setting that differs between two configurations of one class."""
  values = {name: value for name, _, value in leaves(requested)}
  return [f"{name}: stored {value!r}, requested {values[name]!r}"
          for name, field, value in leaves(stored)
          if field.metadata.get("hashed", True) and value != values[name]]
