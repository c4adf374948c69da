"""Converts TpuGraphs collections to `Dags`: whole programs, or sub-graphs of large ones.

LayerDAG's authors derived their TPU kernel graphs from the public `tile:xla` in this way: opcodes
as the attribute and the mean of runtime / normalizer over all configurations as the label
(arXiv 2411.02322).
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
from tpugraphs_rank.synthesis.dags import node_types

_logger = logging.getLogger(__name__)

ATTRIBUTES = ("opcode", "element_type", "shape_bucket")
_ELEMENTS_COLUMN = features.NODE_FEATURE_NAMES.index("shape_dimensions_product")
_MIN_SUBGRAPH = 3


class Extracted(NamedTuple):
  """Graphs extracted from a collection.

  Attributes:
    dags: the graphs; their provenance records how they were extracted.
    programs: number of programs read.
    left_out: number of those that gave no graph: too large, or too small for a sub-graph.
  """

  dags: dags.Dags
  programs: int
  left_out: int


def extract(collection: str, splits: Sequence[str] | None = None,
            attributes: Sequence[str] = ("opcode",), max_nodes: int | None = None,
            subgraphs: int = 0, seed: int = 0, data_root: files.PathLike | None = None,
            partial: bool = False) -> Extracted:
  """Extracts DAGs from the programs of a collection.

  Attributes: `opcode` is the id (`hlo.opcodes`); `element_type` is the name of the output's type;
  `shape_bucket` is floor(log2(elements of the output)), -1 for an empty output. A program may have
  several roots, such as unused parameters; all are kept.

  Args:
    collection: its name, or the path of its JSON descriptor.
    splits: splits to read; None: all splits that have runtimes.
    attributes: some of `ATTRIBUTES`.
    max_nodes: skip programs with more nodes; with `subgraphs`, the size limit of a sub-graph.
    subgraphs: number of operand cones to take from each program (see `operand_cone`) in place of
      the program, at random roots, with 3 nodes or more; 0: the programs themselves.
    seed: seed for the choice of the roots.
    data_root: see `data.collections.load_collection`.
    partial: see `data.collections.load_collection`.

  Returns:
    The graphs. Whole programs have the label `runtime`: the mean over the configurations of
    runtime / normalizer for kernels, of seconds for layout programs. Sub-graphs have no label
    because nobody measured them; neither have splits without runtimes.

  Raises:
    UnknownNameError: the collection, a split or an attribute does not exist.
    MissingDataError: the data are not downloaded.
    DataError: a graph is damaged or has a cycle, only some graphs have runtimes, or no graph
      remains.
    ConfigError: `subgraphs` without `max_nodes`.
  """
  described = registry.get_collection(collection)
  for name in attributes:
    if name not in ATTRIBUTES:
      raise errors.UnknownNameError(f"no attribute {name!r}{config.nearest(name, ATTRIBUTES)}; "
                                    f"there are: {', '.join(ATTRIBUTES)}")
  if subgraphs and not max_nodes:
    raise errors.ConfigError("sub-graphs need a largest number of nodes; set max_nodes")
  splits = list(splits) if splits else [
      split for split in described.splits if described.has_runtimes.get(split, True)]
  rng = np.random.default_rng(seed)
  extracted: list[tuple[np.ndarray, np.ndarray]] = []
  names: list[str] = []
  labels: list[float | None] = []
  programs = left_out = 0
  for split in splits:
    for graph in collections.load_collection(described, split, data_root, partial=partial):
      programs += 1
      before = len(extracted)
      if subgraphs and max_nodes:
        extracted += _cones(graph, attributes, subgraphs, max_nodes, rng)
      elif not max_nodes or graph.num_nodes <= max_nodes:
        extracted.append((graph.edge_index, _attributes(graph, attributes)))
        labels.append(_label(graph))
      names += [graph.name] * (len(extracted) - before)
      left_out += len(extracted) == before
  if not extracted:
    raise errors.DataError(
        f"{described.name} {', '.join(splits)}: none of {programs} programs has at most "
        f"{max_nodes} nodes; raise the limit (--max_nodes), or extract sub-graphs (--subgraphs)")
  measured = [label is not None for label in labels]
  if any(measured) and not all(measured):
    raise errors.DataError(
        f"{described.name} {', '.join(splits)}: graph {names[measured.index(False)]} has no "
        "runtimes and others have; choose splits that all have or all lack runtimes (--splits)")
  provenance = {
      "collection": described.name, "splits": splits, "target": described.target,
      "graphs": f"{subgraphs} operand cones per program" if subgraphs else "whole programs",
      "max_nodes": max_nodes, "seed": seed if subgraphs else None, "programs": programs,
      "programs_left_out": left_out,
      "label": _LABELS[described.kind] if any(measured) else None}
  x_names, vocabularies, extracted = _in_words(attributes, extracted)
  result = dags.canonical(extracted, x_names, vocabularies,
                          np.array(labels, np.float64) if any(measured) else None,
                          provenance=provenance, names=names)
  _logger.info("%s %s: %d graphs of %d programs, %d left out", described.name, ", ".join(splits),
               len(result), programs, left_out)
  return Extracted(result, programs, left_out)


def operand_cone(edge_index: np.ndarray, num_nodes: int, root: int, max_nodes: int
                 ) -> tuple[np.ndarray, np.ndarray]:
  """The sub-graph that computes a node's output, within a size limit.

  The sub-graph is connected, and `root` is its only root. Nodes are taken breadth first. A node
  comes with all of its operands or, when these no longer fit, with none, like a parameter. Its
  number of operands is therefore either the original one or 0.

  Args:
    edge_index: (m, 2) [consumer, producer].
    num_nodes: n, number of nodes of the whole graph.
    root: the node whose output is computed.
    max_nodes: the largest number of nodes.

  Returns:
    The nodes, (k,), the root first; and the edges between them, (j, 2) indices into these nodes.
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
  index_of: dict[int, int] = {root: 0}
  order, edges = [root], []
  for node in order:  # `order` grows in the loop.
    new = [operand for operand in operands[node] if operand not in index_of]
    if len(order) + len(new) > max_nodes:
      continue
    for operand in new:
      index_of[operand] = len(order)
      order.append(operand)
    edges += [(index_of[node], index_of[operand]) for operand in operands[node]]
  return np.array(order), np.array(edges, np.int64).reshape(-1, 2)


