"""Evaluates rankers on new configurations of known programs, for collections with few programs.

  python -m experiments.known_programs --collection graphs/collection.json --output runs/known

Each seed splits the distinct configurations of every program, trains on one side and tests on
another. A table compares the ranker with the baselines and with the limit that measurement noise
between repetitions sets. Settings come from flags and `--config` as for `tpugraphs-rank train`,
with `--split_by=configuration`. Finished runs are kept.
"""

from collections.abc import Mapping
import pathlib
from typing import Any

from absl import flags

from tpugraphs_rank import config as config_lib
from tpugraphs_rank import files
from tpugraphs_rank import run_config
from tpugraphs_rank import tables
from tpugraphs_rank.cli import app
from tpugraphs_rank.evaluation import result_tables
from tpugraphs_rank.training import parallel as runs_lib
from tpugraphs_rank.training import run_directory

_SHOWN = ("opa", "tau", "tau_within3", "opa_gap5", "top1_slowdown", "top5_slowdown",
          "top10_slowdown")


def table(results: Mapping[str, Any]) -> str:
  """The rankers as a Markdown table."""
  return tables.markdown(*result_tables.rows_of(results, "", _SHOWN))


def main(argv: list[str]) -> None:
  """Runs the study."""
  values = flags.FLAGS
  output = pathlib.Path(values.output)
  base = config_lib.override(
      app.config_from_flags(run_config.RunConfig), {"data.split_by": "configuration"},
      source="experiments.known_programs")
  model, seeds = base.model.model, range(values.seeds)
  directories = runs_lib.train_all(runs_lib.grid(base, [model], seeds), output, values.jobs)

  from tpugraphs_rank.evaluation import comparison  # Imports TensorFlow.
  frames: dict[str, list[Any]] = {}
  ceilings: dict[str, Any] = {}
  for seed in seeds:
    compared = comparison.compare({model: [directories[f"{model}-seed{seed}"]]}, "test", [seed])
    for name, each_frame in compared.frames.items():
      frames.setdefault(name, []).extend(each_frame)
    ceilings[str(seed)] = compared.results()["noise_ceilings"]
  # A baseline may lack a ranking in some splits, where the default configuration is not held back.
  summary = result_tables.summarise(
      {name: each for name, each in frames.items() if len(each) == len(seeds)})
  results = {**run_directory.environment(), "seeds": list(seeds),
             "collection": compared.task.collection.name, "held_back": compared.task.held_back,
             **summary, "noise_ceilings": ceilings}
  files.write_json(output / "results.json", results)
  if values.results:
    files.write_json(values.results, results)
  print(f"{compared.task.collection.name}: {compared.task.held_back} "
        f"({summary['graphs']} programs)")
  shown = comparison.shown(compared.task.collection)
  print(tables.text(*result_tables.rows_of(summary, "", shown)))


def define_flags() -> None:
  """Defines the flags."""
  flags.DEFINE_string("output", "runs/known_programs", "Folder of the runs.")
  flags.DEFINE_integer("seeds", 3, "Number of seeds: 0, 1, ...", lower_bound=1)
  flags.DEFINE_integer("jobs", 0, "Trainings that run at the same time; 0: one per core.",
                       lower_bound=0)
  flags.DEFINE_string("results", None, "Also write the figures to this file.")
  app.define_config_flags(run_config.RunConfig)


if __name__ == "__main__":
  app.run(main, define_flags)
