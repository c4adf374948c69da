"""Hand-made features of a graph and its configurations, for the boosted trees.

There are two columns for each feature of a configuration: its value, and its difference from the
mean over the listed configurations, because a ranking compares configurations of one graph.
"""

import numpy as np

from tpugraphs_rank.costs import layout_features
from tpugraphs_rank.costs import targets
from tpugraphs_rank.costs import tile_cost
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import normalize
from tpugraphs_rank.data import tile_features
from tpugraphs_rank.hlo import opcodes

# Of the columns. Version 2 added the terms of the analytic cost to tiles that count elements.
# A run stores the version that its trees were fitted on.
VERSION = 2
WITHOUT_TILE_COSTS = 1

# Columns of `node_feat` (see `tpugraphs_rank.hlo.features`).
_PARAMETER = 30
_PARAMETERS = 3  # Operands with features of their own.
_SIDES, _DIMENSIONS, _VOLUME = (
    tile_features.SIDES, tile_features.DIMENSIONS, tile_features.VOLUME)
_log = tile_features.log2_size
_BLOCK = 4_000_000  # Tensor layouts processed together; a large program has 10^8.


def features(graph: graphs.ConfiguredGraph, rows: np.ndarray,
             facts: targets.TargetFacts = targets.CPU, version: int = VERSION) -> np.ndarray:
  """(r, f) float32 features of the configurations `rows` (r,) of a graph.

  Args:
    graph: the graph.
    rows: configurations.
    facts: the hardware, for which the cost of tiles is computed, and copies and loops of layouts
      are simulated.
    version: of the columns.
  """
  if isinstance(graph, graphs.TileGraph):
    configs = _tile(graph)[rows]
    if version > WITHOUT_TILE_COSTS and facts.register_tile == (1, 1):
      configs = np.concatenate([configs, tile_cost.features(graph, facts)[rows]], axis=1)
  else:
    assert isinstance(graph, graphs.LayoutGraph)
    size = max(_BLOCK // (3 * max(len(graph.node_config_ids), 1)), 1)
    configs = np.concatenate([
        _layout(graph, rows[start:start + size]) for start in range(0, len(rows), size)])
    costs, _ = layout_features.LayoutFeatures(graph, facts)(rows)
    configs = np.concatenate([configs, costs], axis=1)
  pooled = _pooled(graph)
  width = configs.shape[1]
  # Most columns describe the pooled graph; in double precision they alone would take twice the
  # memory of the result.
  result = np.empty([len(rows), 2 * width + pooled.size], np.float32)
  result[:, :width] = configs
  result[:, width:2 * width] = configs - configs.mean(axis=0)
  result[:, 2 * width:] = pooled
  return result


def cost_columns(graph: graphs.LayoutGraph) -> np.ndarray:
  """The columns of `features` that come from simulated copies and loops, for ablations."""
  own = _layout(graph, np.zeros([1], np.int64)).shape[1]
  width = own + layout_features.NUM_TOTALS
  return np.concatenate([np.arange(own, width), np.arange(width + own, 2 * width)])


def _pooled(graph: graphs.Graph) -> np.ndarray:
  """(g,) float64: features of the graph, the same for all configurations."""
  feat = graph.node_feat.astype(np.float64)
  counts = np.bincount(graph.node_opcode, minlength=graphs.NUM_OPCODES)
  logs = normalize.signed_log(feat)
  result = feat[tile_features.root(graph)]
  operands = np.zeros([_PARAMETERS, _SIDES + 1])
  parameters = np.flatnonzero(graph.node_opcode == opcodes.opcode_id("parameter"))
  # Called computations have scalar parameters; the largest one of each number is the program's.
  for number in range(_PARAMETERS):
    same = parameters[feat[parameters, _PARAMETER] == number]
    if same.size:
      largest = same[np.argmax(feat[same, _VOLUME])]
      sizes = np.append(feat[largest, _DIMENSIONS], feat[largest, _VOLUME])
      operands[number] = _log(sizes)
  return np.concatenate([
      [np.log2(graph.num_nodes), np.log2(1 + len(graph.edge_index)),
       tile_features.item_bytes(graph)],
      np.log2(1 + counts), logs.mean(axis=0), logs.max(axis=0),
      _log(result[_DIMENSIONS]),
      [_log(result[_VOLUME])], operands.reshape(-1)])


def _tile(graph: graphs.TileGraph) -> np.ndarray:
  """(c, k) float64: `tile_features`, and the steps along reduced axes.

  The node features do not include the sizes of the reduced axes. The largest side among the
  candidates is close to them.
  """
  columns = tile_features.tile_features(graph)
  feat = graph.config_feat.astype(np.float64)
  output = feat[:, tile_features.OUTPUT:tile_features.OUTPUT + tile_features.SIDES]
  kernel = feat[:, tile_features.KERNEL:tile_features.KERNEL + tile_features.SIDES]
  result = graph.node_feat[tile_features.root(graph), _DIMENSIONS].astype(np.float64)
  whole = np.maximum(result, output.max(axis=0))
  blocks = _log(whole) - _log(output)
  reduction_blocks = _log(kernel.max(axis=0)) - _log(kernel)
  steps = blocks.sum(axis=1, keepdims=True) + reduction_blocks.sum(axis=1, keepdims=True)
  return np.concatenate([columns, reduction_blocks[:, :3], steps], axis=1)


def _layout(graph: graphs.LayoutGraph, rows: np.ndarray) -> np.ndarray:
  """(r, k) float64: the number of tensors with each kind of layout, by size and by opcode."""
  shape = (len(rows), len(graph.node_config_ids), 3, _SIDES)
  tensors = graph.layouts(rows).reshape(shape)
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


def _layout_sorts(tensors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(..., 6) -> masks (...): left to the compiler, default major-to-minor order, other order."""
  free = (tensors == -1).all(axis=-1)
  # In the default order the axes decrease: 3, 2, 1, 0.
  falling = np.ones(free.shape, bool)
  for axis in range(_SIDES - 1):
    here, after = tensors[..., axis], tensors[..., axis + 1]
    falling &= (after == -1) | (after == here - 1)
  usual = ~free & falling
  return free, usual, ~free & ~falling
