"""Checks JSON values from a run directory against the types of a dataclass."""

from collections.abc import Mapping
import dataclasses
import math
import types
import typing
from typing import Any

from tpugraphs_rank import errors
from tpugraphs_rank import escaping


def check(kind: type, stored: Mapping[str, Any], source: str, required: tuple[str, ...] = ()
          ) -> None:
  """Checks that a JSON object fits the fields of a dataclass.

  Whole numbers are counts, so none is negative.

  Args:
    kind: the dataclass.
    stored: the object.
    source: the file, for the message.
    required: names that must be there.

  Raises:
    RunDirectoryError: a name is unknown or missing, or a value is of another type.
  """
  hints = typing.get_type_hints(kind)
  names = {field.name for field in dataclasses.fields(kind)}
  for name in required:
    if name not in stored:
      raise errors.RunDirectoryError(
          f"{source} lacks the key {name!r}; the run directory is damaged")
  for name, value in stored.items():
    if name not in names:
      raise errors.RunDirectoryError(
          f"{source} has the unknown key {escaping.quoted(name)}; it is damaged, or a later "
          "version wrote it")
    if not _fits(value, hints[name]):
      raise errors.RunDirectoryError(
          f"{source}: {name} is {escaping.value(value)}; expected "
          f"{getattr(hints[name], '__name__', hints[name])}: the run directory is damaged")


def _fits(value: Any, hint: Any) -> bool:
  """Whether a JSON value is of a type: a union, list, dict, number, string, None or Any."""
  origin, inner = typing.get_origin(hint), typing.get_args(hint)
  if hint is Any:
    return True
  if origin in (typing.Union, types.UnionType):
    return any(_fits(value, option) for option in inner)
  if origin is list:
    return isinstance(value, list) and all(_fits(entry, inner[0]) for entry in value)
  if origin is dict:
    return isinstance(value, dict) and all(_fits(entry, inner[1]) for entry in value.values())
  if hint is float:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
  if hint is int:
    return type(value) is int and 0 <= value < 2**63
  if hint in (None, type(None)):
    return value is None
  return isinstance(value, hint)
