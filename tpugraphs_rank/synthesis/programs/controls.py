"""Dataflow graphs that nothing was learned for: what a generator has to be better than.

Both are of a given kind and number of nodes. *Typed random graphs* begin with the operation that
makes the kind, on fresh operands, and grow by operations drawn evenly from all that their types
allow, in front of it and behind it. *Templates* grow by the same few steps in the same order; only
their shapes are random. For programs under layouts both begin with more operations whose layouts
can be requested, in front of the one that makes the kind.
"""

from collections.abc import Callable, Sequence

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank.synthesis.programs import nodes as nodes_lib
from tpugraphs_rank.synthesis.programs import operations as ops

# Elements of a result, as floor(log2), from and to: kernels that run for 0.1 to 5 ms, about.
_RESULTS = {"convolution": (13, 17), "dot": (13, 17), "reduce": (8, 13), "gather": (16, 19),
            "transpose": (16, 20), "concatenate": (15, 19), "elementwise": (16, 20)}
# Programs under layouts have smaller arrays, by so many powers of two: they hold several kernels.
_SMALLER = 2
# How many times as many elements the array has that is reduced.
_SUMMED = (5, 10)


class _Growing:
  """A graph while it grows; nodes in any order, operands named by their places."""

  def __init__(self, rng: np.random.Generator, smaller: int = 0):
    self.rng = rng
    self.smaller = smaller
    self.nodes: list[list] = []  # Operation, type, bucket, operands.
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

  def given(self) -> list[int]:
    """Arrays of numbers that are given, but for the rows of gathers."""
    rows = {node[3][1] for node in self.nodes if node[0] == ops.GATHER}
    return [place for place, node in enumerate(self.nodes) if node[0] == ops.PARAMETER
            and node[1] in ops.NUMBERS and node[2] > 0 and place not in rows]

  def finished(self) -> list[nodes_lib.Node]:
    order = nodes_lib.operands_first([node[3] for node in self.nodes])
    place = {node: index for index, node in enumerate(order)}
    return [nodes_lib.Node(self.nodes[node][0], self.nodes[node][1], self.nodes[node][2], tuple(
        sorted({place[operand] for operand in self.nodes[node][3]}))) for node in order]


def typed_random(kind: str, size: int, rng: np.random.Generator, sites: int = 0
                 ) -> list[nodes_lib.Node]:
  """A random graph whose types and numbers of operands are valid.

  Args:
    kind: one of `operations.KINDS`.
    size: number of nodes; the smallest that the kind allows where that is larger.
    rng: draws everything.
    sites: how many operations there are whose layouts can be requested, see `operations.SITES`
      (one more where the kind asks for it); 0: a kernel, with its kind's own.

  Raises:
    UnknownNameError: another kind.
  """
  # Programs under layouts are of float32.
  grown = _core(kind, rng, "f32" if sites else rng.choice(["f32", "f32", "f32", "bf16", "s32"]),
                sites)
  while grown.sites() < sites:
    able = _SITES + ([ops.CONVOLUTION] if kind == ops.CONVOLUTION else [])
    given = grown.given()
    _site_in_front(grown, grown.choice(able), given[int(rng.integers(len(given)))])
  while len(grown.nodes) < size:
    room = size - len(grown.nodes)
    # Behind the operation that makes the kind twice as often as in front of it.
    if kind == "elementwise" or rng.random() < 2 / 3:
      grown.root = _step(grown, grown.root, room)
    else:
      _in_front(grown)
  return grown.finished()


