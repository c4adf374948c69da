"""Dataflow graphs of real programs, as a generator learns them and `realise` makes them runnable.

What only spells a program out is taken away, so that each node is one operation on arrays: the
combiners of reductions, called computations (their operations take the call's place), reshapes that
add or drop axes of size 1, all but the last of the broadcasts in a row, broadcasts of constants,
and whatever the result does not depend on.
"""

from collections.abc import Sequence
import dataclasses
import logging

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import registry
from tpugraphs_rank.hlo import features
from tpugraphs_rank.hlo import opcodes
from tpugraphs_rank.synthesis.dags import dags
from tpugraphs_rank.synthesis.programs import nodes as nodes_lib
from tpugraphs_rank.synthesis.programs import subgraphs as parts_lib

_logger = logging.getLogger(__name__)

ATTRIBUTES = ("operation", "element_type", "shape_bucket")
_TYPE_PREFIX = "shape_element_type_is_"
_TYPES = [(column, name[len(_TYPE_PREFIX):]) for column, name in enumerate(
    features.NODE_FEATURE_NAMES) if name.startswith(_TYPE_PREFIX)]
_DIMENSIONS = [features.NODE_FEATURE_NAMES.index(f"shape_dimensions_{axis}") for axis in range(6)]
_ELEMENTS = features.NODE_FEATURE_NAMES.index("shape_dimensions_product")


def of_graph(graph: graphs.Graph) -> list[nodes_lib.Node]:
  """The dataflow of a program, operands before their users, its result last.

  Raises:
    DataError: it has no root, several results, or calls that cannot be followed.
  """
  return _Reader(graph).read()


def extract(collection: str, splits: Sequence[str] = ("train",),
            max_nodes: int | None = None, data_root: files.PathLike | None = None,
            cut: parts_lib.Sampling | None = None) -> dags.Dags:
  """Dataflow graphs of a collection's programs, with the attributes operation, type and bucket.

  Args:
    collection: its name, or the path of its JSON descriptor.
    splits: whose programs.
    max_nodes: graphs with more nodes are left out, as are programs of several results and graphs
      of one node; the provenance counts them.
    data_root: as of `data.collections.load_collection`.
    cut: None of the programs but parts of each, however large it is; programs without such parts
      are counted as left out.

  Raises:
    UnknownNameError: no such collection or split.
    MissingDataError: the graphs are not there.
    DataError: a graph is damaged, or none is left.
  """
  described = registry.get_collection(collection)
  found: list[list[nodes_lib.Node]] = []
  names: list[str] = []
  left_out: list[str] = []
  rng = np.random.default_rng(cut.seed if cut else 0)
  for split in splits:
    for graph in collections.load_collection(described, split, data_root):
      try:
        nodes = of_graph(graph)
      except errors.DataError as error:
        _logger.info("left out: %s", error)
        nodes = []
      if cut:
        taken = [part for part in parts_lib.sample(nodes, cut, rng) if part not in found]
      else:
        taken = [nodes] if 2 <= len(nodes) <= (max_nodes or len(nodes)) else []
      found += taken
      names += [graph.name] * len(taken)
      if not taken:
        left_out.append(graph.name)
  if not found:
    raise errors.DataError(
        f"{described.name} {', '.join(splits)}: no dataflow graph of 2 nodes or more"
        + (f" and at most {max_nodes}; raise max_nodes" if max_nodes else "") if not cut else
        f"{described.name} {', '.join(splits)}: no part of {cut.min_nodes} nodes or more with "
        f"{cut.sites} sites; ask for fewer nodes or sites")
  return as_dags(found, names=names, provenance={
      "collection": described.name, "splits": list(splits), "target": described.target,
      "graphs": "parts of dataflow" if cut else "dataflow", "max_nodes": max_nodes,
      "left_out": len(left_out), **({"cut": dataclasses.asdict(cut)} if cut else {})})


def as_dags(found: Sequence[Sequence[nodes_lib.Node]], names: Sequence[str] | None = None,
            provenance: dict | None = None) -> dags.Dags:
  """Dataflow graphs in the format of generators."""
  columns = [[getattr(node, field) for nodes in found for node in nodes]
             for field in ("operation", "type", "bucket")]
  words = [np.unique(np.array(column)) for column in columns]
  places = np.stack([np.searchsorted(known, np.array(column))
                     for known, column in zip(words, columns)], axis=1)
  parts, start = [], 0
  for nodes in found:
    edges = [(user, operand) for user, node in enumerate(nodes) for operand in node.operands]
    parts.append((np.array(edges, np.int64).reshape(-1, 2), places[start:start + len(nodes)]))
    start += len(nodes)
  return dags.canonical(parts, ATTRIBUTES, words, provenance=provenance, names=names)


