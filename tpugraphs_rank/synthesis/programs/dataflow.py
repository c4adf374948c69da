"""Dataflow graphs of real programs: what a generator learns and `realization` makes runnable.

Details of notation are removed, so that each node is one operation on arrays. Removed are the
combiners of reductions, called computations (inlined), reshapes that add or drop axes of size 1,
all but the last of consecutive broadcasts, broadcasts of constants, and all nodes that do not
contribute to the result.
"""

from collections.abc import Sequence
import dataclasses
import logging

import numpy as np

from tpugraphs_rank import commands
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import registry
from tpugraphs_rank.hlo import features
from tpugraphs_rank.hlo import opcodes
from tpugraphs_rank.synthesis.dags import dags
from tpugraphs_rank.synthesis.dags import node_types
from tpugraphs_rank.synthesis.programs import nodes as nodes_lib
from tpugraphs_rank.synthesis.programs import subgraphs as subgraphs_lib

_logger = logging.getLogger(__name__)

ATTRIBUTES = ("operation", "element_type", "shape_bucket")
_DIMENSIONS = [features.NODE_FEATURE_NAMES.index(f"shape_dimensions_{axis}") for axis in range(6)]
_ELEMENTS = features.NODE_FEATURE_NAMES.index("shape_dimensions_product")


def of_graph(graph: graphs.Graph) -> list[nodes_lib.Node]:
  """The dataflow of a program: operands before their users, the result last.

  Raises:
    DataError: the program has no root, several results, or calls that cannot be resolved.
  """
  return _Reader(graph).read()


def extract(collection: str, splits: Sequence[str] = ("train",),
            max_nodes: int | None = None, data_root: files.PathLike | None = None,
            sampling: subgraphs_lib.Sampling | None = None, partial: bool = False) -> dags.Dags:
  """Extracts the dataflow graphs of a collection's programs, with `ATTRIBUTES` as attributes.

  Args:
    collection: its name, or the path of its JSON descriptor.
    splits: splits to read.
    max_nodes: skip graphs with more nodes. Programs with several results and graphs of one node
      are skipped, too; the provenance counts them.
    data_root: see `data.collections.load_collection`.
    sampling: take sub-graphs of each program, whatever its size, in place of the program; programs
      without suitable sub-graphs count as skipped.
    partial: see `data.collections.load_collection`.

  Raises:
    UnknownNameError: the collection or a split does not exist.
    MissingDataError: the data are not downloaded.
    DataError: a graph is damaged, or no graph remains.
  """
  described = registry.get_collection(collection)
  extracted: list[list[nodes_lib.Node]] = []
  names: list[str] = []
  left_out: list[str] = []
  rng = np.random.default_rng(sampling.seed if sampling else 0)
  for split in splits:
    for graph in collections.load_collection(described, split, data_root, partial=partial):
      try:
        nodes = of_graph(graph)
      except errors.DataError as error:
        _logger.info("left out: %s", error)
        nodes = []
      if sampling:
        taken = [subgraph for subgraph in subgraphs_lib.sample(nodes, sampling, rng)
                 if subgraph not in extracted]
      else:
        taken = [nodes] if 2 <= len(nodes) <= (max_nodes or len(nodes)) else []
      extracted += taken
      names += [graph.name] * len(taken)
      if not taken:
        left_out.append(graph.name)
  if not extracted:
    raise errors.DataError(
        f"{described.name} {', '.join(splits)}: no dataflow graph of 2 nodes or more"
        + (f" and at most {max_nodes}; raise max_nodes" if max_nodes else "") if not sampling else
        f"{described.name} {', '.join(splits)}: no sub-graph of {sampling.min_nodes} nodes or more "
        f"with {sampling.sites} sites; lower the number of nodes or of sites")
  return as_dags(extracted, names=names, provenance={
      "collection": described.name, "splits": list(splits), "target": described.target,
      "graphs": "sub-graphs of dataflow" if sampling else "dataflow", "max_nodes": max_nodes,
      "left_out": len(left_out),
      **({"sampling": dataclasses.asdict(sampling)} if sampling else {})})


def as_dags(dataflows: Sequence[Sequence[nodes_lib.Node]], names: Sequence[str] | None = None,
            provenance: dict | None = None) -> dags.Dags:
  """Converts dataflow graphs to the format that generators read."""
  columns = [[getattr(node, field) for nodes in dataflows for node in nodes]
             for field in ("operation", "type", "bucket")]
  words = [np.unique(np.array(column)) for column in columns]
  indices = np.stack([np.searchsorted(vocabulary, np.array(column))
                      for vocabulary, column in zip(words, columns)], axis=1)
  converted, start = [], 0
  for nodes in dataflows:
    edges = [(user, operand) for user, node in enumerate(nodes) for operand in node.operands]
    converted.append((np.array(edges, np.int64).reshape(-1, 2), indices[start:start + len(nodes)]))
    start += len(nodes)
  return dags.canonical(converted, ATTRIBUTES, words, provenance=provenance, names=names)


