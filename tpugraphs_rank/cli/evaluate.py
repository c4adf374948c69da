"""Evaluate a run on a split and compare it with baselines.

  tpugraphs-rank evaluate --run_dir runs/first
  tpugraphs-rank evaluate --run_dir runs/first --split valid --baselines random
  tpugraphs-rank evaluate --run bundled:tile_xla_cpu
  tpugraphs-rank evaluate --run_dir runs/nlp --split valid --configurations published

Writes these files into `--output` (by default `<run_dir>/evaluation/<split>`):

  per_graph.csv                    one row per ranker and graph
  metrics.json                     means in total, by family, by group, and separately for seen and
                                   unseen groups; gains over each baseline, with intervals
  training_curves.png              loss and OPA by epoch
  rank_against_runtime_<model>.png runtime by predicted rank
  slowdown_against_k.png           slowdown of the best of K, for the model and the baselines
  tau_by_family.png                tau of each family, for the model and the baselines

A run of an older version also gets its `calibration.json`, which `tpugraphs-rank rank` reads.
`tpugraphs-rank report` makes an HTML page of the same results.
"""

from collections.abc import Sequence
import pathlib
from typing import Any

from absl import flags

from tpugraphs_rank import files
from tpugraphs_rank.cli import runs


def default_output(run_dir: files.PathLike, split: str) -> pathlib.Path:
  """The folder of an evaluation's files: in the run directory, or elsewhere if that is bundled."""
  return runs.results_folder(str(run_dir)) / "evaluation" / split


def evaluate(run_dir: files.PathLike, split: str, output: files.PathLike | None = None,
             baselines: Sequence[str] = runs.BASELINES, data_root: str | None = None,
             strict: bool = False, configurations: str | None = None,
             partial: bool | None = None) -> dict[str, Any]:
  """Evaluates a run and baselines on a split, and writes the files listed above.

  Args:
    run_dir: a run directory, or `bundled:NAME`.
    split: "valid" or "test".
    output: folder of the results. None: `default_output`.
    baselines: names of baselines, see `tpugraphs_rank.evaluation.baselines`.
    data_root: folder of the public collections. None: that of the run.
    strict: refuse graphs that the run does not support, instead of warning.
    configurations: "all", "published" (those of the published layout figures), or None: the
      published ones if there are any.
    partial: evaluate the graphs that exist if others are missing; None: as the run was trained.

  Returns:
    The contents of metrics.json, and the tables to print as "text".

  Raises:
    ConfigError: published configurations were requested for a split without any.
    DataError: the split has no runtimes, or the data is damaged.
    RunDirectoryError: the run directory is incomplete.
    UnknownNameError: there is no such split or baseline.
    OutputError: the output cannot be written.
  """
  from tpugraphs_rank.evaluation import baselines as baselines_lib
  from tpugraphs_rank.training import run_directory
  baselines_lib.check_names(baselines)
  config = run_directory.RunDirectory(run_dir).read_config()
  # These import TensorFlow, which the errors above do not need.
  from tpugraphs_rank.evaluation import aggregate
  from tpugraphs_rank.evaluation import calibrating
  from tpugraphs_rank.evaluation import comparison
  from tpugraphs_rank.evaluation import comparison_files
  compared = comparison.compare({config.model.model: [run_dir]}, split, [config.training.seed],
                                baselines, data_root, strict, configurations, partial)
  folder = pathlib.Path(output) if output else default_output(run_dir, split)
  results = compared.results()
  results["rankers"] = {
      name: aggregate.aggregate(frames[0], compared.task.collection, split)
      for name, frames in compared.frames.items()}
  comparison_files.write(folder, compared)
  files.write_json(folder / "metrics.json", results)
  calibrating.complete(run_dir, data_root)
  return {**results, "text": compared.text()}


def define_flags() -> None:
  """Defines the command's flags."""
  runs.define_run_flag()
  flags.DEFINE_enum("split", "test", ["valid", "test"], "The split to evaluate.")
  flags.DEFINE_string("output", None, "Folder of the results. Default: evaluation/<split> in the "
                      "run directory.")
  runs.define_baseline_flags()
  runs.define_partial_flag()
  runs.define_strict_flag("graphs")
  flags.DEFINE_enum(
      "configurations", None, ["all", "published"], "Which configurations of a graph to evaluate. "
      "Default: the published indices for the validation splits of the public layout collections "
      "(1,000 per graph, repeats included), and all otherwise.")


def main(argv: list[str]) -> None:
  """Runs the command."""
  values = flags.FLAGS
  results = evaluate(values.run_dir, values.split, values.output, values.baselines,
                     values.data_root, values.strict, values.configurations, values.partial)
  folder = values.output or default_output(values.run_dir, values.split)
  print(results["text"])
  print(f"numbers: {folder}/metrics.json, {folder}/per_graph.csv")
  print(f"plots:   {folder}/*.png")
