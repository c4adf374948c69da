"""Realizes synthetic dataflow graphs as runnable programs: types, shapes and a few repairs.

A generated node states its operation, the type and approximate size of its result, and its
operands. The remaining properties are derived from the result towards the operands: nodes that
compute elementwise share one shape; broadcasts, reductions, products and so on derive their
operands' shapes from their own, as close as possible to the requested sizes. When two users need
different shapes of one node, the later user gets a new parameter instead: a repair, which is
counted.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from tpugraphs_rank.synthesis.programs import nodes as nodes_lib
from tpugraphs_rank.synthesis.programs import operations as ops
from tpugraphs_rank.synthesis.programs import programs
from tpugraphs_rank.synthesis.programs import realizer

# Reasons to refuse a graph. A graph with too few sites (SITES) may be a valid program, but has no
# layouts to request. Sites are lost (LOST_SITES) when the program has fewer than its graph, because
# its tensors are small or repaired.
SITES = "sites"
LOST_SITES = "lost_sites"
REFUSALS = ("one_node", "several_results", "operation", "operands", "constant", "repairs", "size",
            SITES, LOST_SITES)


@dataclasses.dataclass(frozen=True)
class Limits:
  """Limits beyond which a graph is refused.

  Attributes:
    repaired: largest share of repaired nodes.
    elements: largest number of elements of an array.
    work: largest number of arithmetic operations; a kernel runs for milliseconds.
    sites: smallest number of operations whose layouts can be requested (see `programs.sites`).
    site_elements: smallest size of the largest tensor of each site; the effect of smaller tensors
      is not measurable.
    tries: number of times that shapes are drawn; the accepted program with the fewest repairs is
      taken.
  """

  repaired: float = 0.5
  elements: int = 2 ** 24
  work: float = 2.0 ** 28
  sites: int = 0
  site_elements: int = 0
  tries: int = 1


DEFAULT_LIMITS = Limits()


@dataclasses.dataclass(frozen=True)
class Outcome:
  """The result for one graph.

  Attributes:
    program: the program; None where the graph is refused.
    refused: one of `REFUSALS`, or "".
    repairs: kind of repair -> nodes repaired in that way. "type": another element type; "operand":
      a new operand instead of an unsuitable or missing one; "operation": another operation;
      "left_out": no longer used.
    missed_buckets: nodes whose result does not have the requested size.
    nodes: number of nodes of the graph.
  """

  program: programs.RunnableProgram | None
  refused: str
  repairs: dict[str, int]
  missed_buckets: int
  nodes: int

  @property
  def repaired(self) -> float:
    """Repairs as a share of the graph's nodes."""
    return sum(self.repairs.values()) / self.nodes


def realize(nodes: Sequence[nodes_lib.Node], source: str, number: int, rng: np.random.Generator,
            limits: Limits = DEFAULT_LIMITS) -> Outcome:
  """Realizes one dataflow graph as a program.

  Args:
    nodes: operands before users, the result last.
    source: where the graph comes from; the program's name starts with it.
    number: number of the graph, used in the name.
    rng: source of shapes and constants.
    limits: when a graph is refused.
  """
  refused = _fault(nodes)
  if not refused and ops.count_sites(node.operation for node in nodes) < limits.sites:
    refused = SITES
  if refused:
    return Outcome(None, refused, dict.fromkeys(realizer.REPAIRS, 0), 0, len(nodes))
  outcome = _attempt(nodes, source, number, rng, limits)
  for _ in range(limits.tries - 1):
    if outcome.program is not None and not sum(outcome.repairs.values()):
      break
    outcome = min(outcome, _attempt(nodes, source, number, rng, limits),
                  key=lambda one: (one.program is None, sum(one.repairs.values())))
  return outcome


def _attempt(nodes: Sequence[nodes_lib.Node], source: str, number: int, rng: np.random.Generator,
             limits: Limits) -> Outcome:
  """Realizes a program with shapes that are drawn once."""
  maker = realizer.Realizer(nodes, rng)
  maker.run()
  outcome = Outcome(None, "", maker.repairs, maker.missed, len(nodes))
  if outcome.repaired > limits.repaired:
    return dataclasses.replace(outcome, refused="repairs")
  realized = maker.nodes()
  if not any(node.operation == ops.PARAMETER for node in realized):
    return dataclasses.replace(outcome, refused="constant")
  if (max(programs.elements(node.shape) for node in realized) > limits.elements
      or programs.work(realized) > limits.work or programs.elements(realized[-1].shape) < 8):
    return dataclasses.replace(outcome, refused="size")
  if limits.sites and programs.sites(realized, limits.site_elements) < limits.sites:
    in_graph = sum(node.operation in ops.SITES for node in nodes)
    return dataclasses.replace(outcome, refused=SITES if in_graph < limits.sites else LOST_SITES)
  kind = nodes_lib.kind(list(nodes))
  return dataclasses.replace(outcome, program=programs.RunnableProgram(
      f"{source}_{kind}.{number}.{realized[-1].type}", realized))


def _fault(nodes: Sequence[nodes_lib.Node]) -> str:
  """Why a graph cannot be a program with any shapes; or ""."""
  if len(nodes) < 2:
    return "one_node"
  used: set[int] = {operand for node in nodes for operand in node.operands}
  if used != set(range(len(nodes) - 1)):
    return "several_results"
  for node in nodes:
    if node.operation not in ops.ALL:
      return "operation"
    if len(node.operands) not in ops.ARITIES[node.operation]:
      return "operands"
  return "" if any(node.operation == ops.PARAMETER for node in nodes) else "constant"
