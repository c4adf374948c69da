"""Frozen dataclasses as configuration: JSON round trip, overrides, differences, a stable hash.

The machinery only; the configuration of a training run is in `tpugraphs_rank.run_config`. A
configuration is a frozen dataclass whose fields are numbers, strings, booleans, None, tuples of
those, or further configurations ("sections"). A field whose metadata says `hashed=False` (paths,
verbosity) does not change what is computed: it stays out of the hash and of differences.
"""

from collections.abc import Iterator, Mapping
import dataclasses
import difflib
import hashlib
import json
import math
import types
import typing
from typing import Any, TypeVar

from tpugraphs_rank import errors

ConfigT = TypeVar("ConfigT")


def setting(default: Any, help: str, *, choices: tuple[Any, ...] = (), minimum: Any = None,
            maximum: Any = None, above: Any = None, hashed: bool = True) -> Any:
  """A dataclass field with its help text and the values that it may take.

  Args:
    default: the default value.
    help: one sentence, with the unit; it becomes the flag's help.
    choices: the valid values (for a tuple field: of each element), when they can be listed.
    minimum: the least valid value.
    maximum: the greatest valid value.
    above: every valid value is greater than this.
    hashed: whether the field decides what is computed.
  """
  metadata = {"help": help, "choices": choices, "minimum": minimum, "maximum": maximum,
              "above": above, "hashed": hashed}
  return dataclasses.field(default=default, metadata=metadata)


def nearest(name: str, known: typing.Iterable[str]) -> str:
  """' (did you mean X?)' for the known name nearest to `name`, or nothing where none is near."""
  close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
  return f" (did you mean {close[0]!r}?)" if close else ""


def field_types(cls: type) -> dict[str, Any]:
  """The resolved type of each field of a configuration class."""
  return typing.get_type_hints(cls)


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field, Any]]:
  """Yields (dotted name, field, value) of every setting, sections depth first.

  `config` may be a class with defaults for everything, or an instance.
  """
  if isinstance(config, type):
    config = config()
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if dataclasses.is_dataclass(value):
      yield from leaves(value, f"{prefix}{field.name}.")
    else:
      yield prefix + field.name, field, value


def to_dict(config: Any) -> dict[str, Any]:
  """The configuration as plain JSON values; tuples become lists."""
  return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(cls: type[ConfigT], values: Mapping[str, Any], *, source: str = "configuration",
              base: Any = None) -> ConfigT:
  """Builds a configuration from JSON values; what they leave out comes from `base` or the defaults.

  Raises:
    ConfigError: an unknown key (the nearest known one is named), a wrong type, a value out of
      range. `source` (a file name, say) stands in the message.
  """
  return _build(cls, values, source, "", base if base is not None else cls())


def _build(cls, values, source, prefix, base):
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
          f"{source}: unknown setting {prefix + key!r}{nearest(key, known)}; "
          f"known here: {', '.join(sorted(known))}")
    if dataclasses.is_dataclass(hints[key]):
      changes[key] = _build(hints[key], value, source, f"{prefix}{key}.", getattr(base, key))
    else:
      changes[key] = _checked(value, hints[key], known[key], source, prefix + key)
  return dataclasses.replace(base, **changes)


def _checked(value, hint, field, source, name):
  """`value` as the type of its field, or ConfigError."""
  converted = _converted(value, hint)
  if converted is _WRONG:
    raise errors.ConfigError(
        f"{source}: {name} = {value!r} is not {_describe(hint)}")
  elements = converted if isinstance(converted, tuple) else (converted,)
  limits = field.metadata
  for element in elements:
    if element is None:
      continue
    if limits.get("choices") and element not in limits["choices"]:
      choices = ", ".join(map(str, limits["choices"]))
      raise errors.ConfigError(
          f"{source}: {name} = {element!r}{nearest(str(element), map(str, limits['choices']))}; "
          f"expected one of: {choices}")
    for limit, wrong, text in (("minimum", lambda v, m: v < m, "at least"),
                               ("maximum", lambda v, m: v > m, "at most"),
                               ("above", lambda v, m: v <= m, "greater than")):
      bound = limits.get(limit)
      if bound is not None and wrong(element, bound):
        raise errors.ConfigError(f"{source}: {name} = {element!r}; expected {text} {bound}")
  return converted


_WRONG = object()


def _converted(value, hint):
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
  if hint is bool:
    return value if isinstance(value, bool) else _WRONG
  if hint is int:
    return value if isinstance(value, int) and not isinstance(value, bool) else _WRONG
  if hint is float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
      return _WRONG
    return float(value)
  if hint is str:
    return value if isinstance(value, str) else _WRONG
  raise TypeError(f"a configuration field cannot be of type {hint}")


def _describe(hint) -> str:
  if typing.get_origin(hint) in (typing.Union, types.UnionType):
    return " or ".join(_describe(option) for option in typing.get_args(hint))
  if typing.get_origin(hint) is tuple:
    return f"a list of which each element is {_describe(typing.get_args(hint)[0])}"
  return {bool: "true or false", int: "a whole number", float: "a finite number",
          str: "a string", type(None): "null"}.get(hint, str(hint))


def override(config: ConfigT, changes: Mapping[str, Any], *, source: str = "flags") -> ConfigT:
  """A copy with settings changed, given by dotted name (`"model.hidden_width"`).

  Raises:
    ConfigError: as `from_dict`.
  """
  nested: dict[str, Any] = {}
  for name, value in changes.items():
    *sections, leaf = name.split(".")
    target = nested
    for section in sections:
      target = target.setdefault(section, {})
    target[leaf] = value
  return from_dict(type(config), nested, source=source, base=config)


def stable_hash(config: Any) -> str:
  """16 hex digits that depend on every hashed setting and on nothing else.

  Equal across processes, machines and the order of fields.
  """
  hashed = {name: value for name, field, value in leaves(config)
            if field.metadata.get("hashed", True)}
  text = json.dumps(hashed, sort_keys=True, separators=(",", ":"))
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(stored: Any, asked: Any) -> list[str]:
  """One line for each hashed setting in which two configurations of one class differ."""
  theirs = {name: value for name, _, value in leaves(asked)}
  return [f"{name}: stored {value!r}, asked {theirs[name]!r}"
          for name, field, value in leaves(stored)
          if field.metadata.get("hashed", True) and value != theirs[name]]
