"""Write an HTML report on a run and its worst graphs.

  tpugraphs-rank report --run_dir runs/first
  tpugraphs-rank report --run_dir runs/first --compare runs/second,runs/third --output report.html

The page is a single file without external resources. It shows the metrics next to the baselines
with intervals, the slowdown by K, sortable tables by family and graph, and the settings.
"""

from collections.abc import Sequence
import pathlib

from absl import flags

from tpugraphs_rank import files
from tpugraphs_rank.cli import compare
from tpugraphs_rank.cli import runs


def report(run_dir: files.PathLike, output: files.PathLike, others: Sequence[files.PathLike] = (),
           split: str = "test", baselines: Sequence[str] = runs.BASELINES,
           data_root: str | None = None, partial: bool | None = None) -> None:
  """Evaluates runs and writes the page.

  Args:
    run_dir: the run in focus.
    output: the HTML file.
    others: runs to compare with, of the same collection and splits.
    split: "valid" or "test".
    baselines: names of baselines.
    data_root: folder of the public collections. None: that of the run.
    partial: use the graphs that exist if others are missing; None: as the run was trained.

  Raises:
    ConfigError: the runs differ in their data.
    DataError: the split has no runtimes.
    RunDirectoryError: a run directory is incomplete.
    UnknownNameError: there is no such baseline.
    OutputError: the file cannot be written.
  """
  from tpugraphs_rank.evaluation import baselines as baselines_lib
  from tpugraphs_rank.training import run_directory
  baselines_lib.check_names(baselines)
  models = compare.label_runs([run_dir, *others])
  seed = run_directory.RunDirectory(run_dir).read_config().training.seed
  # These import TensorFlow, which the errors above do not need.
  from tpugraphs_rank.evaluation import comparison
  from tpugraphs_rank.evaluation import report as report_lib
  report_lib.write(output, comparison.compare(
      models, split, [seed], baselines, data_root, partial=partial))


def define_flags() -> None:
  """Defines the command's flags."""
  runs.define_run_flag()
  flags.DEFINE_list("compare", [], "Other run directories to show on the same page, separated by "
                    "commas.")
  flags.DEFINE_enum("split", "test", ["valid", "test"], "The split to evaluate.")
  flags.DEFINE_string("output", None, "The HTML file. Default: report.html in the run directory, "
                      "or in the current folder for a bundled run.")
  runs.define_baseline_flags()
  runs.define_partial_flag()


def main(argv: list[str]) -> None:
  """Runs the command."""
  values = flags.FLAGS
  output = pathlib.Path(values.output or runs.results_folder(values.run_dir) / "report.html")
  report(values.run_dir, output, values.compare, values.split, values.baselines, values.data_root,
         values.partial)
  print(f"report: {output}")
