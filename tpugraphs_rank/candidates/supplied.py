"""Candidates that the user supplies: arrays, an `.npz` file, or the runs of a raw file."""

from collections.abc import Mapping, Sequence

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files
from tpugraphs_rank.candidates import candidate_set
from tpugraphs_rank.candidates import layouts
from tpugraphs_rank.data import distinct_rows
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import headers
from tpugraphs_rank.data import npz
from tpugraphs_rank.hlo import graph
from tpugraphs_rank.hlo import tuning
from tpugraphs_rank.hlo import tuning_pb2

_KEYS = {"tile": ("config_feat",), "layout": ("node_config_ids", "node_config_feat")}
_ROWS = 1024


def has_runs(data: tuning_pb2.ModuleTuningData, kind: str) -> bool:
  """Whether a program's file has configurations of a kind, measured or not."""
  return any(_is_of(run, kind) for run in data.runs)


def _is_of(run: tuning_pb2.ConfigProfile, kind: str) -> bool:
  return (tuning.has_tile_size_config(run) if kind == "tile"
          else run.module_config.HasField("layout_config"))


def from_runs(data: tuning_pb2.ModuleTuningData, kind: str, source: str = "the module"
              ) -> candidate_set.Candidates:
  """The distinct configurations of a raw file's runs, measured or not.

  Args:
    data: the program with its runs. Failed runs (`error`) and other kinds are ignored.
    kind: `tile` or `layout`.
    source: the program's name in error messages.

  Raises:
    DataError: there are none, or one does not fit the program.
  """
  chosen = [index for index, run in enumerate(data.runs) if _is_of(run, kind) and not run.error]
  if not chosen:
    raise errors.DataError(
        f"{source} has no {kind} configurations in its file; expected runs with a "
        f"{'tile_size_config' if kind == 'tile' else 'layout_config'}; generate candidates with "
        "--candidates auto")
  if kind == "tile":
    tuning.check_bounds(data.runs, source)
    arrays = {"config_feat": tuning.tile_features([data.runs[index] for index in chosen])}
    rows = arrays["config_feat"]
  else:
    ids = np.array(data.config_index_to_node, np.uint64)
    rows = tuning.layout_features(data, chosen, source)
    _check_nodes(ids, data, source)
    _check_layouts(rows, layouts.sites(data.module, [int(node) for node in ids], source),
                   source)
    arrays = {"node_config_ids": ids.astype(np.int64), "node_config_feat": rows}
  kept, group = distinct_rows.find(rows)
  indices = np.array(chosen)[kept]
  defaults = [int(group[row]) for row, index in enumerate(chosen) if data.runs[index].is_default]

  def profile(position: int) -> candidate_set.Profile:
    run = data.runs[int(indices[position])]
    if kind == "tile":
      return candidate_set.Profile(op_config=run.op_config)
    return candidate_set.Profile(module_config=run.module_config)

  return candidate_set.Candidates(
      kind, _rows_of(arrays, kept), profile,
      {"source": "runs", "given": len(data.runs), "equal": len(chosen) - len(kept)},
      defaults[0] if defaults else None, indices)


def _rows_of(arrays: dict[str, np.ndarray], kept: np.ndarray) -> dict[str, np.ndarray]:
  return {key: array if key == "node_config_ids" else array[kept]
          for key, array in arrays.items()}


def from_npz(path: files.PathLike, data: tuning_pb2.ModuleTuningData, kind: str
             ) -> candidate_set.Candidates:
  """The distinct configurations of an `.npz` file.

  Args:
    path: a file with `config_feat` (c, 24), or with `node_config_ids` (nc,) and `node_config_feat`
      (c, nc, 18). Further keys, for example those of a whole graph, are allowed.
    data: the program.
    kind: `tile` or `layout`, the kind that the run ranks.

  Raises:
    MissingDataError: there is no such file.
    CompatibilityError: it holds configurations of the other kind.
    DataError: it is damaged, belongs to another program or breaks the format; the message names the
      entry.
    LimitError: it has too many configurations, or its arrays are too large.
  """
  keys = [key for required in _KEYS.values() for key in required]
  npz.check_rows(path, headers.read_headers(path))
  stored = npz.read_arrays(path, [*keys, "node_opcode"], types=npz.GRAPH_TYPES)
  return from_arrays(stored, data, kind, path)


