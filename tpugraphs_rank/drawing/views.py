"""The content of a drawing: nodes with their lines of text, and edges."""

from collections import deque
from collections.abc import Sequence
import dataclasses

import numpy as np

from tpugraphs_rank import config as config_lib
from tpugraphs_rank import errors
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import tile_features
from tpugraphs_rank.hlo import features
from tpugraphs_rank.hlo import graph as hlo_graph
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import opcodes
from tpugraphs_rank.hlo import shapes

_TYPES = [name.removeprefix("shape_element_type_is_") for name in features.NODE_FEATURE_NAMES
          if name.startswith("shape_element_type_is_")]
_TENSORS = ("output", "input", "kernel")
_MAX_DIMENSIONS = 6


@dataclasses.dataclass(frozen=True)
class Node:
  """A node of a drawing.

  Attributes:
    number: the node's index in its graph.
    opcode: the first line; it determines the colour.
    detail: the second line, a shape or other attributes; may be empty.
    configurable: whether configurations choose something at this node.
    requests: one line for each layout that the chosen configuration requests here.
    name: the instruction's name; empty if the source has no names.
    hidden: number of neighbours that the drawing leaves out.
  """

  number: int
  opcode: str
  detail: str = ""
  configurable: bool = False
  requests: tuple[str, ...] = ()
  name: str = ""
  hidden: int = 0


@dataclasses.dataclass(frozen=True)
class View:
  """What to draw.

  Attributes:
    title: the caption.
    nodes: the nodes.
    edges: (m, 2) int64 indices into `nodes`: [producer, consumer].
    total: number of nodes of the whole graph.
    note: a second line of the caption.
  """

  title: str
  nodes: tuple[Node, ...]
  edges: np.ndarray
  total: int
  note: str = ""


def from_graph(graph: graphs.Graph, config: int | None = None) -> View:
  """A view of an .npz graph.

  Args:
    graph: the graph.
    config: index of the configuration whose requests are shown; None: no configuration.

  Raises:
    ConfigError: the graph has no such configuration.
  """
  if config is not None and not 0 <= config < graph.num_configs:
    raise errors.ConfigError(
        f"{graph.name} has no configuration {config}; expected 0 to {graph.num_configs - 1}"
        if graph.num_configs else f"{graph.name} has no configurations")
  configurable = _configurable_nodes(graph)
  requests = _requests(graph, config)
  nodes = tuple(
      Node(number, opcodes.opcode_name(graph.node_opcode[number]), shape_of(row),
           number in configurable, requests.get(number, ()))
      for number, row in enumerate(graph.node_feat))
  note = "orange border: configurable" if config is None and configurable else ""
  if config is not None:
    note = f"configuration {config}"
  if config is not None and isinstance(graph, graphs.ConfiguredGraph) and graph.has_runtimes:
    note += f", {graph.config_runtime[config] / 1e6:.4g} ms"
  if config is not None and isinstance(graph, graphs.TileGraph):
    note += f"; tile: {_tile_bounds(graph, config)}"
  return View(graph.name, nodes, _producers_first(graph.edge_index), graph.num_nodes, note)


def from_module(module: hlo_pb2.HloModuleProto, source: str = "the module") -> View:
  """A view of an HLO program, with the names and shapes of its instructions."""
  instructions = [(computation, instruction) for computation in module.computations
                  for instruction in computation.instructions]
  nodes = tuple(
      Node(number, instruction.opcode, _shape_text(instruction.shape), name=instruction.name)
      for number, (_, instruction) in enumerate(instructions))
  edges = _producers_first(hlo_graph.edge_index(module, source))
  return View(module.name or source, nodes, edges, len(nodes))


def shape_of(row: np.ndarray) -> str:
  """The shape of a node's value from its features (140,), such as `f32[8,128]`."""
  types = row[tile_features.TYPES]
  name = _TYPES[int(types.argmax())] if types.any() else "?"
  sides = row[tile_features.DIMENSIONS].astype(np.int64)
  if name in ("tuple", "token", "opaque_type", "invalid_type"):
    return name
  listed = [str(side) for side in sides if side > 0]
  # The features list at most six sides; the product has all.
  product = np.prod(sides[sides > 0], dtype=np.float64)
  more = len(listed) == _MAX_DIMENSIONS and row[tile_features.VOLUME] > product
  return f"{name}[{','.join(listed)}{',…' if more else ''}]"


def _shape_text(shape: hlo_pb2.ShapeProto) -> str:
  name = shapes.element_type(shape.element_type)
  if shape.tuple_shapes:
    return f"tuple of {len(shape.tuple_shapes)}"
  text = f"{name}[{','.join(map(str, shape.dimensions))}]"
  order = ",".join(map(str, shape.layout.minor_to_major))
  return f"{text}{{{order}}}" if len(shape.dimensions) > 1 and order else text


