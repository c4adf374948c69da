"""Derived features of a tile: steps, bytes and shares, from its bounds and the kernel's shapes.

The raw bounds alone are not informative: a block of 64 x 64 is all of one kernel and a thousandth
of another. These columns relate each configuration to the value that the kernel returns.
"""

import numpy as np

from tpugraphs_rank.data import graphs
from tpugraphs_rank.hlo import opcodes

# Columns of `node_feat` (see `tpugraphs_rank.hlo.features`).
IS_ROOT, TYPES, DIMENSIONS, VOLUME = 0, slice(2, 21), slice(21, 27), 28
# Bytes of an element, in the order of the type columns; tuples, opaque values and tokens: 0.
ITEM_BYTES = np.array([0, 1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 4, 8, 2, 8, 16, 0, 0, 0], np.float64)
KERNEL, OUTPUT, INPUT = 0, 8, 16  # First columns of the three groups of `config_feat`.
SIDES = 6
_PARAMETER_NUMBER = 30
_PARAMETER = opcodes.opcode_id("parameter")
_CACHES = (32 * 1024, 1024 * 1024)  # Typical sizes of the first and second level, in bytes.
_LANES = (8, 16, 128)  # Elements of a vector register (CPU) or of a tile of registers (TPU).


def root(graph: graphs.Graph) -> int:
  """The node whose value the program returns: a root that no other node consumes or calls."""
  used = np.zeros(graph.num_nodes, bool)
  used[graph.edge_index[:, 1]] = True
  roots = np.flatnonzero(graph.node_feat[:, IS_ROOT] > 0)
  free = roots[~used[roots]]
  return int(free[-1] if free.size else roots[-1] if roots.size else graph.num_nodes - 1)


def item_bytes(graph: graphs.Graph) -> float:
  """Size in bytes of an element of the value that the program returns; 0 for tuples."""
  return float(graph.node_feat[root(graph), TYPES] @ ITEM_BYTES)


def log2_size(values: np.ndarray) -> np.ndarray:
  """log2 of sizes; 0 for missing sizes (0 or -1)."""
  return np.log2(np.maximum(values, 1.0))


def real_side(sides: np.ndarray, place: int) -> np.ndarray:
  """(c,) a positive side of each row of (c, 6), counted from the last (place 0); 1 if missing."""
  positive = sides > 0
  remaining = positive[:, ::-1].cumsum(axis=1)[:, ::-1]  # Positive sides from here to the end.
  chosen = positive & (remaining == place + 1)
  return np.where(chosen.any(axis=1), (sides * chosen).sum(axis=1), 1.0)


def minor(sides: np.ndarray) -> np.ndarray:
  """(c,) the last positive side of each row of (c, 6); 1 if there is none."""
  return real_side(sides, 0)


def lane_waste(sides: np.ndarray) -> np.ndarray:
  """(c, 3) log2 of the factor by which padding (c,) sides to multiples of 8, 16, 128 grows them."""
  sides = np.maximum(sides, 1.0)
  return np.stack([np.log2(np.ceil(sides / lanes) * lanes / sides) for lanes in _LANES], axis=1)


def _first_operand(graph: graphs.Graph) -> np.ndarray:
  """(6,) dimensions of the program's first parameter, padded with 0; all 0 if there is none.

  Parameters of called computations have the same numbers, but are scalars or no larger.
  """
  first = np.flatnonzero(
      (graph.node_opcode == _PARAMETER) & (graph.node_feat[:, _PARAMETER_NUMBER] == 0))
  if not first.size:
    return np.zeros(SIDES)
  largest = first[np.argmax(graph.node_feat[first, VOLUME])]
  return graph.node_feat[largest, DIMENSIONS].astype(np.float64)


def tile_features(graph: graphs.TileGraph) -> np.ndarray:
  """(c, k) float64: log2 of sides, volumes, steps, bytes and their ratios.

  A row depends on its configuration and on the graph, never on the other configurations.
  """
  feat = graph.config_feat.astype(np.float64)
  kernel, output, inputs = (
      feat[:, first:first + SIDES] for first in (KERNEL, OUTPUT, INPUT))
  volumes = {name: log2_size(np.where(sides > 0, sides, 1.0).prod(axis=1))
             for name, sides in (("kernel", kernel), ("output", output), ("input", inputs))}
  item = max(item_bytes(graph), 1.0)
  result = graph.node_feat[root(graph)].astype(np.float64)
  blocks = np.maximum(log2_size(result[DIMENSIONS]) - log2_size(output), 0.0)
  output_steps = blocks.sum(axis=1)
  # Node features do not contain the sizes of reduced axes, but the first operand has them.
  operand = _first_operand(graph)
  input_steps = np.maximum(log2_size(operand).sum() - volumes["input"], 0.0)
  result_minor, operand_minor = (minor(dimensions[None])[0]
                                 for dimensions in (result[DIMENSIONS], operand))
  second = minor(output) * 2.0 ** volumes["kernel"]  # Block of the second operand of a product.
  touched = item * (2.0 ** volumes["input"] + 2.0 ** volumes["output"])
  columns: list[np.ndarray] = [
      log2_size(kernel[:, :3]), log2_size(output[:, :5]), log2_size(inputs[:, :5]), blocks[:, :5],
      *(lane_waste(sides) for sides in (minor(output), real_side(output, 1), minor(inputs),
                                        real_side(inputs, 1), minor(kernel)))]
  singles: dict[str, np.ndarray] = {
      **volumes,
      "work": volumes["output"] + volumes["kernel"],
      "output_steps": output_steps,
      "input_steps": input_steps,
      "more_input_steps": input_steps - output_steps,
      "bytes": log2_size(touched),
      "bytes_with_second": log2_size(touched + item * second * (volumes["kernel"] > 0)),
      "second": log2_size(second),
      "input_traffic": input_steps + log2_size(touched),
      "output_traffic": output_steps + log2_size(touched),
      "work_per_byte": volumes["output"] + volumes["kernel"] - log2_size(touched),
      "output_minor": log2_size(minor(output)),
      "input_minor": log2_size(minor(inputs)),
      "kernel_minor": log2_size(minor(kernel)),
      "output_minor_bytes": log2_size(item * minor(output)),
      "aspect": log2_size(minor(output)) - volumes["output"] / 2,
      "longest": log2_size(output.max(axis=1)),
      "shortest": log2_size(np.where(output > 0, output, np.inf).min(axis=1).clip(1, 2.0 ** 40)),
      "reduction_share": volumes["kernel"] - volumes["output"],
      "input_per_output": volumes["input"] - volumes["output"],
      # Contiguous runs of memory per tile row: 0 if the tile spans the whole minor axis.
      "output_minor_steps": np.maximum(np.log2(max(result_minor, 1.0) / minor(output)), 0.0),
      "input_minor_steps": np.maximum(np.log2(max(operand_minor, 1.0) / minor(inputs)), 0.0),
      "whole_axes": (blocks <= 0).sum(axis=1).astype(np.float64),
  }
  for number, size in enumerate(_CACHES):
    singles[f"cache_{number}"] = log2_size(touched) - np.log2(size)
    singles[f"fits_{number}"] = (touched <= size).astype(np.float64)
  return np.concatenate([*columns, np.stack(list(singles.values()), axis=1)], axis=1)
