"""Writes the tables of README.md anew from results/*.json.

  python -m experiments.tables
  python -m experiments.tables --check   # exit status 1 where the README differs
"""

from collections.abc import Callable
import pathlib
import re
from typing import Any

from absl import flags

from experiments import augmentation_study
from experiments import comparison_tables
from experiments import label_study
from experiments import layerdag_benchmark
from experiments import layerdag_study
from experiments.benchmarks import report
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.cli import app

_CHECK = flags.DEFINE_boolean("check", False, "Write nothing; say whether the README is true.")

ROOT = pathlib.Path(__file__).resolve().parent.parent

# What stands between <!-- table NAME --> and <!-- end of table -->: the file and how it is shown.
TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "tile_xla_cpu": comparison_tables.seen,
    "tile_xla_cpu_unseen_groups": comparison_tables.unseen_groups,
    "tile_xla_cpu_differences": comparison_tables.differences,
    "layout_xla_cpu_mixed": comparison_tables.layouts,
    "layout_xla_cpu_mixed_differences": comparison_tables.differences,
    "tpu_kernels": comparison_tables.seen,
    "benchmark_speedups": report.speedup_table,
    "benchmark_streaming": report.streaming_table,
    "layerdag_tpu_tile": layerdag_study.readme_table,
    "layerdag_growth": layerdag_benchmark.readme_table,
    "augmentation": augmentation_study.readme_table,
    "augmentation_labels": label_study.readme_table,
    "augmentation_layout": augmentation_study.readme_table,
}
# The files without the suffix of a table's own part.
_SOURCES = {
    name: re.sub("_(unseen_groups|differences|speedups|streaming)$", "", name) for name in TABLES}


def render(readme: str, results: pathlib.Path) -> str:
  """The README with every table written anew from the files in the folder `results`.

  Raises:
    DataError: the README asks for a table that is not there, or lacks one that is.
  """
  seen = []

  def table(match: "re.Match[str]") -> str:
    name = match.group("name")
    if name not in TABLES:
      raise errors.DataError(f"README.md asks for the table {name!r}; there are: "
                             f"{', '.join(TABLES)}")
    seen.append(name)
    stored = files.read_json(results / f"{_SOURCES[name]}.json")
    return f"{match.group('begin')}\n{TABLES[name](stored)}{match.group('end')}"

  text = re.sub(r"(?P<begin><!-- table (?P<name>\w+) -->)\n.*?(?P<end><!-- end of table -->)",
                table, readme, flags=re.DOTALL)
  missing = sorted(set(TABLES) - set(seen))
  if missing:
    raise errors.DataError(f"README.md lacks the tables {', '.join(missing)}; each stands between "
                           "<!-- table NAME --> and <!-- end of table -->")
  return text


def main(_) -> int:
  path = ROOT / "README.md"
  readme = path.read_text(encoding="utf-8")
  rendered = render(readme, ROOT / "results")
  if _CHECK.value:
    print("README.md is true to results/" if rendered == readme else
          "README.md differs from results/: python -m experiments.tables writes it anew")
    return int(rendered != readme)
  files.write_text(path, rendered)
  return 0


if __name__ == "__main__":
  app.run(main)
