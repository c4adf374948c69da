"""Judges a run's ranker on a split, beside baselines, and writes tables and plots.

  python -m tpugraphs_rank.cli.evaluate --run_dir runs/first
  python -m tpugraphs_rank.cli.evaluate --run_dir runs/first --split valid --baselines random
  python -m tpugraphs_rank.cli.evaluate --run_dir runs/nlp --split valid --configurations published

Writes into `--output` (by default `<run_dir>/evaluation/<split>`):

  per_graph.csv                    one row a ranker and graph
  metrics.json                     means, by family and by group, seen and unseen groups apart, and
                                   what the model gains over each baseline, with intervals
  training_curves.png              loss and OPA against epochs
  rank_against_runtime_<model>.png predicted rank against runtime
  slowdown_against_k.png           slowdown of the best of K, model and baselines
  tau_by_family.png                tau of each family, model and baselines
"""

from collections.abc import Sequence
import pathlib
from typing import Any

from absl import flags

from tpugraphs_rank import files

_ALL = ("random", "default_configuration", "size_heuristic", "boosted_trees")


def evaluate(run_dir: files.PathLike, split: str, output: files.PathLike | None = None,
             baselines: Sequence[str] = _ALL, data_root: str | None = None,
             strict: bool = False, configurations: str | None = None) -> dict[str, Any]:
  """Judges a run and baselines on a split, and writes the files that the module names.

  Args:
    run_dir: of a trained run.
    split: "valid" or "test".
    output: folder of the results; None: `<run_dir>/evaluation/<split>`.
    baselines: names of baselines, see `tpugraphs_rank.evaluation.baselines`.
    data_root: folder of the public collections, instead of the run's.
    strict: refuse graphs that the run does not fit, instead of warning.
    configurations: "all", "published" (those of the published layout figures), or None: the
      published ones where there are such.

  Returns:
    What metrics.json holds, and as "text" the tables for a terminal.

  Raises:
    ConfigError: nothing is published for the split, and that is asked for.
    DataError: the split has no runtimes, or bad data.
    RunDirectoryError: the run directory is incomplete.
    UnknownNameError: no such split or baseline.
    OutputError: the output cannot be written.
  """
  from tpugraphs_rank.evaluation import baselines as baselines_lib
  from tpugraphs_rank.training import run_directory
  baselines_lib.check_names(baselines)
  config = run_directory.RunDirectory(run_dir).read_config()
  # TensorFlow: not before it is known that there is something to judge.
  from tpugraphs_rank.evaluation import aggregate
  from tpugraphs_rank.evaluation import comparison
  compared = comparison.compare({config.model.model: [run_dir]}, split, [config.training.seed],
                                baselines, data_root, strict, configurations)
  folder = pathlib.Path(output) if output else pathlib.Path(run_dir) / "evaluation" / split
  found = compared.results()
  found["rankers"] = {
      name: aggregate.aggregate(frames[0], compared.task.collection, split)
      for name, frames in compared.frames.items()}
  compared.write(folder)
  files.write_json(folder / "metrics.json", found)
  return {**found, "text": compared.text()}


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("run_dir", None, "Folder of the run.", required=True)
  flags.DEFINE_enum("split", "test", ["valid", "test"], "The split that is judged.")
  flags.DEFINE_string("output", None, "Folder of the results; otherwise evaluation/<split> in the "
                      "run directory.")
  flags.DEFINE_list("baselines", list(_ALL),
                    "Baselines on the same graphs, comma-separated; empty: none.")
  flags.DEFINE_string("data_root", None, "Folder of the public collections, instead of the run's.")
  flags.DEFINE_bool("strict", False, "Refuse graphs that the run does not fit (another target, "
                    "opcodes never seen), instead of warning.")
  flags.DEFINE_enum(
      "configurations", None, ["all", "published"], "Which configurations are judged; otherwise "
      "the published indices on the validation splits of the public layout collections (1,000 a "
      "graph, repeats kept), and all elsewhere.")


def main(argv: list[str]) -> None:
  """Runs the command."""
  values = flags.FLAGS
  found = evaluate(values.run_dir, values.split, values.output, values.baselines, values.data_root,
                   values.strict, values.configurations)
  folder = values.output or pathlib.Path(values.run_dir) / "evaluation" / values.split
  print(found["text"])
  print(f"numbers: {folder}/metrics.json, {folder}/per_graph.csv")
  print(f"plots:   {folder}/*.png")
