"""Realizes many programs from one source of graphs, and reports refusals and repairs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
from typing import Any, NamedTuple

import numpy as np

from tpugraphs_rank import commands
from tpugraphs_rank import errors
from tpugraphs_rank.synthesis.programs import controls
from tpugraphs_rank.synthesis.programs import nodes as nodes_lib
from tpugraphs_rank.synthesis.programs import operations
from tpugraphs_rank.synthesis.programs import programs
from tpugraphs_rank.synthesis.programs import realization
from tpugraphs_rank.synthesis.programs import realizer

Graph = list[nodes_lib.Node]
CONTROLS: dict[str, Callable[..., Graph]] = {
    "random": controls.typed_random, "template": controls.template}
# Limits for each kind of collection. Layout programs contain several operations whose layouts can
# be requested; for smaller tensors the cost of a layout is lost in measurement noise.
LIMITS: Mapping[str, realization.Limits] = {
    "tile": realization.Limits(),
    "layout": realization.Limits(elements=2 ** 20, work=2.0 ** 27, sites=3, site_elements=2 ** 11,
                             tries=12)}
# Give up when this many graphs per program were refused: the source repeats itself.
_MAX_GRAPHS_PER_PROGRAM = 20


class Target(NamedTuple):
  """Properties that a control must match: kind, number of nodes, number of sites (0: any)."""

  kind: str
  nodes: int
  sites: int = 0


@dataclasses.dataclass
class RealizedPrograms:
  """Programs, and statistics of their realization.

  Attributes:
    programs: distinct programs.
    graphs: number of graphs tried.
    refused: reason -> number of graphs; "repeated": the program existed already.
    repairs: kind of repair -> nodes; see `realization.Outcome`.
    nodes: total nodes of all graphs tried.
    missed_buckets: nodes of programs whose size differs from the requested one.
    repaired: the mean over the programs of the share of repaired nodes.
  """

  programs: list[programs.RunnableProgram]
  graphs: int
  refused: dict[str, int]
  repairs: dict[str, int]
  nodes: int
  missed_buckets: int
  repaired: float

  @property
  def realized_share(self) -> float:
    """The share of graphs that became programs, repeated ones included.

    Graphs with too few sites do not count where sites are required: they were never candidates.
    """
    not_candidates = self.refused.get(realization.SITES, 0)
    refused = sum(self.refused.values()) - self.refused.get("repeated", 0) - not_candidates
    return 1 - refused / max(self.graphs - not_candidates, 1)

  def report(self) -> dict[str, Any]:
    """The statistics as JSON; the key names are part of the file format."""
    kinds = [nodes_lib.kind(program.dataflow()) for program in self.programs]
    sites = [programs.sites(program.nodes) for program in self.programs]
    return {"programs": len(self.programs), "graphs": self.graphs, "realised": self.realized_share,
            "refused": self.refused, "repairs": self.repairs, "nodes": self.nodes,
            "repaired_share": self.repaired, "missed_buckets": self.missed_buckets,
            "sites": sum(sites) / max(len(sites), 1),
            "kinds": {kind: kinds.count(kind) for kind in operations.KINDS if kind in kinds}}


def realize_graphs(graphs: Iterator[Graph], count: int, source: str, seed: int,
                   limits: realization.Limits = realization.DEFAULT_LIMITS, first_number: int = 0
                   ) -> RealizedPrograms:
  """Realizes graphs as programs until there are enough.

  Args:
    graphs: the graphs; the iterator may be endless.
    count: number of programs wanted.
    source: prefix of the programs' names.
    seed: seed of shapes and constants; each graph is realized with a seed derived from its number.
    limits: when a graph is refused.
    first_number: number of the first graph; it keeps the names of several calls distinct.

  Raises:
    DataError: almost no graph becomes a program.
  """
  result = RealizedPrograms([], 0, {}, dict.fromkeys(realizer.REPAIRS, 0), 0, 0, 0.0)
  shares: list[float] = []
  seen = set()
  for number, graph in enumerate(graphs, first_number):
    outcome = realization.realize(
        graph, source, number, np.random.default_rng([seed, number]), limits)
    result.graphs += 1
    result.nodes += outcome.nodes
    refused = outcome.refused
    for kind, nodes in outcome.repairs.items():
      result.repairs[kind] += nodes
    if outcome.program is not None:
      without_values = tuple(dataclasses.replace(node, value=0.0) for node in outcome.program.nodes)
      if without_values in seen:
        refused = "repeated"
      else:
        seen.add(without_values)
        result.programs.append(outcome.program)
        result.missed_buckets += outcome.missed_buckets
        shares.append(outcome.repaired)
    if refused:
      result.refused[refused] = result.refused.get(refused, 0) + 1
    if len(result.programs) == count:
      break
    if result.graphs > _MAX_GRAPHS_PER_PROGRAM * (len(result.programs) + 10):
      raise errors.DataError(
          f"of {result.graphs} graphs {len(result.programs)} became programs (refused: "
          f"{result.refused}); train the generator longer, or on more graphs")
  result.repaired = float(np.mean(shares)) if shares else 0.0
  return result


def targets(synthetic: Sequence[programs.RunnableProgram],
            limits: realization.Limits = realization.DEFAULT_LIMITS) -> list[Target]:
  """What controls must match; the number of sites only where programs need sites."""
  return [Target(nodes_lib.kind(program.dataflow()), len(program.nodes),
                 programs.sites(program.nodes) if limits.sites else 0) for program in synthetic]


def realize_controls(source: str, matched: Sequence[Target], seed: int,
                      limits: realization.Limits = realization.DEFAULT_LIMITS, first_number: int = 0
                      ) -> RealizedPrograms:
  """Realizes control programs, which involve no learning, with given kinds and sizes.

  Args:
    source: "random" or "template"; see `controls`.
    matched: the properties of each program.
    seed: seed of all random choices.
    limits: when a graph is refused.
    first_number: see `realize_graphs`.

  Raises:
    UnknownNameError: the source does not exist.
  """
  if source not in CONTROLS:
    raise errors.UnknownNameError(f"no source {source!r}; expected one of {', '.join(CONTROLS)}")
  control = CONTROLS[source]

  def graphs() -> Iterator[Graph]:
    turn = 0
    while True:
      # When a graph is refused, another of its kind and size is tried in a later round.
      kind, size, sites = matched[turn % len(matched)]
      yield control(kind, size, np.random.default_rng([seed, turn, 1]), sites)
      turn += 1

  return realize_graphs(graphs(), len(matched), source, seed, limits, first_number)


def as_json(realized: RealizedPrograms, about: Mapping[str, Any]) -> dict[str, Any]:
  """The content of the file that the collector measures."""
  return {**about, "realisation": realized.report(),
          "programs": [program.to_json() for program in realized.programs]}


def from_json(value: Any, where: str) -> list[programs.RunnableProgram]:
  """Reads the programs of a file that `as_json` describes.

  Raises:
    DataError: the value has another content.
  """
  if not isinstance(value, dict) or not isinstance(value.get("programs"), list):
    raise errors.DataError(f"{where} holds no programs; expected a file that "
                           f"{commands.command('synthesize')} wrote")
  if not value["programs"]:
    raise errors.DataError(f"{where} holds no programs; generate at least one")
  result = []
  for number, entry in enumerate(value["programs"]):
    try:
      result.append(programs.RunnableProgram.from_json(entry))
    except errors.DataError as error:
      raise type(error)(f"{where}: program {number}: {error}") from error
  return result