def from_arrays(stored: Mapping[str, np.ndarray], data: tuning_pb2.ModuleTuningData, kind: str,
                path: files.PathLike = "the candidates") -> candidate_set.Candidates:
  """The distinct configurations in some arrays.

  Args:
    stored: the arrays of `from_npz`, by key.
    data: the program.
    kind: `tile` or `layout`, the kind that the run ranks.
    path: where the arrays come from, for error messages.

  Raises:
    CompatibilityError: they are configurations of the other kind.
    DataError: they belong to another program or break the format; the message names the entry.
  """
  held = [name for name, required in _KEYS.items() if any(key in stored for key in required)]
  if held and kind not in held:
    raise errors.CompatibilityError(
        f"{path} holds {held[0]} configurations, but the run ranks {kind}s; supply "
        f"{' and '.join(_KEYS[kind])}, or use a run that was trained on {held[0]}s")
  missing = [key for key in _KEYS[kind] if key not in stored]
  if missing:
    raise errors.DataError(
        f"{path} lacks {' and '.join(missing)} (it has: "
        f"{', '.join(sorted(stored)) or 'no known key'}); expected configurations as in a graph "
        "file")
  for key in _KEYS[kind]:
    _check_numbers(stored[key], key, path)
  _check_same_program(stored, data, path)
  if kind == "tile":
    return _tiles(stored["config_feat"], path)
  return _layouts(stored["node_config_ids"], stored["node_config_feat"], data, path)


def _fail(path: files.PathLike, key: str, problem: str) -> errors.DataError:
  return errors.DataError(f"{path}: {key} {problem}")


def _check_numbers(array: np.ndarray, key: str, path: files.PathLike) -> None:
  if array.dtype.kind not in "iuf":
    raise _fail(path, key, f"has dtype {array.dtype}; expected whole numbers")
  if array.dtype.kind == "f":
    for start in range(0, len(array) if array.ndim else 0, _ROWS):
      rows = array[start:start + _ROWS]
      wrong = ~np.isfinite(rows) | (rows != np.trunc(rows))
      if wrong.any():
        place = tuple(np.argwhere(wrong)[0].tolist())
        raise _fail(path, key, f"entry {[start + place[0], *place[1:]]} is {rows[place]}; "
                    "expected whole numbers")


def _check_same_program(stored: Mapping[str, np.ndarray], data: tuning_pb2.ModuleTuningData,
                        path: files.PathLike) -> None:
  """If the arrays are those of a whole graph, it must be the graph of this program."""
  if "node_opcode" not in stored:
    return
  _check_numbers(stored["node_opcode"], "node_opcode", path)
  ours, theirs = graph.node_opcodes(data.module), np.ravel(stored["node_opcode"])
  if not np.array_equal(ours, theirs):
    raise _fail(path, "node_opcode", f"belongs to another program ({len(theirs)} nodes; "
                f"{escaping.quoted(data.module.name)} has {len(ours)}); supply configurations of "
                "this one")


def _tiles(rows: np.ndarray, path: files.PathLike) -> candidate_set.Candidates:
  if rows.ndim != 2 or rows.shape[1] != graphs.NUM_TILE_FEATURES or not len(rows):
    raise _fail(path, "config_feat", f"has shape {rows.shape}; expected (c, "
                f"{graphs.NUM_TILE_FEATURES}) with at least one configuration")
  rows = rows.astype(np.float32)
  groups = _bounds(rows, path)
  kept, _ = distinct_rows.find(rows)

  def profile_of(position: int) -> candidate_set.Profile:
    profile = candidate_set.Profile()
    profile.op_config.tile_size_config.SetInParent()
    for name, entries in zip(tuning.TILE_BOUNDS, groups):
      entry = entries[kept[position]]
      getattr(profile.op_config.tile_size_config, name).extend(entry[entry > 0].tolist())
    return profile

  return candidate_set.Candidates(
      "tile", {"config_feat": rows[kept]}, profile_of,
      {"source": str(path), "given": len(rows), "equal": len(rows) - len(kept)}, indices=kept)


def _bounds(rows: np.ndarray, path: files.PathLike) -> list[np.ndarray]:
  """The three groups of bounds, (c, 6) int64 each; contradictory rows are refused."""
  groups = []
  for number, name in enumerate(tuning.TILE_BOUNDS):
    first = number * (tuning.BOUNDS_LENGTH + 2)
    group = rows[:, first:first + tuning.BOUNDS_LENGTH].astype(np.int64)
    wrong = (group < 0) | ((group == 0) & (np.cumsum(group[:, ::-1], axis=1)[:, ::-1] > 0))
    if wrong.any():
      row = int(np.argwhere(wrong)[0][0])
      raise _fail(path, "config_feat", f"row {row} has {name} {group[row].tolist()}; expected "
                  "sides above 0, then zeros")
    products = np.where(group > 0, group, 1).prod(axis=1) * (group > 0).any(axis=1)
    totals = np.stack([group.sum(axis=1), products], axis=1)
    stored = rows[:, first + tuning.BOUNDS_LENGTH:first + tuning.BOUNDS_LENGTH + 2]
    differ = (totals.astype(np.float32) != stored).any(axis=1)
    if differ.any():
      row = int(np.argmax(differ))
      sides = [side for side in group[row].tolist() if side]
      raise _fail(path, "config_feat", f"row {row} has {name} {sides} with sum and product "
                  f"{stored[row].tolist()}; expected {totals[row].tolist()}")
    groups.append(group)
  return groups


