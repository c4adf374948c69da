"""Trains a ranker on a collection into a run directory; run it again to resume.

  python -m tpugraphs_rank.cli.train --run_dir runs/first
  python -m tpugraphs_rank.cli.train --run_dir runs/second --model attention_gnn --seed 1
  python -m tpugraphs_rank.cli.train --run_dir runs/third --config settings.json --dry_run
"""

import json

from absl import flags

from tpugraphs_rank import config as config_lib
from tpugraphs_rank import run_config
from tpugraphs_rank.cli import app
from tpugraphs_rank.data import registry


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("run_dir", None, "Folder of the run: new, or that of this run.",
                      required=True)
  flags.DEFINE_boolean(
      "dry_run", False, "Build everything, run one step, print the plan; write nothing.")
  app.define_config_flags(run_config.RunConfig)


def main(argv: list[str]) -> None:
  """Runs the command."""
  config = app.config_from_flags(run_config.RunConfig)
  from tpugraphs_rank.training import trainer  # TensorFlow: not for --help or a wrong flag.
  training = trainer.Trainer(config)
  if flags.FLAGS.dry_run:
    print(json.dumps({"data": [str(counts) for counts in training.counts.values()],
                      "plan": training.plan(), "first_step": training.one_step(),
                      "config": config_lib.to_dict(config)}, indent=2))
    return
  result = training.train(flags.FLAGS.run_dir)
  print(f"{result.state} after epoch {result.epochs}; best epoch {result.best_epoch}: "
        + ", ".join(f"valid {name} {value:.4f}" for name, value in result.metrics.items()))
  print(f"next: python -m tpugraphs_rank.cli.evaluate --run_dir {flags.FLAGS.run_dir}{_split(config.data)}")


def _split(config: run_config.DataConfig) -> str:
  """The flag that names the split to judge, where the default, the test split, cannot be."""
  measured = registry.get_collection(config.collection).has_runtimes.get("test", True)
  return "" if measured or config.split_by == "configuration" else " --split valid"