def from_dags(generated: dags.Dags) -> list[list[nodes_lib.Node]]:
  """The inverse of `as_dags`, also for generated graphs: operands before users, roots last.

  Raises:
    DataError: the graphs have other attributes than `ATTRIBUTES`.
  """
  if generated.x_names != ATTRIBUTES:
    raise errors.DataError(
        f"these graphs have the attributes {', '.join(generated.x_names)}; dataflow graphs have "
        f"{', '.join(ATTRIBUTES)}: use a generator of dataflow graphs, such as the one that "
        f"{commands.command('synthesize')} trains if --model is not set")
  dataflows = []
  for number in range(len(generated)):
    x = generated.x[generated.nodes(number)]
    operands: list[list[int]] = [[] for _ in x]
    for user, operand in generated.edges(number).tolist():
      operands[user].append(operand)
    order = nodes_lib.operands_first(operands)
    position = {node: index for index, node in enumerate(order)}
    dataflows.append([nodes_lib.Node(
        str(generated.vocabularies[0][x[node, 0]]), str(generated.vocabularies[1][x[node, 1]]),
        int(generated.vocabularies[2][x[node, 2]]),
        tuple(sorted(position[operand] for operand in operands[node]))) for node in order])
  return dataflows


class _Reader:
  """Reads one program by following operands from its result."""

  def __init__(self, graph: graphs.Graph):
    self._name = graph.name
    self._opcodes = [opcodes.opcode_name(int(number)) for number in graph.node_opcode]
    self._types = node_types.NAMES[node_types.indices(graph.node_feat)].tolist()
    self._shapes = [tuple(int(size) for size in row if size > 0)
                    for row in graph.node_feat[:, _DIMENSIONS]]
    self._buckets = [nodes_lib.bucket_of(round(float(count)))
                     for count in graph.node_feat[:, _ELEMENTS]]
    self._operands: list[list[int]] = [[] for _ in self._opcodes]
    for user, operand in np.unique(graph.edge_index, axis=0).tolist():
      self._operands[user].append(operand)
    # Parameters of called computations are aliases of the call's operands.
    self._alias_of: dict[int, int] = {}
    self._nodes: list[nodes_lib.Node] = []
    self._index_of: dict[int, int] = {}

  def read(self) -> list[nodes_lib.Node]:
    for node, opcode in enumerate(self._opcodes):
      if opcode in ("call", "map", "fusion"):
        self._follow_call(node)
    used = {operand for of in self._operands for operand in of}
    roots = [node for node in range(len(self._opcodes))
             if node not in used and self._opcodes[node] != "parameter"]
    if len(roots) != 1:
      raise errors.DataError(
          f"{self._name} has {len(roots)} results; a dataflow graph has one")
    stack = [(roots[0], False)]
    while stack:
      node, ready = stack.pop()
      node = self._resolve(node)
      if node in self._index_of:
        continue
      below = [self._resolve(operand) for operand in self._inputs(node)]
      if not ready:
        stack.append((node, True))
        stack += [(operand, False) for operand in reversed(below)]
        continue
      self._index_of[node] = len(self._nodes)
      self._nodes.append(nodes_lib.Node(
          self._operation(node), self._types[node], self._buckets[node],
          tuple(sorted({self._index_of[operand] for operand in below}))))
    return self._nodes

  def _follow_call(self, call: int) -> None:
    """Makes the parameters of a called computation aliases of the call's operands."""
    callee, *arguments = sorted(self._operands[call])
    inside, waiting = set(), [callee]
    while waiting:
      node = waiting.pop()
      if node not in inside:
        inside.add(node)
        waiting += self._operands[node]
    for parameter in sorted(node for node in inside if self._opcodes[node] == "parameter"):
      if parameter in self._alias_of:
        continue
      matching = [node for node in arguments if self._types[node] == self._types[parameter]
                  and self._shapes[node] == self._shapes[parameter]]
      if not matching:
        # The call passes one operand twice.
        matching = [node for node in self._operands[call][1:]
                    if self._types[node] == self._types[parameter]]
      if not matching:
        raise errors.DataError(
            f"{self._name}: parameter {parameter} of the computation that node {call} calls has "
            "no operand of its shape")
      self._alias_of[parameter] = matching[0]
      if matching[0] in arguments:
        arguments.remove(matching[0])
    self._alias_of[call] = callee

  def _resolve(self, node: int) -> int:
    """The node whose operation computes this value."""
    while True:
      if node in self._alias_of:
        node = self._alias_of[node]
      elif self._opcodes[node] in ("reshape", "broadcast", "bitcast", "copy"):
        source = self._resolve(self._operands[node][0])
        if self._opcodes[source] == "constant" or self._squeezed(source) == self._squeezed(node):
          node = source
        else:
          return node
      else:
        return node

  def _squeezed(self, node: int) -> tuple[int, ...]:
    return tuple(size for size in self._shapes[node] if size > 1)

  def _inputs(self, node: int) -> list[int]:
    """The operands that carry data."""
    operands = sorted(self._operands[node])
    opcode = self._opcodes[node]
    if opcode == "reduce":
      # Computations are numbered before their users, so the combiner comes first. The initial value
      # is a scalar.
      data = [operand for operand in operands[1:] if self._shapes[operand]]
      return data[:1] or operands[1:2]
    if opcode == "broadcast":
      # Consecutive broadcasts are merged.
      source = self._resolve(operands[0])
      while self._opcodes[source] in ("broadcast", "reshape"):
        source = self._resolve(self._operands[source][0])
      return [source]
    return operands

  def _operation(self, node: int) -> str:
    opcode = self._opcodes[node]
    if opcode != "reduce":
      return opcode
    return f"reduce-{self._opcodes[min(self._operands[node])]}"