def _cones(graph: graphs.Graph, attributes: Sequence[str], count: int, max_nodes: int,
           rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
  operands = _operands_of(graph.edge_index, graph.num_nodes)
  x = _attributes(graph, attributes)
  cones: list[tuple[np.ndarray, np.ndarray]] = []
  for root in rng.permutation([node for node, of in enumerate(operands) if of]).tolist():
    if len(cones) == count:
      break
    nodes, edges = _cone(operands, root, max_nodes)
    if len(nodes) >= _MIN_SUBGRAPH:
      cones.append((edges, x[nodes]))
  return cones


def _attributes(graph: graphs.Graph, attributes: Sequence[str]) -> np.ndarray:
  """(n, F) int64 attributes; element types are indices into `node_types.NAMES`."""
  columns = []
  for name in attributes:
    if name == "opcode":
      columns.append(graph.node_opcode.astype(np.int64))
    elif name == "element_type":
      columns.append(node_types.indices(graph.node_feat))
    else:
      # frexp gives a mantissa in [0.5, 1), so powers of two are exact, and the exponent of 0 is 0.
      columns.append(np.frexp(graph.node_feat[:, _ELEMENTS_COLUMN])[1].astype(np.int64) - 1)
  return np.stack(columns, axis=1)


_LABELS = {"tile": "mean over configurations of runtime / normalizer",
           "layout": "mean over configurations of seconds"}


def _label(graph: graphs.ConfiguredGraph) -> float | None:
  if not graph.has_runtimes:
    return None
  mean = float(graph.relative_runtime.mean())
  return mean if graph.kind == "tile" else mean * 1e-9


def _in_words(attributes: Sequence[str], extracted: Sequence[tuple[np.ndarray, np.ndarray]]
              ) -> tuple[tuple[str, ...], list[np.ndarray],
                         list[tuple[np.ndarray, np.ndarray]]]:
  """The vocabularies of the values that occur, and the attributes as indices into them."""
  rows = np.concatenate([x for _, x in extracted])
  vocabularies, columns = [], []
  for name, column in zip(attributes, rows.T):
    words, indices = np.unique(column, return_inverse=True)
    vocabularies.append(node_types.NAMES[words] if name == "element_type" else words)
    columns.append(indices.reshape(-1))
  indexed = np.stack(columns, axis=1)
  ends = np.cumsum([len(x) for _, x in extracted])[:-1]
  return tuple(attributes), vocabularies, [
      (edges, x) for (edges, _), x in zip(extracted, np.split(indexed, ends))]
