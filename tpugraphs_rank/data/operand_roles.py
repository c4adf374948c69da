"""Which operands of a node are its input and its kernel. NumPy alone.

A configuration requests layouts of a node's output, input and kernel, while the public format has
its operands as a set of edges. Shapes tell the two operands of a dot or a convolution apart, but
for some: a batch of matrices times one of vectors may be either.
"""

import collections
from collections.abc import Sequence

import numpy as np

from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import tile_features
from tpugraphs_rank.hlo import features
from tpugraphs_rank.hlo import opcodes

_CONVOLUTION = "convolution_dim_numbers_"
# Columns of `node_feat` that tell, and the place of each among them.
_TELLING = [column for column, name in enumerate(features.NODE_FEATURE_NAMES) if name.startswith(
    ("shape_dimensions_", "window_size_", _CONVOLUTION, "feature_group_"))]
_COLUMN = {features.NODE_FEATURE_NAMES[column]: place for place, column in enumerate(_TELLING)}
_SHAPE = [_COLUMN[f"shape_dimensions_{axis}"] for axis in range(6)]
_WINDOW = [_COLUMN[f"window_size_{axis}"] for axis in range(6)]
_KERNEL_SPATIAL = [_COLUMN[f"{_CONVOLUTION}kernel_spatial_dims_{axis}"] for axis in range(4)]
# Numbers beyond are no lengths of axes; their conversion to integers is not defined.
_LONGEST = 2.0 ** 40


def inputs_and_kernels(graph: graphs.LayoutGraph) -> np.ndarray:
  """(nc, 2) int64: the nodes that are input and kernel of each configurable node.

  Of two operands the larger is taken for the input, and of two that are equally large the first in
  the program, unless their shapes allow the other way round alone. A single operand is both, and so
  is a node without operands.
  """
  nodes = graph.node_config_ids
  user, operand = graph.edge_index.T
  volume = graph.node_feat[:, tile_features.VOLUME]
  turn = np.lexsort([operand, -volume[operand], user])
  user, operand = user[turn], operand[turn]
  first, end = np.searchsorted(user, nodes), np.searchsorted(user, nodes, side="right")
  operands = np.concatenate([operand, [0]])  # Something to index where the last has none.
  found = np.stack([operands[first], operands[np.minimum(first + 1, end - 1)]], axis=1)
  found = np.where((end > first)[:, None], found, nodes[:, None])
  for name, fits in (("dot", _fits_dot), ("convolution", _fits_convolution)):
    rows = np.flatnonzero((found[:, 0] != found[:, 1])
                          & (graph.node_opcode[nodes] == opcodes.opcode_id(name)))
    numbers = graph.node_feat[np.column_stack([nodes[rows], found[rows]])][..., _TELLING]
    # A program repeats the shapes of its products.
    different, place = np.unique(
        np.clip(numbers, -1, _LONGEST).astype(np.int64), axis=0, return_inverse=True)
    turned = np.array([not fits(node, one, other) and fits(node, other, one)
                       for node, one, other in different], bool)
    rows = rows[turned[place.reshape(-1)]]
    found[rows] = found[rows, ::-1]
  return found


def _shape(node: np.ndarray) -> list[int]:
  """Of a node's features; axes of length 0 are taken for padding."""
  return [length for length in node[_SHAPE].tolist() if length > 0]


def _fits_dot(node: np.ndarray, left: np.ndarray, right: np.ndarray) -> bool:
  """Whether a dot has batch axes, then those of the left operand alone, then those of the right.

  Those that are summed over are the rest of both.
  """
  shape, one, other = (_shape(features_of) for features_of in (node, left, right))
  for batch in range(len(shape) + 1):
    own, odd = divmod(len(shape) - batch + len(one) - len(other), 2)
    if odd or not 0 <= own <= len(shape) - batch:
      continue
    rest = _without(one, shape[:batch + own])
    if rest is not None and rest == _without(other, shape[:batch] + shape[batch + own:]):
      return True
  return False


def _without(shape: Sequence[int], axes: Sequence[int]) -> dict[int, int] | None:
  """The lengths of a shape's other axes, and how many of each; None where it lacks some of these."""
  rest = collections.Counter(shape)
  rest.subtract(axes)
  return None if min(rest.values(), default=0) < 0 else +rest


def _fits_convolution(node: np.ndarray, taken: np.ndarray, kernel: np.ndarray) -> bool:
  """Whether the kernel is the window, and has the features of the input and of the output."""
  def length(of: np.ndarray, axis: str) -> int:
    return of[_SHAPE][np.clip(node[_COLUMN[_CONVOLUTION + axis]], 0, 5)]

  window = node[_WINDOW]
  window = window[window > 0][:len(_KERNEL_SPATIAL)]
  spatial = kernel[_SHAPE][np.clip(node[_KERNEL_SPATIAL][:len(window)], 0, 5)]
  groups = max(node[_COLUMN["feature_group_count"]], 1)
  return bool(
      length(taken, "input_feature_dim") == groups * length(kernel, "kernel_input_feature_dim")
      and length(kernel, "kernel_output_feature_dim") == length(node, "output_feature_dim")
      and (spatial == window).all())
