"""Write the graphs that LayerDAG trains on.

  tpugraphs-rank layerdag graphs --collection tile:xla_cpu --output runs/dags/kernels.npz
  tpugraphs-rank layerdag graphs --collection tile:xla --output runs/dags/tpu.npz
  tpugraphs-rank layerdag graphs --collection layout:xla:random --max_nodes 200 \\
    --subgraphs 50 --attributes opcode,element_type,shape_bucket --output runs/dags/cones.npz
  tpugraphs-rank layerdag graphs --rule balanced --count 500 --nodes 400 --seed 0 \\
    --output runs/dags/balanced.npz

The graphs come from a collection (--collection), from a rule-based family (--rule) or from an
existing file (--graphs). `tile:xla` (download it first: `tpugraphs-rank download --collections
tile:xla`) gives the labelled TPU kernel graphs of LayerDAG's authors, 6,385 with runtimes. Their
nodes have opcodes, and their label is the mean of runtime / normalizer over the configurations.
Programs with more than --max_nodes nodes are left out. With --subgraphs N, the command takes N
operand cones of each program instead; they have no label.

With --divide, the command writes three files instead of one: OUTPUT_train.npz, _valid.npz and
_test.npz, with 60 / 20 / 20 % of the graphs, and equal graphs in the same file. --graphs FILE
divides an existing file:

  tpugraphs-rank layerdag graphs --graphs kernels.npz --divide --output runs/dags/kernels.npz

--rule balanced generates graphs in which the operands of a node are balanced over the kinds: their
numbers differ by at most one. `tpugraphs_rank.synthesis.dags.rules` defines the rule and checks it.
"""

import pathlib

from absl import flags
import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank.synthesis.dags import dags
from tpugraphs_rank.synthesis.dags import extraction
from tpugraphs_rank.synthesis.dags import rules

# The flags that apply to one source only.
_FLAGS_OF_SOURCE: dict[str, tuple[str, ...]] = {
    "collection": ("splits", "attributes", "max_nodes", "subgraphs", "data_root",
                   "partial"),
    "rule": ("count", "nodes", "min_nodes"), "graphs": ()}


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("output", None, "The .npz file to write.", required=True)
  flags.DEFINE_string("collection", None, "Name of a collection, or path of its JSON descriptor.")
  flags.DEFINE_enum("rule", None, ["balanced"], "Generate graphs that obey a rule instead.")
  flags.DEFINE_string("graphs", None, "Use the graphs in this file instead.")
  flags.DEFINE_boolean("divide", False, "Write three files: training, validation and test graphs.")
  flags.DEFINE_list("splits", None, "Splits, comma-separated. By default all that have "
                    "runtimes.")
  flags.DEFINE_list("attributes", ["opcode"], "Attributes of a node, from: "
                    f"{', '.join(extraction.ATTRIBUTES)}.")
  flags.DEFINE_integer("max_nodes", None, "Leave out programs with more nodes. With --subgraphs, "
                       "the maximum nodes of a subgraph.", lower_bound=1)
  flags.DEFINE_integer("subgraphs", 0, "Number of operand cones to take from each program, instead "
                       "of the whole program.", lower_bound=0)
  flags.DEFINE_integer("count", 500, "Number of graphs, with --rule.", lower_bound=1)
  flags.DEFINE_integer("nodes", 400, "Maximum nodes of a graph, with --rule.", lower_bound=1)
  flags.DEFINE_integer("min_nodes", None, "Minimum nodes of a graph, with --rule. By default half "
                       "of --nodes.", lower_bound=1)
  flags.DEFINE_integer("seed", 0, "Seed of the random choices: roots of cones, graphs of the rule, "
                       "and the division.")
  flags.DEFINE_string("data_root", None, "Folder of the public collections. By default "
                      "TPUGRAPHS_RANK_DATA, then the data folder of this platform.")
  flags.DEFINE_bool("partial", False, "If graphs of the collection are missing, use those that "
                    "exist.")


def summary(graphs: dags.Dags) -> str:
  """One line of counts."""
  attributes = ", ".join(
      f"{len(words)} {name} values" for name, words in zip(graphs.x_names, graphs.vocabularies))
  return (f"{len(graphs)} graphs, {len(graphs.x)} nodes ({graphs.sizes.min()} to "
          f"{graphs.sizes.max()} per graph), {len(graphs.src)} edges, up to "
          f"{graphs.depths.max()} levels, {len(np.unique(graphs.wl))} distinct structures, "
          f"{attributes}, labels: {', '.join(graphs.y_names) or 'none'}")


def main(argv: list[str]) -> None:
  """Runs the command."""
  values = flags.FLAGS
  source = _source(values)
  left_out: str | None = None
  if source == "graphs":
    graphs = dags.load(values.graphs)
  elif source == "rule":
    graphs = rules.balanced(values.count, values.nodes, values.seed, values.min_nodes)
  else:
    graphs, programs, count = extraction.extract(
        values.collection, values.splits, values.attributes, values.max_nodes, values.subgraphs,
        values.seed, values.data_root, values.partial)
    left_out = f"{count} of {programs} programs left out"
  output = pathlib.Path(values.output)
  parts = {output: graphs}
  if values.divide:
    parts = {}
    for split, rows in dags.split_by_wl(graphs, dags.SHARES, values.seed).items():
      origin = {**graphs.provenance, "split": split, "split_seed": values.seed}
      parts[output.with_name(f"{output.stem}_{split}.npz")] = graphs.take(
          rows).with_provenance(origin)
  for path, part in parts.items():
    dags.save(path, part)
  print(summary(graphs))
  if left_out:
    print(left_out)
  for path, part in parts.items():
    print(f"{len(part)} graphs: {path}")


def _source(values: flags.FlagValues) -> str:
  """The requested source. A flag of another source is refused, not ignored."""
  chosen = [source for source in _FLAGS_OF_SOURCE if values[source].value]
  if len(chosen) != 1:
    raise errors.ConfigError(
        "expected exactly one source of graphs: --collection, --rule or --graphs")
  for other, names in _FLAGS_OF_SOURCE.items():
    for name in names:
      if other != chosen[0] and values[name].present:
        raise errors.ConfigError(
            f"--{name} applies to --{other}; remove it from a command with --{chosen[0]}")
  return chosen[0]
