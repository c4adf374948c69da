"""Compare runs with each other, graph by graph.

  tpugraphs-rank compare runs/first runs/second
  tpugraphs-rank compare --runs runs/first,runs/second --split valid --json differences.json

The first run is compared with each of the others. A positive gain means that the first run is
better. Runs with the same settings except the seed count as one model with several seeds.
"""

from collections.abc import Mapping, Sequence
import io
import pathlib
from typing import Any

from absl import flags
import pandas as pd

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import tables
from tpugraphs_rank.cli import runs as runs_lib


def label_runs(run_dirs: Sequence[files.PathLike]) -> dict[str, list[files.PathLike]]:
  """For each model of the runs a name, and its run directories.

  Runs whose settings differ only in the seed are one model. It is named after the kind of model if
  that is unique, otherwise after its first run directory.

  Raises:
    RunDirectoryError: a run directory is incomplete.
  """
  from tpugraphs_rank import config as config_lib
  from tpugraphs_rank.training import run_directory
  groups: dict[str, list[files.PathLike]] = {}
  kinds: dict[str, str] = {}
  for path in dict.fromkeys(map(str, run_dirs)):
    config = run_directory.RunDirectory(path).read_config()
    key = config_lib.stable_hash(config_lib.override(config, {"training.seed": 0}))
    groups.setdefault(key, []).append(path)
    kinds[key] = config.model.model
  names: dict[str, list[files.PathLike]] = {}
  for key, paths in groups.items():
    unique = list(kinds.values()).count(kinds[key]) == 1
    name = kinds[key] if unique else pathlib.Path(str(paths[0])).name
    names[name if name not in names else str(paths[0])] = paths
  return names


def compare(run_dirs: Sequence[files.PathLike], split: str = "test", data_root: str | None = None,
            by_family: bool = False, partial: bool | None = None) -> dict[str, Any]:
  """Compares the first run with the others.

  Args:
    run_dirs: at least two run directories of one collection with the same splits.
    split: "valid" or "test".
    data_root: folder of the public collections. None: that of the runs.
    by_family: whether to resample families instead of graphs for the intervals.
    partial: use the graphs that exist if others are missing; None: as the runs were trained.

  Returns:
    `collection`, `split`, `model` (the first one), `runs` (by model), `means` (by model and metric:
    mean, sd and n over seeds), and `differences` (by model and metric: mean, low, high, n).

  Raises:
    ConfigError: there are fewer than two models, or their data differs.
    DataError: the split has no runtimes.
    RunDirectoryError: a run directory is incomplete.
  """
  models = label_runs(run_dirs)
  if len(models) < 2:
    raise errors.ConfigError(
        f"expected at least two runs with different settings, not {len(models)}; name their run "
        "directories: compare RUN RUN")
  from tpugraphs_rank.evaluation import bootstrap
  from tpugraphs_rank.evaluation import comparison
  from tpugraphs_rank.evaluation import result_tables
  compared = comparison.compare(models, split, [0], [], data_root, partial=partial)
  first = compared.models[0]
  columns = [result_tables.FIGURES[name] for name in comparison.shown(compared.task.collection)]
  differences = bootstrap.paired_differences(
      compared.frames, first, metrics=columns, by_family=by_family)
  return {
      "collection": compared.task.collection.name, "split": split, "model": first,
      "runs": {name: list(map(str, paths)) for name, paths in models.items()},
      "graphs": len(compared.task.programs), "missing_graphs": compared.task.missing,
      "means": {name: result_tables.figures(frames) for name, frames in compared.frames.items()},
      "differences": {name: {metric: interval.as_dict() for metric, interval in each.items()}
                      for name, each in differences.items()}}


def text(results: Mapping[str, Any]) -> str:
  """The results as tables to print."""
  from tpugraphs_rank.evaluation import bootstrap
  from tpugraphs_rank.evaluation import result_tables
  figures = [name for name in next(iter(results["means"].values()))
             if result_tables.FIGURES[name] in next(iter(results["differences"].values()))]
  rows = [[name, *(result_tables.cell(figure, means[figure]) for figure in figures)]
          for name, means in results["means"].items()]
  header = ["model", *(result_tables.TITLES[figure] for figure in figures)]
  intervals = {name: {metric: bootstrap.Interval(**values) for metric, values in each.items()}
               for name, each in results["differences"].items()}
  missing = f", {results['missing_graphs']} are missing" if results["missing_graphs"] else ""
  return (f"{results['collection']} {results['split']} ({results['graphs']} programs{missing})\n"
          + tables.text(header, rows) + "\n"
          + tables.text(*result_tables.difference_rows(results["model"], intervals)))


def to_csv(results: Mapping[str, Any]) -> str:
  """The differences as CSV, one row per model and metric."""
  rows = [{"model": results["model"], "compared_with": name, "metric": metric, **values}
          for name, each in results["differences"].items() for metric, values in each.items()]
  output = io.StringIO()
  pd.DataFrame(rows).to_csv(output, index=False)
  return output.getvalue()


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_list("runs", [], "Run directories, separated by commas, in addition to those "
                    "given without a flag.")
  runs_lib.define_trust_flag()
  flags.DEFINE_enum("split", "test", ["valid", "test"], "The split to evaluate.")
  flags.DEFINE_string("data_root", None, "Folder of the public collections. Default: the runs'.")
  runs_lib.define_partial_flag()
  flags.DEFINE_bool("by_family", False, "Resample families instead of graphs. Intervals are wider "
                    "and hold for new families.")
  flags.DEFINE_string("json", None, "Write the results to this JSON file.")
  flags.DEFINE_string("csv", None, "Write the differences to this CSV file.")


def main(argv: list[str]) -> None:
  """Runs the command."""
  values = flags.FLAGS
  results = compare([*argv[1:], *values.runs], values.split, values.data_root, values.by_family,
                    values.partial)
  if values.json:
    files.write_json(values.json, results)
  if values.csv:
    files.write_text(values.csv, to_csv(results))
  print(text(results))
