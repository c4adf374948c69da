"""Writes the tables of README.md and docs from results/*.json.

  ./run tables
  ./run tables --check   # Exit status 1 if a page differs from the results.
"""

from collections.abc import Callable, Iterable
import pathlib
import re
from typing import Any

from absl import flags

from experiments import attention_v1
from experiments import augmentation_study
from experiments import calibration_check
from experiments import capacity
from experiments import chakra_study
from experiments import cone_study
from experiments import known_programs
from experiments import label_study
from experiments import layerdag_benchmark
from experiments import layerdag_study
from experiments import paper_tables
from experiments import prior_weights
from experiments import quality_study
from experiments import scale_study
from experiments import scaling
from experiments import soak_tables
from experiments import tile_groups
from experiments import tpu_layout_tables
from experiments import tuning_live
from experiments import tuning_study
from experiments.benchmarks import report
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.cli import app

ROOT = pathlib.Path(__file__).resolve().parent.parent

_Table = Callable[[dict[str, Any]], str]
# For each file in results/ the functions that format its tables. A page marks the place of a table
# with <!-- table NAME --> and <!-- end of table -->.
_BY_SOURCE: dict[str, dict[str, _Table]] = {
    "quality": {
        "quality_summary": quality_study.summary_table,
        "quality_seen": quality_study.seen_table,
        "quality_seen_gains": quality_study.seen_gains_table,
        "quality_unseen_groups": quality_study.unseen_groups_table,
        "quality_unseen_groups_gains": quality_study.unseen_groups_gains_table,
        "quality_layouts": quality_study.layouts_table,
        "quality_layouts_gains": quality_study.layouts_gains_table,
    },
    "tpu_kernels": {"tpu_kernels": known_programs.table},
    "tpu_layouts": {
        "tpu_layouts_graphs": tpu_layout_tables.graphs,
        "tpu_layouts_tau": tpu_layout_tables.tau,
        "tpu_layouts_apart": tpu_layout_tables.apart,
        "tpu_layouts_details": tpu_layout_tables.details,
        "tpu_layouts_across": tpu_layout_tables.across,
    },
    "attention_tile_v1": {"attention_tile_v1": attention_v1.table},
    "attention_layout_v1": {"attention_layout_v1": attention_v1.table},
    "calibration": {"calibration": calibration_check.table},
    "scale_study": {
        "scale_study": scale_study.table,
        "scale_study_program": scale_study.program_table,
    },
    "scale_study_rules": {
        "scale_study_rules": scale_study.table,
        "scale_study_rules_program": scale_study.program_table,
    },
    "tile_groups": {
        "tile_groups": tile_groups.summary_table,
        "tile_groups_each": tile_groups.each_table,
        "tile_groups_generated": tile_groups.generated_table,
        "tile_groups_shapes": tile_groups.shapes_summary_table,
    },
    "prior_weights": {"prior_weights": prior_weights.table},
    "tile_groups_v1": {
        "tile_groups_v1": tile_groups.groups_table,
        "tile_groups_v1_generated": tile_groups.generated_table,
        "tile_groups_v1_shapes": tile_groups.shapes_table,
    },
    "paper_tables": {
        "paper_tables_gnn": paper_tables.gnn_table,
        "paper_tables_attention": paper_tables.attention_table,
        "paper_tables_nodes": paper_tables.nodes_table,
        "paper_tables_curves": paper_tables.curves_table,
    },
    "tuning": {"tuning": tuning_study.table},
    "tuning_parts": {"tuning_parts": tuning_study.table},
    "tuning_live": {"tuning_live": tuning_live.table},
    "tuning_pools": {
        "tuning_pools": tuning_study.table,
        "tuning_pools_seconds": tuning_study.seconds_table,
        "tuning_pools_together": tuning_study.together_table,
    },
    "benchmark": {
        "benchmark_speedups": report.speedup_table,
        "benchmark_streaming": report.streaming_table,
    },
    "layerdag_tpu_tile": {"layerdag_tpu_tile": layerdag_study.readme_table},
    "layerdag_growth": {"layerdag_growth": layerdag_benchmark.readme_table},
    "chakra": {
        "chakra_sizes": chakra_study.sizes_table,
        "chakra_distances": chakra_study.distances_table,
        "chakra_predictors": chakra_study.predictors_table,
    },
    "cones": {"cones": cone_study.readme_table},
    "augmentation": {"augmentation": augmentation_study.readme_table},
    "augmentation_labels": {"augmentation_labels": label_study.readme_table},
    "augmentation_layout": {"augmentation_layout": augmentation_study.readme_table},
    "scaling": {"scaling": scaling.table},
    "capacity": {
        "capacity": capacity.table,
        "capacity_check": capacity.check_table,
    },
    "soak": {
        "soak_inputs": soak_tables.inputs,
        "soak_kills": soak_tables.kills,
    },
}
TABLES: dict[str, _Table] = {
    name: function for of_file in _BY_SOURCE.values() for name, function in of_file.items()}
_SOURCES = {name: source for source, of_file in _BY_SOURCE.items() for name in of_file}


def pages(root: pathlib.Path = ROOT) -> list[pathlib.Path]:
  """The Markdown files that contain tables."""
  return [root / "README.md", *sorted((root / "docs" / "results").glob("*.md")),
          root / "docs" / "how_it_works" / "robustness.md"]


def table_names(text: str) -> list[str]:
  """The names of the tables on a page, in order."""
  return re.findall(r"<!-- table (\w+) -->", text)


def render(text: str, results: pathlib.Path, page: str = "README.md") -> str:
  """A page with every table written from the files in the folder `results`.

  Raises:
    DataError: the page contains a table with an unknown name.
  """
  def table(match: "re.Match[str]") -> str:
    name = match.group("name")
    if name not in TABLES:
      raise errors.DataError(
          f"{page} has an unknown table {name!r}; the tables are: {', '.join(TABLES)}")
    stored = files.read_json(results / f"{_SOURCES[name]}.json")
    return f"{match.group('begin')}\n{TABLES[name](stored)}{match.group('end')}"

  return re.sub(r"(?P<begin><!-- table (?P<name>\w+) -->)\n.*?(?P<end><!-- end of table -->)",
                table, text, flags=re.DOTALL)


def check_complete(texts: Iterable[str]) -> None:
  """Checks that every table is on at least one page.

  Raises:
    DataError: a table is on no page.
  """
  present = {name for text in texts for name in table_names(text)}
  missing = sorted(set(TABLES) - present)
  if missing:
    raise errors.DataError(
        f"README.md and docs lack the tables {', '.join(missing)}; mark the place of each "
        "with <!-- table NAME --> and <!-- end of table -->")


def define_flags() -> None:
  """Defines the script's flags."""
  flags.DEFINE_boolean(
      "check", False, "Write nothing. Exit with status 1 if a page differs from the results.")


def main(_) -> int:
  check = flags.FLAGS.check
  texts = {path: path.read_text(encoding="utf-8") for path in pages()}
  check_complete(texts.values())
  changed = []
  for path, text in texts.items():
    rendered = render(text, ROOT / "results", path.name)
    if rendered != text:
      changed.append(str(path.relative_to(ROOT)))
      if not check:
        files.write_text(path, rendered)
  if check and changed:
    print(f"{', '.join(changed)}: tables differ from results/; run `./run tables` to update them")
    return 1
  print(f"updated {', '.join(changed)}" if changed else "all tables agree with results/")
  return 0


if __name__ == "__main__":
  app.run(main, define_flags)
