"""Learn from Chakra traces and write synthetic ones.

  tpugraphs-rank chakra synthesize --input traces/ --count 100 --output build/synthetic
  tpugraphs-rank chakra synthesize --input traces/ --count 100 --nodes 200:400 --obfuscate \\
    --output build/synthetic

The traces are cut into sub-graphs of consecutive levels, of at most 400 nodes. Sections of the
traces are divided into a training, a validation and a held-out part that share no node. A LayerDAG
learns the training part and samples new graphs: operators, devices, durations, operations, bytes
and collectives of each node, and the dependencies. OUTPUT/traces holds them as Chakra traces,
one file for each rank, all ranks with the same collectives in the same order.

Durations, operations and bytes are those of the traces, or those that --costs gives, a JSON file as
for `tpugraphs-rank chakra export`. Synthetic graphs of which no node has a cost are left out.

OUTPUT also holds the sub-graphs (training.npz, validation.npz, held_out.npz), the synthetic graphs
(synthetic.npz), the generator, and report.json. `tpugraphs-rank chakra compare --run OUTPUT`
compares synthetic with held-out graphs.

A damaged trace is reported and skipped; the exit status is then 3.

After an interruption, the same command resumes. A folder belongs to one set of traces and settings
of the training; --count, --nodes, --stitch, --ranks, --costs and --obfuscate may change. The
command then replaces the traces that it wrote, which OUTPUT/traces.json lists, and its other
results, and removes the files of `chakra compare` in OUTPUT/comparison. Files of yours stay.

--obfuscate draws the new names at random and stores them in OUTPUT/private_names.json. Pass on
OUTPUT/traces only: that file and the .npz files have the real names.
"""

import dataclasses
import logging
import pathlib
import re
import shlex
from typing import Any

from absl import flags
import numpy as np

from tpugraphs_rank import commands
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.chakra import costs as costs_lib
from tpugraphs_rank.chakra import exporting
from tpugraphs_rank.chakra import graphs as graphs_lib
from tpugraphs_rank.cli import app
from tpugraphs_rank.synthesis.dags import dags
from tpugraphs_rank.synthesis.traces import generation
from tpugraphs_rank.synthesis.traces import kinds
from tpugraphs_rank.synthesis.traces import outputs
from tpugraphs_rank.synthesis.traces import subgraphs

_log = logging.getLogger("tpugraphs_rank.chakra")

# Flags that decide on the training; a folder belongs to one set of them.
_OF_TRAINING = ("control", "max_operators", "subgraphs", "min_nodes", "max_nodes", "epochs",
                "calibration_rounds", "seed", "threads")


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_list("input", None, "Traces: files, or folders with files directly in them (.et, "
                    ".json, also .gz).", required=True)
  flags.DEFINE_string("output", None, "Folder of the results.", required=True)
  flags.DEFINE_integer("count", 100, "Number of synthetic graphs.", lower_bound=1)
  flags.DEFINE_string("nodes", None, "Numbers of nodes of the synthetic graphs, MIN:MAX. By "
                      "default those of the training graphs.")
  flags.DEFINE_bool("obfuscate", False, "Name operators op_1, op_2, ... and leave out all other "
                    "names.")
  flags.DEFINE_integer("stitch", 1, "Number of sampled graphs that are joined into one trace, one "
                       "after another.", lower_bound=1)
  flags.DEFINE_integer("ranks", 2, "Number of ranks of each synthetic trace.", lower_bound=1,
                       upper_bound=exporting.MAX_RANKS)
  flags.DEFINE_string("costs", None, "JSON file with the costs of kinds of nodes.")
  flags.DEFINE_integer("min_nodes", None, "Fewest nodes of a training sub-graph. By default 100, "
                       "or less if the traces are short.", lower_bound=2)
  flags.DEFINE_integer("max_nodes", subgraphs.MAX_NODES, "Most nodes of a training sub-graph.",
                       lower_bound=2)
  flags.DEFINE_integer("subgraphs", 240, "Number of training sub-graphs.", lower_bound=2)
  flags.DEFINE_bool("control", False, "Learn control dependencies as well as data dependencies.")
  flags.DEFINE_integer("max_operators", 100, "Number of operators to keep, the most frequent ones; "
                       "the others become \"other\". 0: all.", lower_bound=0)
  flags.DEFINE_integer("epochs", 18, "Epochs of the training. More epochs give graphs that are "
                       "more like the real ones, and reveal more.", lower_bound=1)
  flags.DEFINE_integer("calibration_rounds", 5, "Rounds of calibration after the training, so that "
                       "frequencies in the synthetic graphs are those of the training graphs. 0: "
                       "none.", lower_bound=0, upper_bound=100)
  flags.DEFINE_integer("seed", 0, "Seed of all random choices.", lower_bound=0, upper_bound=20_000)
  flags.DEFINE_integer("threads", 1, "Threads of TensorFlow.", lower_bound=1)


