"""Copies of graphs with other names, node order or configurations."""

from collections.abc import Sequence

import numpy as np

from tpugraphs_rank.data import graphs


def relabelled(graph: graphs.Graph, order: Sequence[int]) -> graphs.Graph:
  """The same graph with node i renamed to order[i], and its edges in another order."""
  order = np.array(order)
  arrays = graph.arrays()
  arrays.pop("node_splits", None)
  for key in ("node_feat", "node_opcode"):
    moved = np.empty_like(arrays[key])
    moved[order] = arrays[key]
    arrays[key] = moved
  arrays["edge_index"] = order[graph.edge_index][::-1]
  if "node_config_ids" in arrays:
    arrays["node_config_ids"] = order[arrays["node_config_ids"]]
  return graphs.graph_from_arrays(graph.name, arrays)


def with_configs(graph: graphs.Graph, rows: Sequence[int]) -> graphs.Graph:
  """The same graph with the configurations `rows`, in that order, repeats included."""
  arrays = graph.arrays()
  for key in ("config_feat", "node_config_feat", "config_runtime", "config_runtime_normalizers"):
    if key in arrays:
      arrays[key] = arrays[key][list(rows)]
  return graphs.graph_from_arrays(graph.name, arrays)