def template(kind: str, size: int, rng: np.random.Generator, sites: int = 0
             ) -> list[nodes_lib.Node]:
  """A plain graph of the kind: the same steps each time, random shapes.

  Args:
    kind: one of `operations.KINDS`.
    size: number of nodes; the smallest that the kind allows where that is larger.
    rng: draws shapes.
    sites: as of `typed_random`: two products, a reshape, and so on, each of the one before it.

  Raises:
    UnknownNameError: another kind.
  """
  grown = _core(kind, rng, "f32", sites)
  first = grown.given()[0]
  while grown.sites() < sites:
    first = _site_in_front(grown, (ops.DOT, ops.DOT, ops.RESHAPE)[grown.sites() % 3], first)
  steps = ("bias", "maximum", "multiply", "tanh")
  turn = 0
  while len(grown.nodes) < size:
    step, room = steps[turn % len(steps)], size - len(grown.nodes)
    bucket = grown.nodes[grown.root][2]
    turn += 1
    if step == "bias" and room >= 3:
      bias = grown.add(ops.PARAMETER, "f32", max(bucket // 2, 1))
      wide = grown.add(ops.BROADCAST, "f32", bucket, [bias])
      grown.root = grown.add("add", "f32", bucket, [grown.root, wide])
    elif step in ("maximum", "multiply") and room >= 2:
      other = grown.add(ops.CONSTANT, "f32", 0)
      grown.root = grown.add(step, "f32", bucket, [grown.root, other])
    elif step == "tanh":
      grown.root = grown.add(step, "f32", bucket, [grown.root])
  return grown.finished()


_SITES = [ops.DOT, ops.RESHAPE]


def _site_in_front(grown: _Growing, operation: str, node: int) -> int:
  """A product, reshape or convolution in the place of a given array; returns what it takes."""
  type_, bucket = grown.nodes[node][1:3]
  operands = [grown.add(ops.PARAMETER, type_, bucket)]
  if operation != ops.RESHAPE:
    operands.append(grown.add(ops.PARAMETER, type_, grown.bucket(12, 15)))
  grown.nodes[node] = [operation, type_, bucket, operands]
  return operands[0]


def _core(kind: str, rng: np.random.Generator, type_: str, sites: int = 0) -> _Growing:
  """The operation that makes a kind, on fresh operands."""
  if kind not in _CORES:
    raise errors.UnknownNameError(f"no kind {kind!r}; one of {', '.join(ops.KINDS)}")
  grown = _Growing(rng, _SMALLER if sites else 0)
  bucket = grown.bucket(*_RESULTS[kind])
  type_ = type_ if kind != "convolution" or type_ in ops.FLOATS else "f32"
  grown.root = _CORES[kind](grown, bucket, str(type_))
  return grown


def _dot(grown: _Growing, bucket: int, type_: str) -> int:
  operands = [grown.add(ops.PARAMETER, type_, grown.bucket(13, 16)) for _ in range(2)]
  return grown.add(ops.DOT, type_, bucket, operands)


def _convolution(grown: _Growing, bucket: int, type_: str) -> int:
  operands = [grown.add(ops.PARAMETER, type_, size) for size in (bucket, grown.bucket(11, 13))]
  return grown.add(ops.CONVOLUTION, type_, bucket, operands)


def _reduce(grown: _Growing, bucket: int, type_: str) -> int:
  type_ = "f32" if type_ == "bf16" else type_
  source = grown.add(ops.PARAMETER, type_, bucket + grown.bucket(*_SUMMED))
  return grown.add(grown.choice(["reduce-add", "reduce-maximum"]), type_, bucket, [source])


def _gather(grown: _Growing, bucket: int, type_: str) -> int:
  table = grown.add(ops.PARAMETER, type_, grown.bucket(17, 19))
  rows = grown.add(ops.PARAMETER, "s32", grown.bucket(9, 11))
  return grown.add(ops.GATHER, type_, bucket, [table, rows])


def _transpose(grown: _Growing, bucket: int, type_: str) -> int:
  return grown.add(ops.TRANSPOSE, type_, bucket, [grown.add(ops.PARAMETER, type_, bucket)])


def _concatenate(grown: _Growing, bucket: int, type_: str) -> int:
  parts = [grown.add(ops.PARAMETER, type_, bucket - 1) for _ in range(2)]
  return grown.add(ops.CONCATENATE, type_, bucket, parts)


def _elementwise(grown: _Growing, bucket: int, type_: str) -> int:
  operands = [grown.add(ops.PARAMETER, type_, bucket) for _ in range(2)]
  return grown.add("multiply", type_, bucket, operands)


_CORES: dict[str, Callable[[_Growing, int, str], int]] = {
    "dot": _dot, "convolution": _convolution, "reduce": _reduce, "gather": _gather,
    "transpose": _transpose, "concatenate": _concatenate, "elementwise": _elementwise}


def _able(table: dict[str, frozenset], type_: str) -> list[str]:
  return sorted(name for name, types in table.items() if type_ in types)


def _step(grown: _Growing, source: int, room: int) -> int:
  """One more operation on a node: of it alone, with a constant, another array, or a smaller one."""
  type_, bucket = grown.nodes[source][1:3]
  options: list[tuple[int, str]] = [(1, "unary"), (1, "square"), (2, "constant"), (2, "array"),
                                    (3, "broadcast"), (4, "select")]
  able = [name for nodes, name in options if nodes <= room]
  choice = grown.choice(able)
  binary = grown.choice(_able(ops.BINARY, type_))
  if choice == "unary":
    return grown.add(grown.choice(_able(ops.UNARY, type_)), type_, bucket, [source])
  if choice == "square":
    return grown.add("multiply" if type_ != "pred" else "and", type_, bucket, [source])
  if choice == "constant":
    return grown.add(binary, type_, bucket, [source, grown.add(ops.CONSTANT, type_, 0)])
  if choice == "array":
    return grown.add(binary, type_, bucket, [source, grown.add(ops.PARAMETER, type_, bucket)])
  if choice == "broadcast":
    small = grown.add(ops.PARAMETER, type_, grown.bucket(1, max(bucket - 3, 1)))
    return grown.add(binary, type_, bucket, [
        source, grown.add(ops.BROADCAST, type_, bucket, [small])])
  one, other = (grown.add(ops.PARAMETER, type_, bucket) for _ in range(2))
  compared = grown.add(ops.COMPARE, "pred", bucket, [source, one])
  return grown.add(ops.SELECT, type_, bucket, [compared, source, other])


def _in_front(grown: _Growing) -> None:
  """A unary operation between an array that is given and what takes it."""
  given = [node for node, entry in enumerate(grown.nodes)
           if entry[0] == ops.PARAMETER and entry[1] in ops.NUMBERS and entry[2] > 0]
  node = given[int(grown.rng.integers(len(given)))]
  type_, bucket = grown.nodes[node][1:3]
  if any(entry[0] == ops.GATHER and entry[3][1] == node for entry in grown.nodes):
    return
  source = grown.add(ops.PARAMETER, type_, bucket)
  grown.nodes[node] = [grown.choice(_able(ops.UNARY, type_)), type_, bucket, [source]]
