"""Hand-made features of a graph and its configurations, for the boosted trees.

Every configuration column stands twice: as it is, and relative to the mean over the listed
configurations, since rankings compare configurations of one graph with each other.
"""

from typing import Dict, List, Tuple

import numpy as np

from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import normalize
from tpugraphs_rank.hlo import opcodes

# Columns of `node_feat` (see `tpugraphs_rank.hlo.features`).
_IS_ROOT, _TYPES, _DIMENSIONS, _VOLUME, _PARAMETER = 0, slice(2, 21), slice(21, 27), 28, 30
# Bytes of an element, in the order of the type columns; tuples, opaque values and tokens: 0.
_BYTES = np.array([0, 1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 4, 8, 2, 8, 16, 0, 0, 0], np.float64)
_PARAMETERS = 3  # Operands described one by one.
_KERNEL, _OUTPUT, _INPUT = 0, 8, 16  # First columns of the three groups of `config_feat`.
_SIDES = 6
_CACHES = (32 * 1024, 1024 * 1024)  # First and second level, bytes.
_BLOCK = 4_000_000  # Tensor layouts looked at together: a large program has 10^8.


def features(graph: graphs.Graph, rows: np.ndarray) -> np.ndarray:
  """(r, f) float32 features of the configurations `rows` (r,) of a graph."""
  if isinstance(graph, graphs.TileGraph):
    configs = _tile(graph)[rows]
  else:
    size = max(_BLOCK // (3 * max(len(graph.node_config_ids), 1)), 1)
    configs = np.concatenate([
        _layout(graph, rows[start:start + size]) for start in range(0, len(rows), size)])
  pooled = _pooled(graph)
  return np.concatenate([
      configs, configs - configs.mean(axis=0), np.broadcast_to(pooled, (len(rows), pooled.size)),
  ], axis=1).astype(np.float32)


def _log(values: np.ndarray) -> np.ndarray:
  return np.log2(np.maximum(values, 1.0))


def root(graph: graphs.Graph) -> int:
  """The node whose value the program returns: a root that no other node consumes or calls."""
  used = np.zeros(graph.num_nodes, bool)
  used[graph.edge_index[:, 1]] = True
  roots = np.flatnonzero(graph.node_feat[:, _IS_ROOT] > 0)
  free = roots[~used[roots]]
  return int(free[-1] if free.size else roots[-1] if roots.size else graph.num_nodes - 1)


def _pooled(graph: graphs.Graph) -> np.ndarray:
  """(g,) float64: what the graph is, whatever the configuration."""
  feat = graph.node_feat.astype(np.float64)
  counts = np.bincount(graph.node_opcode, minlength=graphs.NUM_OPCODES)
  logs = normalize.signed_log(feat)
  result = feat[root(graph)]
  operands = np.zeros([_PARAMETERS, _SIDES + 1])
  parameters = np.flatnonzero(graph.node_opcode == opcodes.opcode_id("parameter"))
  # Parameters of called computations are scalars: the largest of each number is the program's.
  for number in range(_PARAMETERS):
    same = parameters[feat[parameters, _PARAMETER] == number]
    if same.size:
      largest = same[np.argmax(feat[same, _VOLUME])]
      operands[number] = _log(feat[largest, _DIMENSIONS.start:_VOLUME + 1][[0, 1, 2, 3, 4, 5, 7]])
  return np.concatenate([
      [np.log2(graph.num_nodes), np.log2(1 + len(graph.edge_index)), _item_bytes(graph)],
      np.log2(1 + counts), logs.mean(axis=0), logs.max(axis=0),
      _log(result[_DIMENSIONS]), [_log(result[_VOLUME])], operands.reshape(-1)])


def _item_bytes(graph: graphs.Graph) -> float:
  return float(graph.node_feat[root(graph), _TYPES] @ _BYTES)


def _minor(sides: np.ndarray) -> np.ndarray:
  """(c,) the last real side of each row of (c, 6); 1 where there is none."""
  count = (sides > 0).sum(axis=1)
  return np.where(count > 0, sides[np.arange(len(sides)), np.maximum(count - 1, 0)], 1.0)


def _tile(graph: graphs.TileGraph) -> np.ndarray:
  """(c, k) float64: sides, volumes, steps, bytes, and how they relate."""
  feat = graph.config_feat.astype(np.float64)
  kernel, output, inputs = (
      feat[:, first:first + _SIDES] for first in (_KERNEL, _OUTPUT, _INPUT))
  volumes = {name: _log(np.where(sides > 0, sides, 1.0).prod(axis=1))
             for name, sides in (("kernel", kernel), ("output", output), ("input", inputs))}
  item = max(_item_bytes(graph), 1.0)
  result = graph.node_feat[root(graph)].astype(np.float64)
  # Sizes of the reduced axes stand nowhere in the node features: the largest side comes close.
  reduced = np.maximum(kernel.max(axis=0), 1.0)
  blocks = _log(np.maximum(result[_DIMENSIONS], output.max(axis=0))) - _log(output)
  reduction_blocks = _log(reduced) - _log(kernel)
  steps = blocks.sum(axis=1) + reduction_blocks.sum(axis=1)
  second = _minor(output) * 2.0 ** volumes["kernel"]  # Block of the second operand of a product.
  bytes_touched = item * (2.0 ** volumes["input"] + 2.0 ** volumes["output"])
  columns: List[np.ndarray] = [
      _log(kernel[:, :3]), _log(output[:, :5]), _log(inputs[:, :5]), blocks[:, :5],
      reduction_blocks[:, :3]]
  singles: Dict[str, np.ndarray] = {
      **volumes,
      "work": volumes["output"] + volumes["kernel"],
      "steps": steps,
      "output_steps": blocks.sum(axis=1),
      "bytes": _log(bytes_touched),
      "bytes_with_second": _log(bytes_touched + item * second * (volumes["kernel"] > 0)),
      "second": _log(second),
      "total_traffic": steps + _log(bytes_touched),
      "work_per_byte": volumes["output"] + volumes["kernel"] - _log(bytes_touched),
      "output_minor": _log(_minor(output)),
      "input_minor": _log(_minor(inputs)),
      "kernel_minor": _log(_minor(kernel)),
      "output_minor_bytes": _log(item * _minor(output)),
      "aspect": _log(_minor(output)) - volumes["output"] / 2,
      "longest": _log(output.max(axis=1)),
      "shortest": _log(np.where(output > 0, output, np.inf).min(axis=1).clip(1, 2.0 ** 40)),
      "reduction_share": volumes["kernel"] - volumes["output"],
      "input_per_output": volumes["input"] - volumes["output"],
      "whole_axes": (blocks <= 0).sum(axis=1).astype(np.float64),
  }
  for number, size in enumerate(_CACHES):
    singles[f"cache_{number}"] = _log(bytes_touched) - np.log2(size)
    singles[f"fits_{number}"] = (bytes_touched <= size).astype(np.float64)
  return np.concatenate([*columns, np.stack(list(singles.values()), axis=1)], axis=1)


def _layout(graph: graphs.LayoutGraph, rows: np.ndarray) -> np.ndarray:
  """(r, k) float64: how many tensors have which sort of layout, by opcode and by size."""
  shape = (len(rows), len(graph.node_config_ids), 3, _SIDES)
  tensors = graph.node_config_feat[rows].astype(np.int8).reshape(shape)
  sorts = np.stack(_layout_sorts(tensors), axis=-1).astype(np.float32)  # (r, nc, 3, 3)
  sizes = _log(graph.node_feat[graph.node_config_ids, _VOLUME]).astype(np.float32)
  kinds = graph.node_opcode[graph.node_config_ids]
  minor = np.stack([(tensors[..., 0] == axis).sum(axis=1) for axis in range(4)], axis=-1)
  return np.concatenate([
      sorts.sum(axis=1).reshape(len(rows), -1),
      np.einsum("cnts,n->cts", sorts, sizes).reshape(len(rows), -1),
      *(sorts[:, kinds == opcodes.opcode_id(name)].sum(axis=(1, 2))
        for name in ("convolution", "dot", "reshape")),
      minor.reshape(len(rows), -1)], axis=1).astype(np.float64)


def _layout_sorts(tensors: np.ndarray) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(..., 6) -> masks (...): left to the compiler, major to minor in order, any other order."""
  free = (tensors == -1).all(axis=-1)
  # In the usual order the axes fall from the last to the first: 3, 2, 1, 0.
  falling = np.ones(free.shape, bool)
  for axis in range(_SIDES - 1):
    here, after = tensors[..., axis], tensors[..., axis + 1]
    falling &= (after == -1) | (after == here - 1)
  usual = ~free & falling
  return free, usual, ~free & ~falling
