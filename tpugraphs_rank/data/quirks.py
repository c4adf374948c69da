"""What is odd about a graph, yet allowed."""


import numpy as np

from tpugraphs_rank.data import graphs

# Columns of the feature lists that have no sum and product, and so are padded with 0 or -1:
# dimensions, spatial dimensions of a convolution's input and kernel, and the layout.
_PADDED = np.r_[31:37, 95:99, 101:105, 134:140]
_LAYOUT = slice(134, 140)


def isolated_nodes(graph: graphs.Graph) -> int:
  """How many nodes neither consume another's output nor are consumed."""
  return graph.num_nodes - len(np.unique(graph.edge_index))


def found_padding(graph: graphs.Graph) -> int | None:
  """The padding of the feature lists as the features themselves show it: 0, -1, or None: unclear.

  Public files do not say which one they use. No entry of the padded lists is negative, so any -1
  is padding; and a layout is a permutation of 0, 1, ..., so a second 0 in it is.
  """
  if (graph.node_feat[:, _PADDED] < 0).any():
    return -1
  if ((graph.node_feat[:, _LAYOUT] == 0).sum(axis=1) > 1).any():
    return 0
  return None
