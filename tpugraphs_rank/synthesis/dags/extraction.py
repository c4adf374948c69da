"""Graphs of TpuGraphs collections as `Dags`: whole programs, or sub-graphs of large ones.

LayerDAG's authors made their TPU kernel graphs of the public `tile:xla` in this way: the opcodes as
attribute, the mean over all configurations of runtime / normalizer as label (arXiv 2411.02322).
"""

from collections.abc import Sequence
import logging
from typing import NamedTuple

import numpy as np

from tpugraphs_rank import config
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import registry
from tpugraphs_rank.hlo import features
from tpugraphs_rank.synthesis.dags import dags

_logger = logging.getLogger(__name__)

ATTRIBUTES = ("opcode", "element_type", "shape_bucket")
_TYPE_PREFIX = "shape_element_type_is_"
_TYPE_COLUMNS = [column for column, name in enumerate(features.NODE_FEATURE_NAMES)
                 if name.startswith(_TYPE_PREFIX)]
# What came to XLA after the format has no column of its own.
_TYPE_NAMES = np.array([features.NODE_FEATURE_NAMES[column][len(_TYPE_PREFIX):]
                        for column in _TYPE_COLUMNS] + ["other"])
_ELEMENTS_COLUMN = features.NODE_FEATURE_NAMES.index("shape_dimensions_product")
_MIN_SUBGRAPH = 3


class Extracted(NamedTuple):
  """Graphs of a collection.

  Attributes:
    dags: the graphs; their provenance says how they were made.
    programs: that were read.
    left_out: of them, those that gave no graph: too large, or too small for a sub-graph.
  """

  dags: dags.Dags
  programs: int
  left_out: int


def extract(collection: str, splits: Sequence[str] | None = None,
            attributes: Sequence[str] = ("opcode",), max_nodes: int | None = None,
            subgraphs: int = 0, seed: int = 0, data_root: files.PathLike | None = None
            ) -> Extracted:
  """Makes DAGs of the programs of a collection.

  Attributes: `opcode`, the id (`hlo.opcodes`); `element_type`, the name of the output's type;
  `shape_bucket`, floor(log2(elements of the output)), -1 for an empty one. A program may have
  several roots, such as unused parameters; all are kept.

  Args:
    collection: its name, or the path of its JSON descriptor.
    splits: whose programs; None: all splits that have runtimes.
    attributes: some of `ATTRIBUTES`.
    max_nodes: programs with more nodes are left out, or, with `subgraphs`, the most nodes of one.
    subgraphs: None of the programs but so many operand cones of each (see `operand_cone`), at
      random roots, of 3 nodes or more; 0: the programs themselves.
    seed: of the roots.
    data_root: as of `data.collections.load_collection`.

  Returns:
    The graphs. Whole programs have the label `runtime`: the mean over the configurations of
    runtime / normalizer of a kernel, of seconds of a layout program; sub-graphs have none, since
    nobody measured them, and neither have splits without runtimes.

  Raises:
    UnknownNameError: no such collection, split or attribute.
    MissingDataError: the graphs are not there.
    DataError: a graph is damaged or has a cycle, some have runtimes and others not, or no graph
      is left.
    ConfigError: sub-graphs without `max_nodes`.
  """
  described = registry.get_collection(collection)
  for name in attributes:
    if name not in ATTRIBUTES:
      raise errors.UnknownNameError(f"no attribute {name!r}{config.nearest(name, ATTRIBUTES)}; "
                                    f"there are: {', '.join(ATTRIBUTES)}")
  if subgraphs and not max_nodes:
    raise errors.ConfigError("sub-graphs need a largest number of nodes; give max_nodes")
  splits = list(splits) if splits else [
      split for split in described.splits if described.has_runtimes.get(split, True)]
  rng = np.random.default_rng(seed)
  parts: list[tuple[np.ndarray, np.ndarray]] = []
  names: list[str] = []
  labels: list[float | None] = []
  programs = left_out = 0
  for split in splits:
    for graph in collections.load_collection(described, split, data_root):
      programs += 1
      known = len(parts)
      if subgraphs:
        parts += _cones(graph, attributes, subgraphs, max_nodes, rng)
      elif not max_nodes or graph.num_nodes <= max_nodes:
        parts.append((graph.edge_index, _attributes(graph, attributes)))
        labels.append(_label(graph))
      names += [graph.name] * (len(parts) - known)
      left_out += len(parts) == known
  if not parts:
    raise errors.DataError(
        f"{described.name} {', '.join(splits)}: none of {programs} programs has at most "
        f"{max_nodes} nodes; raise the cap (--max_nodes), or take sub-graphs (--subgraphs)")
  measured = [label is not None for label in labels]
  if any(measured) and not all(measured):
    raise errors.DataError(
        f"{described.name} {', '.join(splits)}: graph {names[measured.index(False)]} has no "
        "runtimes and others have; choose splits of one kind (--splits)")
  provenance = {
      "collection": described.name, "splits": splits, "target": described.target,
      "graphs": f"operand cones, {subgraphs} a program" if subgraphs else "whole programs",
      "max_nodes": max_nodes, "seed": seed if subgraphs else None, "programs": programs,
      "programs_left_out": left_out,
      "label": _LABELS[described.kind] if any(measured) else None}
  x_names, vocabularies, parts = _in_words(attributes, parts)
  made = dags.canonical(parts, x_names, vocabularies,
                        np.array(labels, np.float64) if any(measured) else None,
                        provenance=provenance, names=names)
  _logger.info("%s %s: %d graphs of %d programs, %d left out", described.name, ", ".join(splits),
               len(made), programs, left_out)
  return Extracted(made, programs, left_out)


