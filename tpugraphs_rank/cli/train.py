"""Train a ranker on a collection; run it again to resume.

  tpugraphs-rank train --run_dir runs/first
  tpugraphs-rank train --run_dir runs/second --model attention_gnn --seed 1
  tpugraphs-rank train --run_dir runs/third --config layout_xla_random --dry_run
"""

import shlex

from absl import flags

from tpugraphs_rank import commands
from tpugraphs_rank import run_config
from tpugraphs_rank import tables
from tpugraphs_rank.cli import app
from tpugraphs_rank.cli import dry_run
from tpugraphs_rank.data import registry


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("run_dir", None, "Folder of the run. If it holds an interrupted run of the "
                      "same settings, training resumes.", required=True)
  flags.DEFINE_boolean("dry_run", False, "Build everything, run one step and print the plan. "
                       "Nothing is written.")
  app.define_config_flags(run_config.RunConfig)


def main(argv: list[str]) -> None:
  """Runs the command."""
  values = flags.FLAGS
  config = app.config_from_flags(run_config.RunConfig)
  from tpugraphs_rank.training import trainer  # TensorFlow: not for --help or a wrong flag.
  training = trainer.Trainer(config)
  if values.dry_run:
    print("\n".join(map(str, training.counts.values())) + "\n")
    print(dry_run.text(config, plan=training.plan(), first_step=training.one_step()))
    return
  result = training.train(values.run_dir, wait=values.wait)
  print(f"{result.state} after epoch {result.epochs}; best epoch {result.best_epoch}\n")
  print(tables.text(("validation metric", "best epoch"),
                    [(name, "undefined" if value is None else f"{value:.4f}")
                     for name, value in result.metrics.items()]))
  print("next: " + commands.command(
      "evaluate", "--run_dir", shlex.quote(values.run_dir), *_split(config.data)))


def _split(config: run_config.DataConfig) -> list[str]:
  """The flag that names the split to evaluate, if the test split has no runtimes."""
  measured = registry.get_collection(config.collection).has_runtimes.get("test", True)
  return [] if measured or config.split_by == "configuration" else ["--split", "valid"]
