"""Trains a LayerDAG on graphs into a run directory; run it again to resume.

  python -m tpugraphs_rank.cli.layerdag_graphs --collection tile:xla_cpu --output runs/graphs.npz
  python -m tpugraphs_rank.cli.layerdag_train --graphs runs/graphs.npz --run_dir runs/layerdag
  python -m tpugraphs_rank.cli.layerdag_train --graphs runs/graphs.npz --conditions runtime,size \\
    --run_dir runs/conditioned --seed 1
"""

import json

from absl import flags

from tpugraphs_rank import config as config_lib
from tpugraphs_rank.cli import app
from tpugraphs_rank.synthesis.layerdag import settings


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("run_dir", None, "Folder of the run: new, or that of this run.",
                      required=True)
  flags.DEFINE_boolean(
      "dry_run", False, "Build everything, print the plan; write nothing.")
  app.define_config_flags(settings.LayerDagConfig)


def main(argv: list[str]) -> None:
  """Runs the command."""
  config = app.config_from_flags(settings.LayerDagConfig)
  from tpugraphs_rank.synthesis.layerdag import (
    training,  # TensorFlow: not for --help or a wrong flag.
  )
  trainer = training.Trainer(config)
  if flags.FLAGS.dry_run:
    print(json.dumps({"plan": trainer.plan(), "config": config_lib.to_dict(config)}, indent=2))
    return
  result = trainer.train(flags.FLAGS.run_dir)
  print(f"{result.state} after epoch {result.epochs}: " + ", ".join(
      f"{name} {value:.4g}" for name, value in result.metrics.items()))
  print(f"next: python -m tpugraphs_rank.cli.layerdag_sample --run_dir {flags.FLAGS.run_dir} --count 100 "
        "--output samples.npz")