def node_range(text: str | None) -> tuple[int, int] | None:
  """The numbers in MIN:MAX, or in a single number.

  Raises:
    ConfigError: the text is something else.
  """
  if text is None:
    return None
  match = re.fullmatch(r"(\d{1,6})(?::(\d{1,6}))?", text.strip())
  low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
  if not 2 <= low <= high:
    raise errors.ConfigError(
        f"--nodes is {text!r}; expected MIN:MAX, two numbers of nodes of at least 2, such as "
        "200:400")
  return low, high


def main(argv: list[str]) -> int:
  """Runs the command."""
  del argv
  values = flags.FLAGS
  nodes = node_range(values.nodes)
  output = pathlib.Path(values.output)
  costs = costs_lib.read(values.costs) if values.costs else None
  settings = graphs_lib.Settings(
      control=values.control, reduced=True, max_operators=values.max_operators)
  paths = graphs_lib.trace_files(values.input)
  read = []
  for path in paths:
    try:
      graph = graphs_lib.read(path, settings)
    except errors.DataError as error:
      if len(paths) == 1:
        raise
      _log.warning("skipped: %s", error)
      continue
    read.append(graph)
    print(graph.report)
  if not read:
    raise errors.DataError(
        f"none of the {len(paths)} traces can be read; see the messages above")
  traces, messages = kinds.without_messages(graphs_lib.to_dags(read, settings))
  if messages:
    print(f"{messages:,} sends and receives left out: synthetic ones would have no partners")
  divided = subgraphs.divide(traces, values.subgraphs, values.min_nodes, values.max_nodes,
                             values.seed)
  print("sub-graphs: " + ", ".join(
      f"{len(graphs)} {part.replace('_', '-')}" for part, graphs in divided.parts.items())
      + f", of at least {divided.min_nodes} nodes; {divided.repeated} repeated traces and "
      f"{divided.twins} sub-graphs like training ones left out", flush=True)
  _warn_of_sizes(nodes, divided.parts["training"].sizes)
  outputs.check_costs(traces, divided.parts["training"], costs)
  outputs.check_settings(output, {
      f"--{name}": values[name].value for name in _OF_TRAINING}, traces)
  for part, graphs in divided.parts.items():
    dags.save(output / f"{part}.npz", graphs)

  # TensorFlow: only once the traces are known to be right.
  from tpugraphs_rank.training import runtime
  runtime.configure(values.seed, values.threads)
  model = generation.train(divided.parts, output, {
      "fit.seed": values.seed, "fit.epochs": values.epochs, "fit.patience": max(values.epochs, 5),
      "fit.calibration_rounds": values.calibration_rounds, "fit.threads": values.threads})
  training = kinds.join(divided.parts["training"])
  requested = generation.sizes(values.count * values.stitch, nodes, training, values.seed)
  sampled = generation.sample(model, training, requested, values.seed, output / "samples")
  synthetic = kinds.separate(generation.stitch(sampled.graphs, values.stitch), traces.x_names)
  synthetic = synthetic.with_provenance({
      "made_by": "tpugraphs-rank chakra synthesize", "model": model.hash(), "seed": values.seed,
      "stitched": values.stitch, "buckets": traces.provenance["buckets"]})
  _remove_other_comparison(output, synthetic)
  dags.save(output / "synthetic.npz", synthetic)
  exported = outputs.exportable(synthetic, costs)
  names = outputs.private_names(output, exported) if values.obfuscate else None
  written = outputs.write(output, exported, values.ranks, costs, names)
  figures = _figures(sampled, requested, divided, values)
  files.write_json(output / "report.json", {
      **figures, "without_cost": len(synthetic) - len(exported),
      "export": dataclasses.asdict(written)})
  print(f"{len(synthetic)} synthetic graphs of {synthetic.sizes.min()} to "
        f"{synthetic.sizes.max()} nodes; {figures['within_a_quarter']:.0%} of the samples within a "
        f"quarter of the requested size, {figures['abandoned']:.1%} of the draws abandoned, "
        f"{figures['graphs_per_cpu_second']:.1f} graphs per CPU second")
  if len(exported) < len(synthetic):
    print(f"{len(synthetic) - len(exported)} graphs left out of the traces: none of their nodes "
          "has a cost")
  print(written)
  print(f"traces: {output / 'traces'}")
  print("next: " + commands.command("chakra", "compare", "--run", shlex.quote(str(output))))
  if len(read) < len(paths):
    _log.warning("skipped traces: %d of %d (exit status %d)", len(paths) - len(read), len(paths),
                 app.SOME_SKIPPED)
    return app.SOME_SKIPPED
  return 0