def from_dags(given: dags.Dags) -> list[list[nodes_lib.Node]]:
  """The inverse of `as_dags`, also of generated graphs: operands before users, roots last.

  Raises:
    DataError: other attributes than `ATTRIBUTES`.
  """
  if given.x_names != ATTRIBUTES:
    raise errors.DataError(
        f"these graphs have the attributes {', '.join(given.x_names)}; dataflow graphs have "
        f"{', '.join(ATTRIBUTES)}: make them with --dataflow")
  found = []
  for number in range(len(given)):
    x = given.x[given.nodes(number)]
    operands: list[list[int]] = [[] for _ in x]
    for user, operand in given.edges(number).tolist():
      operands[user].append(operand)
    order = nodes_lib.operands_first(operands)
    place = {node: index for index, node in enumerate(order)}
    found.append([nodes_lib.Node(
        str(given.vocabularies[0][x[node, 0]]), str(given.vocabularies[1][x[node, 1]]),
        int(given.vocabularies[2][x[node, 2]]),
        tuple(sorted(place[operand] for operand in operands[node]))) for node in order])
  return found


class _Reader:
  """Follows the operands of one program from its result."""

  def __init__(self, graph: graphs.Graph):
    self._name = graph.name
    self._opcodes = [opcodes.opcode_name(int(number)) for number in graph.node_opcode]
    self._types = _types(graph.node_feat)
    self._shapes = [tuple(int(size) for size in row if size > 0)
                    for row in graph.node_feat[:, _DIMENSIONS]]
    self._buckets = [nodes_lib.bucket_of(round(float(count)))
                     for count in graph.node_feat[:, _ELEMENTS]]
    self._operands: list[list[int]] = [[] for _ in self._opcodes]
    for user, operand in np.unique(graph.edge_index, axis=0).tolist():
      self._operands[user].append(operand)
    # Parameters of called computations stand for the operands of the call.
    self._stands_for: dict[int, int] = {}
    self._found: list[nodes_lib.Node] = []
    self._place: dict[int, int] = {}

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
      if node in self._place:
        continue
      below = [self._resolve(operand) for operand in self._inputs(node)]
      if not ready:
        stack.append((node, True))
        stack += [(operand, False) for operand in reversed(below)]
        continue
      self._place[node] = len(self._found)
      self._found.append(nodes_lib.Node(
          self._operation(node), self._types[node], self._buckets[node],
          tuple(sorted({self._place[operand] for operand in below}))))
    return self._found

  def _follow_call(self, call: int) -> None:
    """Joins the parameters of a called computation with the operands of the call."""
    callee, *given = sorted(self._operands[call])
    inside, waiting = set(), [callee]
    while waiting:
      node = waiting.pop()
      if node not in inside:
        inside.add(node)
        waiting += self._operands[node]
    for parameter in sorted(node for node in inside if self._opcodes[node] == "parameter"):
      if parameter in self._stands_for:
        continue
      alike = [node for node in given if self._types[node] == self._types[parameter]
               and self._shapes[node] == self._shapes[parameter]]
      if not alike:
        # One operand given twice.
        alike = [node for node in self._operands[call][1:]
                 if self._types[node] == self._types[parameter]]
      if not alike:
        raise errors.DataError(
            f"{self._name}: parameter {parameter} of the computation that node {call} calls has "
            "no operand of its shape")
      self._stands_for[parameter] = alike[0]
      if alike[0] in given:
        given.remove(alike[0])
    self._stands_for[call] = callee

  def _resolve(self, node: int) -> int:
    """The node whose operation makes this value."""
    while True:
      if node in self._stands_for:
        node = self._stands_for[node]
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
      # The combiner comes first, computations standing before those that use them; the initial
      # value is a scalar.
      data = [operand for operand in operands[1:] if self._shapes[operand]]
      return data[:1] or operands[1:2]
    if opcode == "broadcast":
      # Broadcasts of broadcasts are one.
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


def _types(node_feat: np.ndarray) -> list[str]:
  columns = [column for column, _ in _TYPES]
  given = node_feat[:, columns] > 0
  return [_TYPES[row.argmax()][1] if row.any() else "other" for row in given]
