"""Many programs from one source of graphs, and what it took to make them runnable."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
from typing import Any, NamedTuple

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank.synthesis.programs import controls
from tpugraphs_rank.synthesis.programs import nodes as nodes_lib
from tpugraphs_rank.synthesis.programs import operations
from tpugraphs_rank.synthesis.programs import programs
from tpugraphs_rank.synthesis.programs import realization

Graph = list[nodes_lib.Node]
CONTROLS: dict[str, Callable[..., Graph]] = {
    "random": controls.typed_random, "template": controls.template}
# What is refused of each kind of collection. Layout programs hold several operations whose layouts
# can be requested; of smaller tensors the cost of a layout is lost in the noise.
LIMITS: Mapping[str, realization.Limits] = {
    "tile": realization.Limits(),
    "layout": realization.Limits(elements=2 ** 20, work=2.0 ** 27, sites=3, site_elements=2 ** 11,
                             tries=12)}
# Programs of which one more is not asked for: the source repeats itself.
_MOST_REFUSED = 20


class Target(NamedTuple):
  """What a control is matched in: kind, number of nodes, and number of sites (0: as it comes)."""

  kind: str
  nodes: int
  sites: int = 0


@dataclasses.dataclass
class RealizedPrograms:
  """Programs and the account of how they were made.

  Attributes:
    programs: no two alike.
    graphs: that were tried.
    refused: why -> how many; "repeated" where a program was there already.
    repairs: kind of repair -> nodes; see `realization.Outcome`.
    nodes: of all graphs that were tried.
    missed_buckets: nodes of programs whose size is not the one that the graph asked for.
    repaired: the mean over the programs of the share of nodes repaired.
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
    """The share of the graphs that became programs, repeated ones among them.

    Of graphs with sites enough, where these are asked for: others were never meant to be programs.
    """
    unasked = self.refused.get(realization.SITES, 0)
    refused = sum(self.refused.values()) - self.refused.get("repeated", 0) - unasked
    return 1 - refused / max(self.graphs - unasked, 1)

  def report(self) -> dict[str, Any]:
    """The account as JSON."""
    kinds = [nodes_lib.kind(program.dataflow()) for program in self.programs]
    sites = [programs.sites(program.nodes) for program in self.programs]
    return {"programs": len(self.programs), "graphs": self.graphs, "realised": self.realized_share,
            "refused": self.refused, "repairs": self.repairs, "nodes": self.nodes,
            "repaired_share": self.repaired, "missed_buckets": self.missed_buckets,
            "sites": sum(sites) / max(len(sites), 1),
            "kinds": {kind: kinds.count(kind) for kind in operations.KINDS if kind in kinds}}


def realize_graphs(graphs: Iterator[Graph], count: int, source: str, seed: int,
              limits: realization.Limits = realization.Limits(), first_number: int = 0) -> RealizedPrograms:
  """Makes programs of graphs until there are enough.

  Args:
    graphs: as many as are drawn; the iterator may be endless.
    count: of the programs.
    source: in the programs' names.
    seed: of shapes and constants; graph number i is made with a seed of its own.
    limits: what is refused.
    first_number: of the graphs; programs of several calls are told apart by their numbers.

  Raises:
    DataError: hardly any graph becomes a program.
  """
  found = RealizedPrograms([], 0, {}, dict.fromkeys(realization.REPAIRS, 0), 0, 0, 0.0)
  shares: list[float] = []
  seen = set()
  for number, graph in enumerate(graphs, first_number):
    outcome = realization.realize(graph, source, number, np.random.default_rng([seed, number]), limits)
    found.graphs += 1
    found.nodes += outcome.nodes
    refused = outcome.refused
    for kind, nodes in outcome.repairs.items():
      found.repairs[kind] += nodes
    if outcome.program is not None:
      alike = tuple(dataclasses.replace(node, value=0.0) for node in outcome.program.nodes)
      if alike in seen:
        refused = "repeated"
      else:
        seen.add(alike)
        found.programs.append(outcome.program)
        found.missed_buckets += outcome.missed_buckets
        shares.append(outcome.repaired)
    if refused:
      found.refused[refused] = found.refused.get(refused, 0) + 1
    if len(found.programs) == count:
      break
    if found.graphs > _MOST_REFUSED * (len(found.programs) + 10):
      raise errors.DataError(
          f"of {found.graphs} graphs {len(found.programs)} became programs (refused: "
          f"{found.refused}); train the generator longer, or on more graphs")
  found.repaired = float(np.mean(shares)) if shares else 0.0
  return found


def targets(made: Sequence[programs.RunnableProgram], limits: realization.Limits = realization.Limits()
            ) -> list[Target]:
  """What controls are matched in; the number of sites only where programs need some."""
  return [Target(nodes_lib.kind(program.dataflow()), len(program.nodes),
                 programs.sites(program.nodes) if limits.sites else 0) for program in made]


def realize_controls(source: str, matched: Sequence[Target], seed: int,
               limits: realization.Limits = realization.Limits(), first_number: int = 0) -> RealizedPrograms:
  """Programs of graphs that nothing was learned for, of given kinds and numbers of nodes.

  Args:
    source: "random" or "template"; see `controls`.
    matched: what each is to be.
    seed: of everything.
    limits: what is refused.
    first_number: see `realize_graphs`.

  Raises:
    UnknownNameError: another source.
  """
  if source not in CONTROLS:
    raise errors.UnknownNameError(f"no source {source!r}; one of {', '.join(CONTROLS)}")
  make = CONTROLS[source]

  def graphs() -> Iterator[Graph]:
    turn = 0
    while True:
      # Where one is refused, another of its kind and size is tried later.
      kind, size, sites = matched[turn % len(matched)]
      yield make(kind, size, np.random.default_rng([seed, turn, 1]), sites)
      turn += 1

  return realize_graphs(graphs(), len(matched), source, seed, limits, first_number)


def as_json(made: RealizedPrograms, about: Mapping[str, Any]) -> dict[str, Any]:
  """The file that the collector measures."""
  return {**about, "realisation": made.report(),
          "programs": [program.to_json() for program in made.programs]}


def from_json(value: Any, where: str) -> list[programs.RunnableProgram]:
  """The programs of such a file.

  Raises:
    DataError: it holds something else.
  """
  if not isinstance(value, dict) or not isinstance(value.get("programs"), list):
    raise errors.DataError(f"{where} holds no programs; expected a file that python -m "
                           "tpugraphs_rank.cli.synthesize wrote")
  return [programs.RunnableProgram.from_json(entry) for entry in value["programs"]]
