"""The main job, from measured kernels to a table: trains both rankers and compares with baselines.

  python -m tpugraphs_rank.cli.demo
  python -m tpugraphs_rank.cli.demo --output runs/mine --seeds 5 --results results/tile_xla_cpu.json

Trains `residual_gnn` and `attention_gnn` on the bundled collection `tile:xla_cpu`, several seeds
each, side by side; ranks the configurations of test kernels that training never saw; prints one
table beside trivial baselines and boosted trees, and writes numbers and plots. Runs that are done
are kept: run it again to go on where it was interrupted.
"""

import pathlib
import time
from typing import Any

from absl import flags

from tpugraphs_rank import config as config_lib
from tpugraphs_rank import files
from tpugraphs_rank import recipes
from tpugraphs_rank import run_config
from tpugraphs_rank.training import parallel as runs_lib
from tpugraphs_rank.training import run_directory


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("output", "runs/demo", "Folder of the runs, the table and the plots.")
  flags.DEFINE_integer("seeds", 3, "Seeds of each model: 0, 1, ...", lower_bound=1)
  flags.DEFINE_integer("jobs", 0, "Trainings at a time; 0: one a core.", lower_bound=0)
  flags.DEFINE_string("config", "tile_xla_cpu", "Recipe (by name) or JSON file with the settings "
                      "of the runs. The models and seeds are set by the demo.")
  flags.DEFINE_string(
      "results", None, "Also write the numbers to this file, as results/tile_xla_cpu.json is made.")


def main(argv: list[str]) -> None:
  """Runs the command."""
  started = time.monotonic()
  output = pathlib.Path(flags.FLAGS.output)
  base = config_lib.from_dict(
      run_config.RunConfig, recipes.read(flags.FLAGS.config), source=flags.FLAGS.config)
  seeds = range(flags.FLAGS.seeds)
  configs = runs_lib.grid(base, run_config.MODELS, seeds)
  print(f"training {len(configs)} runs into {output}/ (minutes each; "
        f"tensorboard --logdir {output} shows them as they go)", flush=True)
  directories = runs_lib.train_all(configs, output, flags.FLAGS.jobs)
  print(f"trained after {time.monotonic() - started:.0f} s; judging on the test split", flush=True)

  from tpugraphs_rank.evaluation import comparison  # TensorFlow: after the trainings' own.
  compared = comparison.compare(
      {model: [directories[f"{model}-seed{seed}"] for seed in seeds]
       for model in run_config.MODELS}, "test", seeds)
  results: dict[str, Any] = {
      **run_directory.environment(), "seeds": list(seeds), **compared.results()}
  compared.write(output / "evaluation")
  files.write_json(output / "results.json", results)
  if flags.FLAGS.results:
    files.write_json(flags.FLAGS.results, results)
  print()
  print(compared.text())
  print(f"numbers: {output}/results.json, {output}/evaluation/per_graph.csv")
  print(f"plots:   {output}/evaluation/*.png")
  print(f"done in {time.monotonic() - started:.0f} s")
