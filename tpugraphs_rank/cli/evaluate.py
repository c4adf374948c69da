"""Evaluate a run on a split and compare it with baselines.

  tpugraphs-rank evaluate --run_dir runs/first
  tpugraphs-rank evaluate --run_dir runs/first --split valid --baselines random
  tpugraphs-rank evaluate --run bundled:tile_xla_cpu
  tpugraphs-rank evaluate --run_dir runs/nlp --split valid --configurations published
  tpugraphs-rank evaluate --run_dir runs/first --leave_out group --epochs 20

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

With `--leave_out group`, the run's recipe is trained once for each group of programs in the
training and validation splits, on all other groups, and ranks the group that was left out. The
test split is not read. Results go to `<run_dir>/evaluation/leave_out_group`, with a folder per
group; the same command resumes an interrupted evaluation, and adds further baselines. `--epochs=0`
evaluates the baselines only, in seconds or minutes:

  per_graph.csv                    one row per ranker and program
  metrics.json                     means by group, and their mean and standard error over groups
"""

from collections.abc import Sequence
import pathlib
from typing import Any

from absl import flags

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.cli import runs


def default_output(run_dir: files.PathLike, split: str) -> pathlib.Path:
  """The folder of an evaluation's files: in the run directory, or elsewhere if that is bundled."""
  return files.without_links(runs.results_folder(str(run_dir)), "evaluation", split)


def evaluate(run_dir: files.PathLike, split: str, output: files.PathLike | None = None,
             baselines: Sequence[str] = runs.BASELINES, data_root: str | None = None,
             strict: bool = False, configurations: str | None = None,
             partial: bool | None = None, prior: str = "analytic") -> dict[str, Any]:
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
    prior: "analytic" or "none", see `load_run`.

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
                                baselines, data_root, strict, configurations, partial, prior)
  folder = pathlib.Path(output) if output else default_output(run_dir, split)
  results = compared.results()
  results["rankers"] = {
      name: aggregate.aggregate(frames[0], compared.task.collection, split)
      for name, frames in compared.frames.items()}
  comparison_files.write(folder, compared)
  files.write_json(folder / "metrics.json", results)
  calibrating.complete(run_dir, data_root)
  return {**results, "text": compared.text()}


def evaluate_left_out(run_dir: files.PathLike, by: str, output: files.PathLike | None = None,
                      baselines: Sequence[str] = runs.BASELINES, epochs: int | None = None,
                      data_root: str | None = None, strict: bool = False,
                      partial: bool | None = None) -> dict[str, Any]:
  """Leaves out one group after another, see `evaluation.leave_out`, and writes the files.

  Args:
    run_dir: the run whose recipe is trained, or `bundled:NAME`.
    by: "group" or "family".
    output: folder of the results. None: evaluation/leave_out_<by> in the run directory.
    baselines: names of baselines.
    epochs: epochs of each training; None: those of the run; 0: baselines only.
    data_root: folder of the public collections. None: that of the run.
    strict: refuse graphs that a run does not support, instead of warning.
    partial: use the graphs that exist if others are missing; None: as the run was trained.

  Returns:
    The contents of metrics.json, and the tables to print as "text".

  Raises:
    TpuGraphsRankError: as `leave_out.evaluate`.
  """
  from tpugraphs_rank import config as config_lib
  from tpugraphs_rank.evaluation import leave_out
  from tpugraphs_rank.training import run_directory
  config = run_directory.RunDirectory(run_dir).read_config()
  changes: dict[str, Any] = {} if data_root is None else {"data.data_root": data_root}
  if partial is not None:
    changes["data.partial"] = partial
  folder = pathlib.Path(output) if output else default_output(run_dir, f"leave_out_{by}")
  results = leave_out.evaluate(
      config_lib.override(config, changes), folder, by, baselines, epochs, strict)
  values = results.to_json()
  files.write_text(folder / "per_graph.csv", results.rows().to_csv(index=False))
  files.write_json(folder / "metrics.json", values)
  return {**values, "text": results.text()}


def define_flags() -> None:
  """Defines the command's flags."""
  runs.define_run_flag()
  flags.DEFINE_enum("split", "test", ["valid", "test"], "The split to evaluate.")
  flags.DEFINE_string("output", None, "Folder of the results. Default: evaluation/<split> in the "
                      "run directory.")
  runs.define_baseline_flags()
  runs.define_partial_flag()
  runs.define_strict_flag("graphs")
  runs.define_prior_flag()
  flags.DEFINE_enum(
      "configurations", None, ["all", "published"], "Which configurations of a graph to evaluate. "
      "Default: the published indices for the validation splits of the public layout collections "
      "(1,000 per graph, repeats included), and all otherwise.")
  flags.DEFINE_enum(
      "leave_out", None, ["group", "family"], "Leave out one group (or family) of the training and "
      "validation programs after another: train the run's recipe on the others, and rank it.")
  flags.DEFINE_integer(
      "epochs", None, "With --leave_out: epochs of each training; 0 evaluates the baselines only. "
      "Default: those of the run.", lower_bound=0)


def main(argv: list[str]) -> None:
  """Runs the command."""
  values = flags.FLAGS
  if values.leave_out is not None:
    _refuse(values, ("split", "configurations"), "cannot be combined with --leave_out")
    results = evaluate_left_out(
        values.run_dir, values.leave_out, values.output, values.baselines, values.epochs,
        values.data_root, values.strict, values.partial)
    folder = values.output or default_output(values.run_dir, f"leave_out_{values.leave_out}")
    print(results["text"])
    print(f"numbers: {folder}/metrics.json, {folder}/per_graph.csv")
    return
  _refuse(values, ("epochs",), "needs --leave_out")
  results = evaluate(values.run_dir, values.split, values.output, values.baselines,
                     values.data_root, values.strict, values.configurations, values.partial,
                     values.prior)
  folder = values.output or default_output(values.run_dir, values.split)
  print(results["text"])
  print(f"numbers: {folder}/metrics.json, {folder}/per_graph.csv")
  print(f"plots:   {folder}/*.png")


def _refuse(values: flags.FlagValues, names: Sequence[str], why: str) -> None:
  """Raises ConfigError if one of these flags was given."""
  for name in names:
    if values[name].present:
      raise errors.ConfigError(f"--{name} {why}")
