"""Small programs with consistent shapes, built instruction by instruction."""

import math

import numpy as np

from tpugraphs_rank.data import graphs
from tpugraphs_rank.hlo import features
from tpugraphs_rank.hlo import opcodes

_FLOAT32 = features.NODE_FEATURE_NAMES.index("shape_element_type_is_f32")


class Program:
  """Collects instructions; `graph` makes them a layout graph whose last one is the root."""

  def __init__(self):
    self.rows: list[np.ndarray] = []
    self.opcodes: list[int] = []
    self.edges: list[tuple[int, int]] = []
    self.shapes: list[tuple[int, ...]] = []

  def add(self, opcode: str, shape, operands=(), axes=()) -> int:
    """Adds an instruction; returns its number."""
    row = np.zeros(graphs.NUM_NODE_FEATURES, np.float32)
    row[_FLOAT32] = 1
    row[21:21 + len(shape)] = shape
    row[27], row[28] = sum(shape), math.prod(shape)
    row[31:31 + len(axes)] = axes
    self.rows.append(row)
    self.opcodes.append(opcodes.opcode_id(opcode))
    self.shapes.append(tuple(shape))
    self.edges += [(len(self.rows) - 1, operand) for operand in dict.fromkeys(operands)]
    return len(self.rows) - 1

  def graph(self, requests, name: str = "program") -> graphs.LayoutGraph:
    """The program under configurations.

    Args:
      requests: for each configuration {(instruction, tensor): axes from minor to major}. All
        products and reshapes are configurable.
      name: of the graph.
    """
    rows = np.stack(self.rows)
    rows[-1, 0] = 1
    ids = np.array([node for node, opcode in enumerate(self.opcodes) if opcodes.opcode_name(opcode)
                    in ("dot", "convolution", "reshape")], np.int64)
    feat = np.full([len(requests), len(ids), 3, 6], -1, np.float32)
    for row, configuration in enumerate(requests):
      for (node, tensor), layout in configuration.items():
        feat[row, list(ids).index(node), tensor, :len(layout)] = layout
    edges = np.array(sorted(set(self.edges)), np.int64).reshape(-1, 2)
    return graphs.graph_from_arrays(name, {
        "node_feat": rows, "node_opcode": np.array(self.opcodes, np.uint8), "edge_index": edges,
        "node_config_ids": ids, "node_config_feat": feat.reshape(len(requests), len(ids), 18),
        "config_runtime": np.arange(1, len(requests) + 1),
        "node_splits": np.array([[0, len(rows)]])})


def random_program(rng: np.random.Generator, size: int, configurations: int = 6
                   ) -> graphs.LayoutGraph:
  """A random program of about `size` instructions under random requests; the first is the default.
  """
  program = Program()
  sides = (1, 2, 3, 4)
  for _ in range(2):
    program.add("parameter", rng.choice(sides, rng.integers(1, 4)).tolist())
  program.add("constant", ())
  while len(program.rows) < size:
    node = int(rng.integers(max(len(program.rows) - 6, 0), len(program.rows)))
    shape = program.shapes[node]
    rank = len(shape)
    choice = rng.integers(8)
    if choice <= 1:
      program.add(rng.choice(["exponential", "negate", "tanh", "custom-call"]), shape, [node])
    elif choice == 2:
      same = [other for other, its in enumerate(program.shapes) if its == shape]
      program.add("add", shape, [node, int(rng.choice(same))])
    elif choice == 3 and rank > 1:
      axes = rng.permutation(rank).tolist()
      program.add("transpose", [shape[axis] for axis in axes], [node], axes)
    elif choice == 4 and rank < 4:
      axes = np.sort(rng.permutation(rank + 1)[:rank]).tolist()
      written = rng.choice(sides, rank + 1).tolist()
      for axis, side in zip(axes, shape):
        written[axis] = side
      program.add("broadcast", written, [node], axes)
    elif choice == 5 and rank > 1:
      axis = int(rng.integers(rank))
      program.add("reduce", [*shape[:axis], *shape[axis + 1:]], [node, 2], [axis])
    elif choice == 6 and rank > 1:
      program.add("reshape", [math.prod(shape[:2]), *shape[2:]], [node])
    elif choice == 7 and rank == 2:
      kernel = program.add("parameter", [shape[1], int(rng.choice(sides))])
      program.add("dot", [shape[0], program.shapes[kernel][1]], [node, kernel])
  last = len(program.rows) - 1
  if not any(opcodes.opcode_name(opcode) in ("dot", "reshape") for opcode in program.opcodes):
    program.add("reshape", [math.prod(program.shapes[last])], [last])
  requests: list[dict] = [{}]
  for _ in range(configurations - 1):
    configuration = {}
    for node, opcode in enumerate(program.opcodes):
      if opcodes.opcode_name(opcode) in ("dot", "reshape"):
        for tensor in range(3 if opcodes.opcode_name(opcode) == "dot" else 2):
          if rng.random() < 0.4:
            rank = len(program.shapes[node]) if tensor == 0 else int(rng.integers(1, 5))
            if rank:
              configuration[node, tensor] = rng.permutation(rank).tolist()
    requests.append(configuration)
  return program.graph(requests)
