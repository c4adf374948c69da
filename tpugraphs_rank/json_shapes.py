"""Checks JSON that a command wrote earlier, before it is used: it may be damaged, or a stranger's.

A shape describes a value:

  str, bool, int, float, list, dict   a value of this type; an int is a float, a bool is neither
  object, None                        any value; null
  NAME                                the name of a file, without a folder
  (A, B)                              one of several shapes
  [A]                                 a list of A
  {"key": A, "other?": B}             an object with at least these keys; "other" may be missing
  {str: A}, {NAME: A}                 an object with A under all of its keys
"""

import math
import pathlib
from typing import Any

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files

Shape = Any


class _Name:
  pass


NAME = _Name()
_NAMES = {str: "text", bool: "true or false", int: "a whole number", float: "a number",
          list: "a list", dict: "an object", None: "null", NAME: "a file's name"}


def read(path: files.PathLike, shape: Shape, remedy: str) -> Any:
  """Reads a JSON file and checks it.

  Args:
    path: the file.
    shape: of its value; see the module's docstring.
    remedy: what to do if it is damaged, for the message.

  Raises:
    MissingDataError: there is no such file, or it cannot be read.
    DataError: it is not JSON, or has another shape.
  """
  value = files.read_json(path)
  check(value, shape, str(path), remedy)
  return value


def check(value: Any, shape: Shape, source: str, remedy: str) -> None:
  """Checks a JSON value; see `read`.

  Raises:
    DataError: it has another shape; the message names the source, the place and the remedy.
  """
  wrong = _wrong(value, shape, "")
  if wrong:
    place, found, expected = wrong
    raise errors.DataError(
        f"{escaping.printable(source)} is damaged: {place or 'it'} {found}; expected {expected}; "
        f"{remedy}")


def _wrong(value: Any, shape: Shape, place: str) -> tuple[str, str, str] | None:
  """The first place with another shape: the place, what is there, and what was expected.

  The depth of the recursion is that of the shape, whatever the value is.
  """
  if isinstance(shape, tuple):
    outcomes = [_wrong(value, one, place) for one in shape]
    if None in outcomes:
      return None
    # The one that fails furthest inside is the one that was meant.
    return max((one for one in outcomes if one), key=lambda one: len(one[0]))
  if isinstance(shape, list):
    return _first(_wrong(inner, shape[0], f"{place}[{number}]")
                  for number, inner in enumerate(value)) if isinstance(value, list) else _other(
                      value, list, place)
  if isinstance(shape, dict):
    if not isinstance(value, dict):
      return _other(value, dict, place)
    return _first(_wrong_key(value, key, inner, place) for key, inner in shape.items())
  return None if _fits(value, shape) else _other(value, shape, place)


def _wrong_key(value: dict[str, Any], key: Any, shape: Shape, place: str
               ) -> tuple[str, str, str] | None:
  prefix = f"{place}." if place else ""
  if key in (str, NAME):
    return _first(_other(name, NAME, f"a key of {place or 'it'}") if not _fits(name, key)
                  else _wrong(inner, shape, f"{prefix}{escaping.shown(name)}")
                  for name, inner in value.items())
  name = key.removesuffix("?")
  if name in value:
    return _wrong(value[name], shape, f"{prefix}{name}")
  return None if key.endswith("?") else (place, f"lacks the key {name!r}", f"{name!r}")


def _first(outcomes: Any) -> tuple[str, str, str] | None:
  return next((one for one in outcomes if one is not None), None)


def _other(value: Any, shape: Shape, place: str) -> tuple[str, str, str]:
  return place, f"is {escaping.value(value)}", _NAMES[shape]


def _fits(value: Any, shape: Shape) -> bool:
  if shape is object:
    return True
  if shape is None:
    return value is None
  if shape is NAME:
    return isinstance(value, str) and value not in ("", ".", "..") and "\0" not in value and (
        pathlib.PurePath(value).name == value) and len(value) <= 255
  if shape in (int, float) and isinstance(value, bool):
    return False
  if shape is float:
    return isinstance(value, (int, float)) and abs(value) <= 1e300 and math.isfinite(value)
  if shape is int:
    return isinstance(value, int) and abs(value) < 2**63
  return isinstance(value, shape)
