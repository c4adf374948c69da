"""What two runs of a command have in common: all that they wrote, except for times and folders."""

from collections.abc import Collection
import hashlib
import json
import pathlib
from typing import Any
import zipfile

import numpy as np

# Values that depend on the time, and those that name folders.
_VARYING = frozenset({"seconds", "minutes", "time", "command", "created", "commit"})


def contents(folder: pathlib.Path, ignored: Collection[str] = (),
             varying: Collection[str] = ()) -> dict[str, Any]:
  """The files of a folder by name, without what depends on time and place.

  Args:
    folder: the folder.
    ignored: names of files that are left out.
    varying: further keys of JSON and CSV files whose values depend on the time.
  """
  keys = _VARYING | set(varying)
  return {str(path.relative_to(folder)): _content(path, keys) for path in sorted(folder.rglob("*"))
          if path.is_file() and path.name not in ignored}


def _content(path: pathlib.Path, varying: Collection[str]) -> Any:
  if path.suffix == ".json":
    return _timeless(json.loads(path.read_text(encoding="utf-8")), varying)
  if path.suffix == ".csv":
    lines = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()]
    places = [place for place, name in enumerate(lines[0]) if name in varying] if lines else []
    return [[word for place, word in enumerate(line) if place not in places] for line in lines]
  if path.suffix == ".npz" and zipfile.is_zipfile(path):
    return _archive(path, varying)
  return path.read_bytes()


def _archive(path: pathlib.Path, varying: Collection[str]) -> dict[str, Any]:
  found: dict[str, Any] = {}
  with np.load(path, allow_pickle=False) as stored:
    for key in stored.files:
      array = stored[key]
      if array.dtype.kind == "U" and array.size == 1 and str(array).startswith("{"):
        found[key] = _timeless(json.loads(str(array)), varying)
      else:
        found[key] = (array.shape, array.dtype.str, hashlib.sha256(array.tobytes()).digest())
  return found


def _timeless(value: Any, varying: Collection[str]) -> Any:
  if isinstance(value, dict):
    return {key: _timeless(inner, varying) for key, inner in value.items() if key not in varying}
  if isinstance(value, list):
    return [_timeless(inner, varying) for inner in value]
  return value


def differing(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
  """The names of the files that differ, or that only one of them has."""
  return sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