def operand_cone(edge_index: np.ndarray, num_nodes: int, root: int, max_nodes: int
                 ) -> tuple[np.ndarray, np.ndarray]:
  """What computes the output of a node, as far as it fits: connected, with `root` as its one root.

  Nodes are taken breadth first. A node comes with all of its operands, or, where these no longer
  fit, with none, as a parameter: so that its number of operands is one that occurs, or 0.

  Args:
    edge_index: (m, 2) [consumer, producer].
    num_nodes: n.
    root: the node.
    max_nodes: at most so many nodes.

  Returns:
    The nodes, (k,), the root first; and the edges between them, (j, 2) places in the first.
  """
  operands = _operands_of(edge_index, num_nodes)
  return _cone(operands, root, max_nodes)


def _operands_of(edge_index: np.ndarray, num_nodes: int) -> list[list[int]]:
  operands: list[list[int]] = [[] for _ in range(num_nodes)]
  for user, operand in np.unique(edge_index, axis=0).tolist():
    operands[user].append(operand)
  return operands


def _cone(operands: Sequence[Sequence[int]], root: int, max_nodes: int
          ) -> tuple[np.ndarray, np.ndarray]:
  place: dict[int, int] = {root: 0}
  order, edges = [root], []
  for node in order:  # Grows on the way.
    new = [operand for operand in operands[node] if operand not in place]
    if len(order) + len(new) > max_nodes:
      continue
    for operand in new:
      place[operand] = len(order)
      order.append(operand)
    edges += [(place[node], place[operand]) for operand in operands[node]]
  return np.array(order), np.array(edges, np.int64).reshape(-1, 2)


def _cones(graph: graphs.Graph, attributes: Sequence[str], count: int, max_nodes: int,
           rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
  operands = _operands_of(graph.edge_index, graph.num_nodes)
  x = _attributes(graph, attributes)
  found: list[tuple[np.ndarray, np.ndarray]] = []
  for root in rng.permutation([node for node, of in enumerate(operands) if of]).tolist():
    if len(found) == count:
      break
    nodes, edges = _cone(operands, root, max_nodes)
    if len(nodes) >= _MIN_SUBGRAPH:
      found.append((edges, x[nodes]))
  return found


def _attributes(graph: graphs.Graph, attributes: Sequence[str]) -> np.ndarray:
  """(n, F) int64; element types as places in `_TYPE_NAMES`."""
  columns = []
  for name in attributes:
    if name == "opcode":
      columns.append(graph.node_opcode.astype(np.int64))
    elif name == "element_type":
      given = graph.node_feat[:, _TYPE_COLUMNS]
      columns.append(np.where(given.any(axis=1), given.argmax(axis=1), len(_TYPE_COLUMNS)))
    else:
      # frexp: a mantissa from 0.5 to 1, so that powers of two are exact, and 0 gets exponent 0.
      columns.append(np.frexp(graph.node_feat[:, _ELEMENTS_COLUMN])[1].astype(np.int64) - 1)
  return np.stack(columns, axis=1)


_LABELS = {"tile": "mean over configurations of runtime / normalizer",
           "layout": "mean over configurations of seconds"}


def _label(graph: graphs.Graph) -> float | None:
  if not graph.has_runtimes:
    return None
  mean = float(graph.relative_runtime.mean())
  return mean if graph.kind == "tile" else mean * 1e-9


def _in_words(attributes: Sequence[str], parts: Sequence[tuple[np.ndarray, np.ndarray]]
              ) -> tuple[tuple[str, ...], list[np.ndarray],
                         list[tuple[np.ndarray, np.ndarray]]]:
  """Vocabularies of what occurs, and the attributes as places in them."""
  rows = np.concatenate([x for _, x in parts])
  vocabularies, places = [], []
  for name, column in zip(attributes, rows.T):
    words, place = np.unique(column, return_inverse=True)
    vocabularies.append(_TYPE_NAMES[words] if name == "element_type" else words)
    places.append(place.reshape(-1))
  moved = np.stack(places, axis=1)
  ends = np.cumsum([len(x) for _, x in parts])[:-1]
  return tuple(attributes), vocabularies, [
      (edges, x) for (edges, _), x in zip(parts, np.split(moved, ends))]
