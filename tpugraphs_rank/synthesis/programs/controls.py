"""Control graphs that involve no learning: a generator has to beat them.

Both controls take a kind and a number of nodes. A *typed random graph* starts with the operation
that defines the kind, on fresh operands, and grows before and after it by operations drawn
uniformly from those that the types allow. A *template* always grows by the same few steps in the
same order; only its shapes are random. For layout programs both start with additional operations
whose layouts can be requested, placed before the operation that defines the kind.
"""

from collections.abc import Callable, Sequence

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank.synthesis.programs import nodes as nodes_lib
from tpugraphs_rank.synthesis.programs import operations as ops

# Range of floor(log2(elements)) of a result: kernels that run for about 0.1 to 5 ms.
_RESULTS = {"convolution": (13, 17), "dot": (13, 17), "reduce": (8, 13), "gather": (16, 19),
            "transpose": (16, 20), "concatenate": (15, 19), "elementwise": (16, 20)}
# Layout programs contain several kernels, so their arrays are smaller by this many powers of two.
_SMALLER = 2
# Range of log2(elements of a reduction's input / elements of its result).
_SUMMED = (5, 10)


class _GraphBuilder:
  """A graph under construction: nodes in any order, operands are node indices."""

  def __init__(self, rng: np.random.Generator, smaller: int = 0):
    self.rng = rng
    self.smaller = smaller
    self.nodes: list[list] = []  # [operation, type, bucket, operands]
    self.root = -1

  def add(self, operation: str, type_: str, bucket: int, operands: Sequence[int] = ()) -> int:
    self.nodes.append([operation, type_, bucket, list(operands)])
    return len(self.nodes) - 1

  def bucket(self, low: int, high: int) -> int:
    return max(int(self.rng.integers(low, high + 1)) - self.smaller, 1)

  def choice(self, options: Sequence[str]) -> str:
    return options[int(self.rng.integers(len(options)))]

  def sites(self) -> int:
    return ops.count_sites(node[0] for node in self.nodes)

  def number_arrays(self) -> list[int]:
    """Parameters that are arrays of numbers, except the row indices of gathers."""
    rows = {node[3][1] for node in self.nodes if node[0] == ops.GATHER}
    return [index for index, node in enumerate(self.nodes) if node[0] == ops.PARAMETER
            and node[1] in ops.NUMBERS and node[2] > 0 and index not in rows]

  def finished(self) -> list[nodes_lib.Node]:
    order = nodes_lib.operands_first([node[3] for node in self.nodes])
    position = {node: index for index, node in enumerate(order)}
    return [nodes_lib.Node(self.nodes[node][0], self.nodes[node][1], self.nodes[node][2], tuple(
        sorted({position[operand] for operand in self.nodes[node][3]}))) for node in order]


def typed_random(kind: str, size: int, rng: np.random.Generator, sites: int = 0
                 ) -> list[nodes_lib.Node]:
  """A random graph with valid types and numbers of operands.

  Args:
    kind: one of `operations.KINDS`.
    size: number of nodes, or the smallest number that the kind allows, if that is larger.
    rng: source of all random choices.
    sites: number of operations whose layouts can be requested (see `operations.SITES`), one more
      where the kind requires it; 0: a kernel, with only the sites of its kind.

  Raises:
    UnknownNameError: the kind does not exist.
  """
  # Layout programs use float32 only.
  builder = _core(kind, rng, "f32" if sites else rng.choice(["f32", "f32", "f32", "bf16", "s32"]),
                sites)
  while builder.sites() < sites:
    options = _SITES + ([ops.CONVOLUTION] if kind == ops.CONVOLUTION else [])
    arrays = builder.number_arrays()
    _insert_site(builder, builder.choice(options), arrays[int(rng.integers(len(arrays)))])
  while len(builder.nodes) < size:
    room = size - len(builder.nodes)
    # Growth after the operation that defines the kind is twice as likely as growth before it.
    if kind == "elementwise" or rng.random() < 2 / 3:
      builder.root = _step(builder, builder.root, room)
    else:
      _insert_unary(builder)
  return builder.finished()


