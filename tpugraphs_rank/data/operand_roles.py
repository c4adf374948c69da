"""Which operands of a node are its input and its kernel. NumPy alone.

A configuration requests layouts of a node's output, input and kernel, while the public format has
its operands as a set of edges. Shapes tell the two operands of a dot or a convolution apart.
"""

import collections
from typing import Dict, List, Optional, Sequence

import numpy as np

from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import tile_features
from tpugraphs_rank.hlo import features
from tpugraphs_rank.hlo import opcodes

_DOT, _CONVOLUTION = opcodes.opcode_id("dot"), opcodes.opcode_id("convolution")
_column = features.NODE_FEATURE_NAMES.index
_WINDOW = slice(_column("window_size_0"), _column("window_size_5") + 1)
_OUTPUT_FEATURE = _column("convolution_dim_numbers_output_feature_dim")
_KERNEL_OUTPUT_FEATURE = _column("convolution_dim_numbers_kernel_output_feature_dim")
_KERNEL_SPATIAL = slice(_column("convolution_dim_numbers_kernel_spatial_dims_0"),
                        _column("convolution_dim_numbers_kernel_spatial_dims_3") + 1)


def inputs_and_kernels(graph: graphs.LayoutGraph) -> np.ndarray:
  """(nc, 2) int64: the nodes that are input and kernel of each configurable node.

  Of two operands the larger is taken for the input, unless shapes allow the other way round alone.
  A single operand is both, and so is a node without operands.
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
  fits = {_DOT: _fits_dot, _CONVOLUTION: _fits_convolution}
  for row in np.flatnonzero(volume[found[:, 0]] != volume[found[:, 1]]):
    fit = fits.get(int(graph.node_opcode[nodes[row]]))
    if fit is not None:
      node, one, other = graph.node_feat[[nodes[row], *found[row]]]
      if not fit(node, one, other) and fit(node, other, one):
        found[row] = found[row, ::-1]
  return found


def _shape(node: np.ndarray) -> List[int]:
  """Of a node's features; axes of length 0 are taken for padding."""
  return [int(length) for length in node[tile_features.DIMENSIONS] if length > 0]


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


def _without(shape: Sequence[int], axes: Sequence[int]) -> Optional[Dict[int, int]]:
  """The lengths of a shape's other axes; None where it lacks some of these."""
  rest = collections.Counter(shape)
  rest.subtract(axes)
  return None if min(rest.values(), default=0) < 0 else +rest


def _fits_convolution(node: np.ndarray, _: np.ndarray, kernel: np.ndarray) -> bool:
  """Whether the kernel has the window's size, and as many output features as the node."""
  length = lambda of, axes: of[tile_features.DIMENSIONS][np.clip(axes, 0, 5).astype(int)]
  window = node[_WINDOW]
  window = window[window > 0][:4]
  return bool(
      length(node, node[_OUTPUT_FEATURE]) == length(kernel, node[_KERNEL_OUTPUT_FEATURE])
      and (length(kernel, node[_KERNEL_SPATIAL][:len(window)]) == window).all())
