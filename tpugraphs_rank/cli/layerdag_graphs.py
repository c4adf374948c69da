"""Graphs as LayerDAG trains on them: those of a collection, or of a rule-based family.

  python -m tpugraphs_rank.cli.layerdag_graphs --collection tile:xla_cpu --output runs/dags/kernels.npz
  python -m tpugraphs_rank.cli.layerdag_graphs --collection tile:xla --output runs/dags/tpu.npz
  python -m tpugraphs_rank.cli.layerdag_graphs --collection layout:xla:random --max_nodes 200 \\
    --subgraphs 50 --attributes opcode,element_type,shape_bucket --output runs/dags/cones.npz
  python -m tpugraphs_rank.cli.layerdag_graphs --rule balanced --count 500 --nodes 400 --seed 0 \
    --output runs/dags/balanced.npz

`tile:xla` (first `python -m tpugraphs_rank.cli.download --collections tile:xla`) gives the labelled TPU
kernel graphs of LayerDAG's authors, 6,385 with runtimes: opcodes, and the mean over the
configurations of runtime / normalizer. Programs larger than --max_nodes are left out; with
--subgraphs, so many operand cones of each program are taken instead, which have no label.

With --divide, three files are written instead of one, <output>_train.npz, _valid.npz and _test.npz,
60 / 20 / 20 %, no two equal graphs in two of them. `--graphs FILE` divides a file that is there:

  python -m tpugraphs_rank.cli.layerdag_graphs --graphs kernels.npz --divide --output runs/dags/kernels.npz

`--rule balanced` makes graphs whose nodes have equally many operands of each kind, give or take
one; `tpugraphs_rank.synthesis.dags.rules` says how, and checks any graphs for it.
"""

import pathlib

from absl import flags
import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank.synthesis.dags import dags
from tpugraphs_rank.synthesis.dags import extraction
from tpugraphs_rank.synthesis.dags import rules

# Flags that say something about one of the sources only.
_OF: dict[str, tuple[str, ...]] = {
    "collection": ("splits", "attributes", "max_nodes", "subgraphs", "data_root"),
    "rule": ("count", "nodes", "min_nodes"), "graphs": ()}


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("output", None, "The .npz file to write.", required=True)
  flags.DEFINE_string("collection", None, "Name of a collection, or path of its JSON descriptor.")
  flags.DEFINE_enum("rule", None, ["balanced"], "Make graphs that obey a rule instead.")
  flags.DEFINE_string("graphs", None, "Take the graphs of this file instead.")
  flags.DEFINE_boolean("divide", False, "Write three files, for training, validation and test.")
  flags.DEFINE_list("splits", None, "Splits, comma-separated; otherwise all that have runtimes.")
  flags.DEFINE_list("attributes", ["opcode"], "Attributes of a node, some of "
                    f"{', '.join(extraction.ATTRIBUTES)}.")
  flags.DEFINE_integer("max_nodes", None, "Leave out programs with more nodes; of --subgraphs, the "
                       "most nodes of one.", lower_bound=1)
  flags.DEFINE_integer("subgraphs", 0, "Take so many operand cones of each program instead of the "
                       "programs.", lower_bound=0)
  flags.DEFINE_integer("count", 500, "Graphs of the rule.", lower_bound=1)
  flags.DEFINE_integer("nodes", 400, "Most nodes of a graph of the rule.", lower_bound=1)
  flags.DEFINE_integer("min_nodes", None, "Fewest nodes of a graph of the rule; otherwise half of "
                       "--nodes.", lower_bound=1)
  flags.DEFINE_integer("seed", 0, "Of random choices: roots, the rule's graphs, "
                       "and the division.")
  flags.DEFINE_string("data_root", None, "Folder of the public collections; otherwise "
                      "TPUGRAPHS_RANK_DATA, then the platform's.")


def counts(graphs: dags.Dags) -> str:
  """One line that says what there is."""
  attributes = ", ".join(
      f"{len(words)} {name} values" for name, words in zip(graphs.x_names, graphs.vocabularies))
  return (f"{len(graphs)} graphs, {len(graphs.x)} nodes ({graphs.sizes.min()} to "
          f"{graphs.sizes.max()} a graph), {len(graphs.src)} edges, up to {graphs.depths.max()} "
          f"levels, {len(np.unique(graphs.wl))} distinct structures, {attributes}, labels: "
          f"{', '.join(graphs.y_names) or 'none'}")


def main(argv: list[str]) -> None:
  """Runs the command."""
  values = flags.FLAGS
  source = _source(values)
  said: str | None = None
  if source == "graphs":
    made = dags.load(values.graphs)
  elif source == "rule":
    made = rules.balanced(values.count, values.nodes, values.seed, values.min_nodes)
  else:
    made, programs, left_out = extraction.extract(
        values.collection, values.splits, values.attributes, values.max_nodes, values.subgraphs,
        values.seed, values.data_root)
    said = f"{left_out} of {programs} programs left out"
  output = pathlib.Path(values.output)
  parts = {output: made}
  if values.divide:
    parts = {}
    for split, rows in dags.split_by_wl(made, dags.SHARES, values.seed).items():
      origin = {**made.provenance, "split": split, "split_seed": values.seed}
      parts[output.with_name(f"{output.stem}_{split}.npz")] = made.take(
          rows).with_provenance(origin)
  for path, part in parts.items():
    dags.save(path, part)
  print(counts(made))
  if said:
    print(said)
  for path, part in parts.items():
    print(f"{len(part)} graphs: {path}")


def _source(values: flags.FlagValues) -> str:
  """Which of the sources is asked for; a flag of another is refused, not ignored."""
  given = [source for source in _OF if values[source].value]
  if len(given) != 1:
    raise errors.ConfigError(
        "expected one of --collection, --rule and --graphs, where the graphs come from")
  for other, names in _OF.items():
    for name in names:
      if other != given[0] and values[name].present:
        raise errors.ConfigError(f"--{name} is for --{other}; with --{given[0]}, leave it out")
  return given[0]