def template(kind: str, size: int, rng: np.random.Generator, sites: int = 0
             ) -> list[nodes_lib.Node]:
  """A plain graph of the kind: always the same steps, with random shapes.

  Args:
    kind: one of `operations.KINDS`.
    size: number of nodes, or the smallest number that the kind allows, if that is larger.
    rng: source of the random shapes.
    sites: see `typed_random`; a chain of two products, a reshape, two products, and so on.

  Raises:
    UnknownNameError: the kind does not exist.
  """
  builder = _core(kind, rng, "f32", sites)
  first = builder.number_arrays()[0]
  while builder.sites() < sites:
    first = _insert_site(builder, (ops.DOT, ops.DOT, ops.RESHAPE)[builder.sites() % 3], first)
  steps = ("bias", "maximum", "multiply", "tanh")
  turn = 0
  while len(builder.nodes) < size:
    step, room = steps[turn % len(steps)], size - len(builder.nodes)
    bucket = builder.nodes[builder.root][2]
    turn += 1
    if step == "bias" and room >= 3:
      bias = builder.add(ops.PARAMETER, "f32", max(bucket // 2, 1))
      wide = builder.add(ops.BROADCAST, "f32", bucket, [bias])
      builder.root = builder.add("add", "f32", bucket, [builder.root, wide])
    elif step in ("maximum", "multiply") and room >= 2:
      other = builder.add(ops.CONSTANT, "f32", 0)
      builder.root = builder.add(step, "f32", bucket, [builder.root, other])
    elif step == "tanh":
      builder.root = builder.add(step, "f32", bucket, [builder.root])
  return builder.finished()


_SITES = [ops.DOT, ops.RESHAPE]


def _insert_site(builder: _GraphBuilder, operation: str, node: int) -> int:
  """Turns a parameter into a product, reshape or convolution; returns its new first operand."""
  type_, bucket = builder.nodes[node][1:3]
  operands = [builder.add(ops.PARAMETER, type_, bucket)]
  if operation != ops.RESHAPE:
    operands.append(builder.add(ops.PARAMETER, type_, builder.bucket(12, 15)))
  builder.nodes[node] = [operation, type_, bucket, operands]
  return operands[0]


def _core(kind: str, rng: np.random.Generator, type_: str, sites: int = 0) -> _GraphBuilder:
  """The operation that defines a kind, on fresh operands."""
  if kind not in _CORES:
    raise errors.UnknownNameError(f"no kind {kind!r}; one of {', '.join(ops.KINDS)}")
  builder = _GraphBuilder(rng, _SMALLER if sites else 0)
  bucket = builder.bucket(*_RESULTS[kind])
  type_ = type_ if kind != "convolution" or type_ in ops.FLOATS else "f32"
  builder.root = _CORES[kind](builder, bucket, str(type_))
  return builder


def _dot(builder: _GraphBuilder, bucket: int, type_: str) -> int:
  operands = [builder.add(ops.PARAMETER, type_, builder.bucket(13, 16)) for _ in range(2)]
  return builder.add(ops.DOT, type_, bucket, operands)


def _convolution(builder: _GraphBuilder, bucket: int, type_: str) -> int:
  operands = [builder.add(ops.PARAMETER, type_, size) for size in (bucket, builder.bucket(11, 13))]
  return builder.add(ops.CONVOLUTION, type_, bucket, operands)


def _reduce(builder: _GraphBuilder, bucket: int, type_: str) -> int:
  type_ = "f32" if type_ == "bf16" else type_
  source = builder.add(ops.PARAMETER, type_, bucket + builder.bucket(*_SUMMED))
  return builder.add(builder.choice(["reduce-add", "reduce-maximum"]), type_, bucket, [source])


def _gather(builder: _GraphBuilder, bucket: int, type_: str) -> int:
  table = builder.add(ops.PARAMETER, type_, builder.bucket(17, 19))
  rows = builder.add(ops.PARAMETER, "s32", builder.bucket(9, 11))
  return builder.add(ops.GATHER, type_, bucket, [table, rows])


def _transpose(builder: _GraphBuilder, bucket: int, type_: str) -> int:
  return builder.add(ops.TRANSPOSE, type_, bucket, [builder.add(ops.PARAMETER, type_, bucket)])


def _concatenate(builder: _GraphBuilder, bucket: int, type_: str) -> int:
  parts = [builder.add(ops.PARAMETER, type_, bucket - 1) for _ in range(2)]
  return builder.add(ops.CONCATENATE, type_, bucket, parts)


def _elementwise(builder: _GraphBuilder, bucket: int, type_: str) -> int:
  operands = [builder.add(ops.PARAMETER, type_, bucket) for _ in range(2)]
  return builder.add("multiply", type_, bucket, operands)


_CORES: dict[str, Callable[[_GraphBuilder, int, str], int]] = {
    "dot": _dot, "convolution": _convolution, "reduce": _reduce, "gather": _gather,
    "transpose": _transpose, "concatenate": _concatenate, "elementwise": _elementwise}


def _supporting(table: dict[str, frozenset], type_: str) -> list[str]:
  """The operations of a table that support an element type."""
  return sorted(name for name, types in table.items() if type_ in types)


def _step(builder: _GraphBuilder, source: int, room: int) -> int:
  """Applies one more operation to a node: unary, or with a constant, an array or a broadcast."""
  type_, bucket = builder.nodes[source][1:3]
  options: list[tuple[int, str]] = [(1, "unary"), (1, "square"), (2, "constant"), (2, "array"),
                                    (3, "broadcast"), (4, "select")]
  feasible = [name for nodes, name in options if nodes <= room]
  choice = builder.choice(feasible)
  binary = builder.choice(_supporting(ops.BINARY, type_))
  if choice == "unary":
    return builder.add(builder.choice(_supporting(ops.UNARY, type_)), type_, bucket, [source])
  if choice == "square":
    return builder.add("multiply" if type_ != "pred" else "and", type_, bucket, [source])
  if choice == "constant":
    return builder.add(binary, type_, bucket, [source, builder.add(ops.CONSTANT, type_, 0)])
  if choice == "array":
    return builder.add(binary, type_, bucket, [source, builder.add(ops.PARAMETER, type_, bucket)])
  if choice == "broadcast":
    small = builder.add(ops.PARAMETER, type_, builder.bucket(1, max(bucket - 3, 1)))
    return builder.add(binary, type_, bucket, [
        source, builder.add(ops.BROADCAST, type_, bucket, [small])])
  one, other = (builder.add(ops.PARAMETER, type_, bucket) for _ in range(2))
  compared = builder.add(ops.COMPARE, "pred", bucket, [source, one])
  return builder.add(ops.SELECT, type_, bucket, [compared, source, other])


def _insert_unary(builder: _GraphBuilder) -> None:
  """Inserts a unary operation between a parameter and its users."""
  parameters = [node for node, entry in enumerate(builder.nodes)
                if entry[0] == ops.PARAMETER and entry[1] in ops.NUMBERS and entry[2] > 0]
  node = parameters[int(builder.rng.integers(len(parameters)))]
  type_, bucket = builder.nodes[node][1:3]
  if any(entry[0] == ops.GATHER and entry[3][1] == node for entry in builder.nodes):
    return
  source = builder.add(ops.PARAMETER, type_, bucket)
  builder.nodes[node] = [builder.choice(_supporting(ops.UNARY, type_)), type_, bucket, [source]]