def _layouts(ids: np.ndarray, rows: np.ndarray, data: tuning_pb2.ModuleTuningData,
             path: files.PathLike) -> candidate_set.Candidates:
  if ids.ndim != 1:
    raise _fail(path, "node_config_ids", f"has shape {ids.shape}; expected (nc,)")
  expected = (len(ids), graphs.NUM_LAYOUT_FEATURES)
  if rows.ndim != 3 or rows.shape[1:] != expected or not len(rows):
    raise _fail(path, "node_config_feat", f"has shape {rows.shape}; expected (c, {expected[0]}, "
                f"{expected[1]}), as node_config_ids names {expected[0]} nodes, with at least one "
                "configuration")
  _check_nodes(ids, data, str(path))
  ids = ids.astype(np.int64)
  configurable = layouts.sites(data.module, ids.tolist(), str(path))
  _check_layouts(rows, configurable, str(path))
  rows = rows.astype(np.int8)
  kept, _ = distinct_rows.find(rows)
  features = rows[kept]
  defaults = np.flatnonzero((features == tuning.LAYOUT_PADDING).all(axis=(1, 2)))
  return candidate_set.Candidates(
      "layout", {"node_config_ids": ids, "node_config_feat": features},
      lambda position: layouts.profile_of(features[position], configurable),
      {"source": str(path), "given": len(rows), "equal": len(rows) - len(kept)},
      int(defaults[0]) if len(defaults) else None, kept)


def _check_nodes(ids: np.ndarray, data: tuning_pb2.ModuleTuningData, source: str) -> None:
  count = sum(len(computation.instructions) for computation in data.module.computations)
  wrong = ids[(ids < 0) | (ids >= count)]
  if len(wrong):
    raise errors.DataError(
        f"{source}: {int(wrong[0])} is configured, but {escaping.quoted(data.module.name)} has "
        f"nodes 0 to {count - 1}; supply configurations of this program")
  if len(np.unique(ids)) != len(ids):
    raise errors.DataError(f"{source}: a node is configured twice; expected distinct nodes")


def _check_layouts(rows: np.ndarray, configurable: Sequence[layouts.Site], source: str) -> None:
  """Refuses layouts that do not order a tensor's axes; names configuration, node and tensor."""
  if not configurable:
    raise errors.DataError(
        f"{source}: no node is configured, so there is nothing to rank; supply configurations of "
        "at least one node")
  ranks = np.array([[len(site.shapes[tensor]) if tensor < len(site.shapes) else 0
                     for tensor in range(tuning.TENSORS)] for site in configurable]
                   ).reshape(-1, tuning.TENSORS)
  for start in range(0, len(rows), _ROWS):
    part = rows[start:start + _ROWS].reshape(-1, len(ranks), tuning.TENSORS, tuning.DIMS_LENGTH)
    used = part != tuning.LAYOUT_PADDING
    ordered = np.sort(part, axis=-1)
    twice = ((ordered[..., 1:] == ordered[..., :-1])
             & (ordered[..., 1:] != tuning.LAYOUT_PADDING)).any(axis=-1)
    wrong = (twice | (used[..., 1:] & ~used[..., :-1]).any(axis=-1)
             | (used & ((part < 0) | (part >= ranks[None, ..., None]))).any(axis=-1))
    if wrong.any():
      row, site, tensor = (int(index) for index in np.argwhere(wrong)[0])
      rank, name = int(ranks[site, tensor]), ("output", "input", "kernel")[tensor]
      expected = (f"distinct axes from 0 to {rank - 1}, minor to major, then -1" if rank else
                  "only -1, as there is no such tensor or it has no axes")
      raise errors.DataError(
          f"{source}: configuration {start + row}, node {configurable[site].node} "
          f"({configurable[site].opcode}): layout {part[row, site, tensor].astype(int).tolist()} "
          f"of its {name}; expected {expected}")
