"""Train both rankers on measured kernels and compare with baselines.

  tpugraphs-rank demo
  tpugraphs-rank demo --output runs/mine --seeds 5 --results runs/mine.json

Trains `residual_gnn` and `attention_gnn` on the bundled collection `tile:xla_cpu` with one or more
seeds, as many at a time as there are cores. Then it ranks the configurations of test kernels that
training never saw, prints a table with trivial baselines and boosted trees, and writes the numbers,
plots and an HTML report. Finished runs are kept: run it again to resume after an interruption.
"""

import pathlib
import time
from typing import Any

from absl import flags

from tpugraphs_rank import config as config_lib
from tpugraphs_rank import files
from tpugraphs_rank import recipes
from tpugraphs_rank import run_config
from tpugraphs_rank.cli import runs
from tpugraphs_rank.evaluation import baselines
from tpugraphs_rank.training import parallel as runs_lib
from tpugraphs_rank.training import run_directory

_MODELS = ("residual_gnn", "attention_gnn")


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("output", "runs/demo", "Folder of the runs, the results and the report.")
  flags.DEFINE_integer("seeds", 1, "Number of seeds of each model: 0, 1, ...", lower_bound=1)
  flags.DEFINE_integer("jobs", 0, "Trainings at a time. 0: one per core.", lower_bound=0)
  flags.DEFINE_string("config", "tile_xla_cpu_demo", "Recipe (by name) or JSON file with the "
                      "settings of the runs. The demo sets the model and the seed.")
  runs.define_trust_flag()
  runs.define_baselines_flag()
  flags.DEFINE_string("results", None, "Also write the numbers to this JSON file.")


def main(argv: list[str]) -> None:
  """Runs the command."""
  started = time.monotonic()
  output = pathlib.Path(flags.FLAGS.output)
  baselines.check_names(flags.FLAGS.baselines)
  base = config_lib.from_dict(
      run_config.RunConfig, recipes.read(flags.FLAGS.config), source=flags.FLAGS.config)
  seeds = range(flags.FLAGS.seeds)
  configs = runs_lib.grid(base, _MODELS, seeds)
  print(f"training {len(configs)} runs into {output}/ "
        f"(to watch them: tensorboard --logdir {output})", flush=True)
  directories = runs_lib.train_all(configs, output, flags.FLAGS.jobs)
  print(f"trained after {_minutes(started)}; evaluating on the test split", flush=True)

  # These import TensorFlow, whose threads the trainings do not need to share.
  from tpugraphs_rank.evaluation import comparison
  from tpugraphs_rank.evaluation import comparison_files
  from tpugraphs_rank.evaluation import report
  compared = comparison.compare(
      {model: [directories[f"{model}-seed{seed}"] for seed in seeds] for model in _MODELS},
      "test", seeds, flags.FLAGS.baselines)
  results: dict[str, Any] = {
      **run_directory.environment(), "seeds": list(seeds), **compared.results()}
  comparison_files.write(output / "evaluation", compared)
  files.write_json(output / "results.json", results)
  if flags.FLAGS.results:
    files.write_json(flags.FLAGS.results, results)
  report.write(output / "report.html", compared)
  print()
  print(compared.text())
  print(f"report:  {output}/report.html")
  print(f"numbers: {output}/results.json, {output}/evaluation/per_graph.csv")
  print(f"plots:   {output}/evaluation/*.png")
  print(f"done in {_minutes(started)}")


def _minutes(started: float) -> str:
  seconds = round(time.monotonic() - started)
  return f"{seconds // 60} min {seconds % 60} s"
