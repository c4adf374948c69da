"""Determines which operands of a node are its input and its kernel. Needs NumPy only.

A configuration requests layouts of a node's output, input and kernel, but the public format stores
a node's operands as an unordered set of edges. Shapes usually distinguish the two operands of a dot
or a convolution. A batch of matrices times a batch of vectors stays ambiguous.
"""

import collections
from collections.abc import Sequence

import numpy as np

from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import tile_features
from tpugraphs_rank.hlo import features
from tpugraphs_rank.hlo import opcodes

_CONVOLUTION = "convolution_dim_numbers_"
# Columns of `node_feat` that matter here, and the position of each among them.
_RELEVANT = [column for column, name in enumerate(features.NODE_FEATURE_NAMES) if name.startswith(
    ("shape_dimensions_", "window_size_", _CONVOLUTION, "feature_group_"))]
_COLUMN = {features.NODE_FEATURE_NAMES[column]: place for place, column in enumerate(_RELEVANT)}
_SHAPE = [_COLUMN[f"shape_dimensions_{axis}"] for axis in range(6)]
_WINDOW = [_COLUMN[f"window_size_{axis}"] for axis in range(6)]
_KERNEL_SPATIAL = [_COLUMN[f"{_CONVOLUTION}kernel_spatial_dims_{axis}"] for axis in range(4)]
# Larger numbers are not lengths of axes, and their conversion to integers is undefined.
_LONGEST = 2.0 ** 40


def inputs_and_kernels(graph: graphs.LayoutGraph) -> np.ndarray:
  """(nc, 2) int64: the input node and the kernel node of each configurable node.

  The larger of two operands is the input, or the first in the program if both are equally large,
  unless their shapes allow only the opposite. A single operand is both input and kernel. A node
  without operands is its own input and kernel.
  """
  nodes = graph.node_config_ids
  user, operand = graph.edge_index.T
  volume = graph.node_feat[:, tile_features.VOLUME]
  turn = np.lexsort([operand, -volume[operand], user])
  user, operand = user[turn], operand[turn]
  first, end = np.searchsorted(user, nodes), np.searchsorted(user, nodes, side="right")
  operands = np.concatenate([operand, [0]])  # Keeps `first` a valid index for the last node.
  roles = np.stack([operands[first], operands[np.minimum(first + 1, end - 1)]], axis=1)
  roles = np.where((end > first)[:, None], roles, nodes[:, None])
  for name, fits in (("dot", _fits_dot), ("convolution", _fits_convolution)):
    rows = np.flatnonzero((roles[:, 0] != roles[:, 1])
                          & (graph.node_opcode[nodes] == opcodes.opcode_id(name)))
    numbers = graph.node_feat[np.column_stack([nodes[rows], roles[rows]])][..., _RELEVANT]
    # Check each combination of shapes once: programs repeat them.
    distinct, place = np.unique(
        np.clip(numbers, -1, _LONGEST).astype(np.int64), axis=0, return_inverse=True)
    swapped = np.array([not fits(node, one, other) and fits(node, other, one)
                        for node, one, other in distinct], bool)
    rows = rows[swapped[place.reshape(-1)]]
    roles[rows] = roles[rows, ::-1]
  return roles


def _shape(node: np.ndarray) -> list[int]:
  """The shape in a node's features; axes of length 0 count as padding."""
  return [length for length in node[_SHAPE].tolist() if length > 0]


def _fits_dot(node: np.ndarray, left: np.ndarray, right: np.ndarray) -> bool:
  """Whether these can be the operands of a dot.

  The axes of a dot are batch axes, then axes of the left operand only, then axes of the right
  operand only. The remaining axes of both operands are summed over, and must be equal.
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
  """The multiset of a shape's axes without `axes`; None if the shape lacks some of them."""
  rest = collections.Counter(shape)
  rest.subtract(axes)
  return None if min(rest.values(), default=0) < 0 else +rest


def _fits_convolution(node: np.ndarray, taken: np.ndarray, kernel: np.ndarray) -> bool:
  """Whether the kernel has the size of the window and the features of the input and output."""
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
