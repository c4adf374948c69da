"""The traces that `chakra synthesize` writes."""

import collections
import pathlib

from tpugraphs_rank import errors
from tpugraphs_rank.chakra import costs as costs_lib
from tpugraphs_rank.chakra import exporting
from tpugraphs_rank.synthesis.dags import dags as dags_lib

# Share of nodes without cost. The export fuses them; linked PyTorch traces have 5 %, traces of the
# host alone over 90 %.
MOST_WITHOUT_COST = 0.5


def check_costs(traces: dags_lib.Dags, training: dags_lib.Dags, costs: costs_lib.Costs | None
                ) -> None:
  """Checks, before a generator is trained, that graphs like the training graphs can be exported.

  Args:
    traces: the graphs of the whole traces.
    training: sub-graphs of them.
    costs: costs that the user gives.

  Raises:
    DataError: more than half of the nodes of the training graphs have no cost, or the costs name
      an unknown value, or a value cannot be exported.
  """
  if costs is not None:
    costs_lib.check(costs, exporting.vocabularies(traces))
  lacking: collections.Counter[str] = collections.Counter()
  for nodes, costless in exporting.without_cost(training, costs):
    lacking.update(name for name, without in zip(nodes.names, costless.tolist()) if without)
  count, total = lacking.total(), int(training.sizes.sum())
  if count > MOST_WITHOUT_COST * total:
    shown = ", ".join(repr(word) for word, _ in lacking.most_common(3))
    raise errors.DataError(
        f"{count:,} of the {total:,} nodes of the training sub-graphs have no cost, so that little "
        "would remain of graphs like them; expected durations, or operations and bytes; give costs "
        f"of operators such as {shown} in a file (--costs), or use traces that state durations")


def write(folder: pathlib.Path, graphs: dags_lib.Dags, ranks: int,
          costs: costs_lib.Costs | None = None) -> exporting.Report:
  """Writes graphs as traces. Costs for values that the graphs lack are ignored."""
  if costs is not None:
    words = exporting.vocabularies(graphs)[costs.attribute]
    costs = costs_lib.of_values(costs, dict(zip(words, words)))
  return exporting.write(folder, graphs, exporting.Settings(ranks=ranks, costs=costs))


def exportable(graphs: dags_lib.Dags, costs: costs_lib.Costs | None) -> dags_lib.Dags:
  """The graphs of which at least one node has a cost.

  Raises:
    DataError: there is none.
  """
  kept = [graph for graph, (_, costless) in enumerate(exporting.without_cost(graphs, costs))
          if not costless.all()]
  if not kept:
    raise errors.DataError(
        f"no node of the {len(graphs)} synthetic graphs has a cost; expected durations, or "
        "operations and bytes; give the costs of more operators in a file (--costs)")
  return graphs.take(kept)