def _remove_other_comparison(output: pathlib.Path, synthetic: dags.Dags) -> None:
  """Removes the comparison of an earlier call that wrote other graphs."""
  if not (output / "comparison").is_dir() or not (output / "synthetic.npz").exists():
    return
  try:
    before = dags.load(output / "synthetic.npz")
    same = np.array_equal(before.wl, synthetic.wl) and np.array_equal(before.x, synthetic.x)
  except errors.OutOfMemoryError:
    raise
  except errors.TpuGraphsRankError:
    same = False
  if not same and outputs.remove_comparison(output / "comparison"):
    _log.warning("removed the files of `chakra compare` in %s, which are about the graphs of an "
                 "earlier call", output / "comparison")


def _warn_of_sizes(nodes: tuple[int, int] | None, sizes: np.ndarray) -> None:
  """Warns of requested sizes that no training graph comes near."""
  low, high = int(sizes.min()), int(sizes.max())
  if nodes is not None and not low <= nodes[0] <= nodes[1] <= high:
    _log.warning(
        "--nodes asks for graphs of %d to %d nodes, but the training sub-graphs have %d to %d; the "
        "generator has not seen other sizes, so such graphs may be unlike the traces; request "
        "sizes in that range, join graphs (--stitch), or change the training sub-graphs "
        "(--min_nodes, --max_nodes)", *nodes, low, high)


def _figures(sampled: generation.Sampled, requested: np.ndarray, divided: subgraphs.Divided,
             values: flags.FlagValues) -> dict[str, Any]:
  """The figures in report.json."""
  sizes = sampled.graphs.sizes
  return {
      "requested": len(requested), "seed": values.seed, "obfuscated": values.obfuscate,
      "within_a_quarter": float((np.abs(sizes - requested) <= 0.25 * requested).mean()),
      "abandoned": sampled.abandoned / (sampled.abandoned + len(requested)),
      "corrected_numbers": sampled.corrected, "cpu_seconds": round(sampled.cpu_seconds, 2),
      "graphs_per_cpu_second": len(requested) / max(sampled.cpu_seconds, 1e-9),
      "sub_graphs": {part: len(graphs) for part, graphs in divided.parts.items()},
      "sections": [dataclasses.asdict(section) for section in divided.sections],
      "repeated_traces": divided.repeated, "twins_left_out": divided.twins}
