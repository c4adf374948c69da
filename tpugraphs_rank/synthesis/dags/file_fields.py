"""Reads the fields of `dags.Dags` from the arrays of an `.npz` file."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files
from tpugraphs_rank.synthesis.dags import checks

# The keys of a file, in addition to `vocab_<name>` for each attribute.
KEYS = frozenset({"node_off", "edge_off", "src", "dst", "x", "level", "wl", "x_names", "y",
                  "y_names", "provenance"})
# Names used for files that do not name their only attribute or their only label.
DEFAULT_ATTRIBUTE = "opcode"
DEFAULT_LABEL = "runtime"
_SHOWN = 12


def parse(arrays: Mapping[str, np.ndarray], held: Sequence[str]) -> dict[str, Any]:
  """The fields of a `dags.Dags` from the arrays of its file.

  The key `wl` is absent if the file does not have it. A file with one attribute and one label need
  not name them.

  Args:
    arrays: the arrays of `KEYS` and the vocabularies.
    held: all keys of the file, for messages.

  Raises:
    DataError: a key is missing or has the wrong shape.
  """
  for key in ("node_off", "edge_off", "src", "dst", "x", "level"):
    if key not in arrays:
      shown = ", ".join([*map(escaping.shown, held[:_SHOWN]), "..."][:len(held)])
      raise errors.DataError(f"key {key} is missing; the file holds: {shown or 'none'}")
  x = arrays["x"]
  x = x[:, None] if x.ndim == 1 else x
  if x.ndim != 2:
    raise errors.DataError(f"x has shape {x.shape}; expected (N, F)")
  x_names = _names(arrays, "x_names", x.shape[1], DEFAULT_ATTRIBUTE)
  present = [name for name in x_names if f"vocab_{name}" in arrays]
  if not present:
    vocabularies, x = vocabularies_of(checks.canonical_array("x", x, np.int64, 2))
  elif len(present) < len(x_names):
    raise errors.DataError(f"key vocab_{next(n for n in x_names if n not in present)} is missing; "
                           "expected a vocabulary for every attribute, or for none")
  else:
    vocabularies = tuple(arrays[f"vocab_{name}"] for name in x_names)
  graphs = max(arrays["node_off"].size - 1, 0)
  y = arrays.get("y", np.zeros([graphs, 0]))
  y = y[:, None] if y.ndim == 1 else y
  if y.ndim != 2:
    raise errors.DataError(f"y has shape {y.shape}; expected (G, T)")
  copied = ("node_off", "edge_off", "src", "dst", "level", "wl")
  return {**{key: arrays[key] for key in copied if key in arrays},
          "x": x, "vocabularies": vocabularies, "x_names": x_names,
          "y": y, "y_names": _names(arrays, "y_names", y.shape[1], DEFAULT_LABEL),
          "provenance": _provenance(arrays)}


def vocabularies_of(x: np.ndarray) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
  """The distinct values of each column, and the columns as indices into them."""
  distinct = [np.unique(column, return_inverse=True) for column in x.T]
  return (tuple(words for words, _ in distinct),
          np.stack([indices.reshape(-1) for _, indices in distinct], axis=1))


def _names(arrays: Mapping[str, np.ndarray], key: str, count: int, default: str
           ) -> tuple[str, ...]:
  if key not in arrays:
    if count > 1:
      raise errors.DataError(f"key {key} is missing; expected the names of {count} columns")
    return (default,) * count
  names = arrays[key]
  if names.dtype.kind != "U" or names.shape != (count,):
    raise errors.DataError(
        f"{key} has shape {names.shape} and dtype {names.dtype}; expected {count} strings")
  return tuple(names.tolist())


def _provenance(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
  if "provenance" not in arrays:
    return {}
  stored = arrays["provenance"]
  try:
    value = files.parse_json(stored.item(), "provenance") if (
        stored.dtype.kind == "U" and stored.size == 1) else None
  except errors.DataError:
    value = None
  if not isinstance(value, dict):
    raise errors.DataError("provenance is not a single string with a JSON object")
  return value
