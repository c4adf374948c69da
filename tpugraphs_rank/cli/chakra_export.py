"""Write graphs as Chakra traces for simulators, one for each rank.

  tpugraphs-rank chakra export --graphs runs/traces.npz --output traces/ --ranks 8
  tpugraphs-rank chakra export --graphs runs/dags.npz --output traces/ --costs costs.json

The graphs come from `tpugraphs-rank chakra import`, or from a LayerDAG that was trained on such
graphs. Graphs of the ranks of one run become its ranks again, and the command checks that all ranks
run the same collectives in the same order. Any other graph runs on --ranks ranks alike. The files
are OUTPUT/WORKLOAD.RANK.et.

Durations, operations and bytes are the numbers of the buckets that the file of graphs stores, or
those that --costs gives, a JSON file:

  {"attribute": "operator",
   "costs": {"aten::mm": {"num_ops": 4194304, "tensor_size": 98304, "duration_micros": 12}}}

Simulators hang on nodes without cost or compute wrong times: compute without a duration that lacks
operations or bytes, memory and communication without bytes, metadata. By default such a node is
fused: what waited for it waits for what it waited for. --zero_cost refuse makes it an error;
--zero_cost keep writes the graph as it is.
"""

import pathlib

from absl import flags

from tpugraphs_rank import commands
from tpugraphs_rank import errors
from tpugraphs_rank.chakra import costs as costs_lib
from tpugraphs_rank.chakra import exporting
from tpugraphs_rank.chakra import graphs
from tpugraphs_rank.synthesis.dags import dags


def define_flags() -> None:
  """Defines the command's flags."""
  default = exporting.Settings()
  flags.DEFINE_string("graphs", None, "The .npz file of graphs.", required=True)
  flags.DEFINE_string("output", None, "Folder of the traces. It must not contain traces yet.",
                      required=True)
  flags.DEFINE_integer("ranks", default.ranks, "Number of ranks that run each graph. By default "
                       "the graphs of a run are its ranks, and another graph runs on one.",
                       lower_bound=1, upper_bound=exporting.MAX_RANKS)
  flags.DEFINE_enum("zero_cost", default.zero_cost, list(exporting.ZERO_COST),
                    "What happens to nodes without cost.")
  flags.DEFINE_string("costs", None, "JSON file with the costs of kinds of nodes.")
  flags.DEFINE_integer("dims", default.dims, "Network dimensions that a collective spans, if the "
                       "graph does not say.", lower_bound=1, upper_bound=64)
  flags.DEFINE_bool("hide_names", default.hide_names, "Write node types instead of the names of "
                    "operators.")
  flags.DEFINE_bool("compress", False, "Compress the traces with gzip.")
  flags.DEFINE_enum("format", "et", ["et", "json"], "The binary form, or the JSON form of the "
                    "reference jsonizer.")


def main(argv: list[str]) -> None:
  """Runs the command."""
  values = flags.FLAGS
  costs = costs_lib.read(values.costs) if values.costs else None
  settings = exporting.Settings(values.ranks, values.zero_cost, costs, values.dims,
                                values.hide_names)
  try:
    several = dags.load(values.graphs)
  except errors.DataError as error:
    if not values.graphs.endswith(graphs.SUFFIXES):
      raise
    command = commands.command("chakra import", "--input", values.graphs, "--output", "graphs.npz")
    raise errors.DataError(f"{values.graphs} is no file of graphs; {command} makes graphs of "
                           "traces") from error
  report = exporting.write(values.output, several, settings, values.compress, values.format)
  print(report)
  print(f"traces: {pathlib.Path(values.output)}")