def _configurable_nodes(graph: graphs.Graph) -> frozenset[int]:
  if isinstance(graph, graphs.LayoutGraph):
    return frozenset(graph.node_config_ids.tolist())
  if isinstance(graph, graphs.TileGraph):
    return frozenset([tile_features.root(graph)])
  return frozenset()


def _requests(graph: graphs.Graph, config: int | None) -> dict[int, tuple[str, ...]]:
  """For each configurable node a line per tensor: its requested layout, minor to major."""
  if config is None or not isinstance(graph, graphs.LayoutGraph):
    return {}
  rows = graph.layouts(np.array([config]))[0].reshape(-1, len(_TENSORS), _MAX_DIMENSIONS)
  requests = {}
  for node, tensors in zip(graph.node_config_ids.tolist(), rows):
    lines = [f"{name} {{{','.join(str(axis) for axis in tensor if axis >= 0)}}}"
             for name, tensor in zip(_TENSORS, tensors) if (tensor >= 0).any()]
    requests[node] = tuple(lines) or ("no layout requested",)
  return requests


def _tile_bounds(graph: graphs.TileGraph, config: int) -> str:
  row = graph.config_feat[config]
  parts = []
  for name, start in (("kernel", tile_features.KERNEL), ("output", tile_features.OUTPUT),
                      ("input", tile_features.INPUT)):
    sides = [f"{side:g}" for side in row[start:start + tile_features.SIDES] if side > 0]
    if sides:
      parts.append(f"{name} {'×'.join(sides)}")
  return ", ".join(parts) or "none"


def _producers_first(edge_index: np.ndarray) -> np.ndarray:
  """Turns [consumer, producer] into [producer, consumer]."""
  return np.asarray(edge_index, np.int64).reshape(-1, 2)[:, ::-1]


def node_number(view: View, wanted: str) -> int:
  """The index of a node given by its number or by its instruction's name.

  Raises:
    UnknownNameError: there is no such node.
  """
  if wanted.isdigit():
    if int(wanted) < len(view.nodes):
      return int(wanted)
    raise errors.UnknownNameError(
        f"{view.title} has no node {wanted}; expected 0 to {len(view.nodes) - 1}")
  names = {node.name: place for place, node in enumerate(view.nodes) if node.name}
  if wanted in names:
    return names[wanted]
  raise errors.UnknownNameError(
      f"{view.title} has no instruction {wanted!r}"
      + (config_lib.nearest(wanted, names) if names
         else "; its nodes have no names: use the number of a node"))


def neighbourhood(view: View, centre: int, radius: int) -> View:
  """The nodes at most `radius` edges away from a node, in either direction."""
  neighbours = _neighbours(view)
  distance = {centre: 0}
  queue = deque([centre])
  while queue:
    place = queue.popleft()
    if distance[place] < radius:
      for other in neighbours[place]:
        if other not in distance:
          distance[other] = distance[place] + 1
          queue.append(other)
  return _restrict(view, sorted(distance), f"{radius} edges around node {centre}")


def limit(view: View, most: int) -> View:
  """The view itself, or the largest neighbourhood of its centre with at most `most` nodes.

  The centre is the first configurable node, or else the first dot or convolution, or else the last
  node. The last node of a training step is a tuple with hundreds of operands.
  """
  if len(view.nodes) <= most:
    return view
  candidates = [place for place, node in enumerate(view.nodes) if node.configurable] or [
      place for place, node in enumerate(view.nodes) if node.opcode in ("dot", "convolution")]
  centre = candidates[0] if candidates else len(view.nodes) - 1
  cut = neighbourhood(view, centre, 0)
  for radius in range(1, len(view.nodes)):
    larger = neighbourhood(view, centre, radius)
    if len(larger.nodes) > most or len(larger.nodes) == len(cut.nodes):
      return cut
    cut = larger
  return cut


def _neighbours(view: View) -> list[list[int]]:
  neighbours: list[list[int]] = [[] for _ in view.nodes]
  for producer, consumer in view.edges.tolist():
    neighbours[producer].append(consumer)
    neighbours[consumer].append(producer)
  return neighbours


def _restrict(view: View, kept: Sequence[int], note: str) -> View:
  places = {old: new for new, old in enumerate(kept)}
  neighbours = _neighbours(view)
  nodes = tuple(
      dataclasses.replace(view.nodes[old],
                          hidden=sum(other not in places for other in set(neighbours[old])))
      for old in kept)
  edges = np.array([[places[a], places[b]] for a, b in view.edges.tolist()
                    if a in places and b in places], np.int64).reshape(-1, 2)
  shown = f"{len(kept)} of {view.total} nodes, {note}"
  return View(view.title, nodes, edges, view.total,
              f"{view.note}; {shown}" if view.note else shown)
