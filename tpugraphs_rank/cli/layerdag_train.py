"""Train a LayerDAG on graphs; run it again to resume.

  tpugraphs-rank layerdag graphs --collection tile:xla_cpu --output runs/graphs.npz
  tpugraphs-rank layerdag train --graphs runs/graphs.npz --run_dir runs/layerdag
  tpugraphs-rank layerdag train --graphs runs/graphs.npz --conditions runtime,size \\
    --run_dir runs/conditioned --seed 1
"""

import shlex

from absl import flags

from tpugraphs_rank import commands
from tpugraphs_rank import tables
from tpugraphs_rank.cli import app
from tpugraphs_rank.cli import dry_run
from tpugraphs_rank.synthesis.layerdag import settings


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("run_dir", None, "Folder of the run. If it holds an interrupted run of the "
                      "same settings, training resumes.", required=True)
  flags.DEFINE_boolean("dry_run", False, "Build everything and print the plan. Nothing is written.")
  app.define_config_flags(settings.LayerDagConfig)


def main(argv: list[str]) -> None:
  """Runs the command."""
  values = flags.FLAGS
  config = app.config_from_flags(settings.LayerDagConfig)
  # TensorFlow: not for --help or a wrong flag.
  from tpugraphs_rank.synthesis.layerdag import training
  trainer = training.Trainer(config)
  if values.dry_run:
    print(dry_run.text(config, plan=trainer.plan()))
    return
  result = trainer.train(values.run_dir, wait=values.wait)
  print(f"{result.state} after epoch {result.epochs}\n")
  print(tables.text(("metric", "last epoch"),
                    [(name, f"{value:.4g}") for name, value in result.metrics.items()]))
  print("next: " + commands.command(
      "layerdag", "sample", "--run_dir", shlex.quote(values.run_dir), "--count", "100",
      "--output", "samples.npz"))
