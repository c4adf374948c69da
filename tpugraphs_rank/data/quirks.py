"""Irregularities of graphs that are allowed."""

import numpy as np

from tpugraphs_rank.data import graphs

# Columns of the feature lists without sum and product, which are padded with 0 or -1: reduced
# dimensions, spatial dimensions of a convolution's input and kernel, and the layout.
_PADDED = np.r_[31:37, 95:99, 101:105, 134:140]
_LAYOUT = slice(134, 140)


def isolated_nodes(graph: graphs.Graph) -> int:
  """The number of nodes without operands and users."""
  return graph.num_nodes - len(np.unique(graph.edge_index))


def observed_padding(graph: graphs.Graph) -> int | None:
  """The padding of the feature lists, derived from the features: 0, -1, or None if unclear.

  Public files do not declare their padding. No entry of the padded lists is negative, so any -1 is
  padding. A layout is a permutation of 0, 1, ..., so a second 0 in it is padding.
  """
  if (graph.node_feat[:, _PADDED] < 0).any():
    return -1
  if ((graph.node_feat[:, _LAYOUT] == 0).sum(axis=1) > 1).any():
    return 0
  return None
