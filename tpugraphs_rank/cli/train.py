"""Train a ranker on a collection; run it again to resume.

  tpugraphs-rank train --run_dir runs/first
  tpugraphs-rank train --run_dir runs/second --model attention_gnn --seed 1
  tpugraphs-rank train --run_dir runs/third --config layout_xla_random --dry_run
  tpugraphs-rank train --run_dir runs/fourth --devices 4
  tpugraphs-rank train --run_dir runs/fifth --workers 10.0.0.1:9870,10.0.0.2:9870 --worker 0
"""

import shlex
from typing import Any, TYPE_CHECKING

from absl import flags

from tpugraphs_rank import commands
from tpugraphs_rank import run_config
from tpugraphs_rank import tables
from tpugraphs_rank.cli import app
from tpugraphs_rank.cli import dry_run
from tpugraphs_rank.data import registry

if TYPE_CHECKING:  # TensorFlow: not for --help or a wrong flag.
  from tpugraphs_rank.training import trainer

# What `--dry_run` prints about each further kind.
_OF_KIND = ("parameters", "steps_per_epoch", "epochs_at_most", "plain_execution")


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("run_dir", None, "Folder of the run. If it holds an interrupted run of the "
                      "same settings, training resumes.", required=True)
  flags.DEFINE_boolean("dry_run", False, "Build everything, run one step and print the plan. "
                       "Nothing is written.")
  flags.DEFINE_integer("devices", None, "Train on this many GPUs of this machine (without a GPU: "
                       "parts of the CPU, for trials).")
  flags.DEFINE_list("workers", [], "Train on several machines: their addresses HOST:PORT, the same "
                    "command on each, with its own --worker. The result is that of one device, up "
                    "to rounding. The first one writes the run directory. Or TF_CONFIG, to use "
                    "the variable of that name, which cluster managers set.")
  flags.DEFINE_integer("worker", 0, "The place of this machine in --workers, from 0.")
  app.define_config_flags(run_config.RunConfig)


def main(argv: list[str]) -> None:
  """Runs the command."""
  values = flags.FLAGS
  config = app.config_from_flags(run_config.RunConfig)
  from tpugraphs_rank.training import distribution  # TensorFlow.
  from tpugraphs_rank.training import trainer
  devices = (distribution.from_environment() if values.workers == [distribution.VARIABLE] else
             distribution.Choice(values.devices, tuple(values.workers), values.worker))
  training = trainer.Trainer(config, devices=devices)
  if values.dry_run:
    print("\n".join(map(str, training.counts.values())) + "\n")
    print(dry_run.text(config, plan=training.plan(), first_step=training.one_step(),
                       **_further_kinds(training)))
    return
  result = training.train(values.run_dir, wait=values.wait)
  print(f"{result.state} after epoch {result.epochs}; best epoch {result.best_epoch}\n")
  if not training.distribution.is_chief:
    print(f"{devices.workers[0]} has validated, and written the run directory")
    return
  columns = {"best epoch": result.metrics,
             **({"all kinds": result.of_all_kinds} if result.of_all_kinds else {})}
  print(tables.text(("validation metric", *columns),
                    [(name, *(_shown(metrics.get(name)) for metrics in columns.values()))
                     for name in result.metrics]))
  print("next: " + commands.command(
      "evaluate", "--run_dir", shlex.quote(values.run_dir), *_split(config.data)))


def _further_kinds(training: "trainer.Trainer") -> dict[str, dict[str, Any]]:
  """The tables of `--dry_run` about further kinds, each of which takes a step."""
  parameters, networks = training.plan()["parameters"], training.config.model.members
  sections: dict[str, dict[str, Any]] = {}
  for number, settings in enumerate(training.config.model.kinds, start=1):
    kind = training.of_kind(number)
    plan = kind.plan()
    parameters += plan["parameters"]
    networks += kind.config.model.members
    sections[f"kind_{number}"] = {
        **settings, **{name: plan[name] for name in _OF_KIND if name in plan},
        **{f"first_{name}": value for name, value in kind.one_step().items()}}
  if sections:
    sections["all_kinds"] = {"networks": networks, "parameters_of_all": parameters}
  return sections


def _shown(value: float | None) -> str:
  return "undefined" if value is None else f"{value:.4f}"


def _split(config: run_config.DataConfig) -> list[str]:
  """The flag that names the split to evaluate, if the test split has no runtimes."""
  measured = registry.get_collection(config.collection).has_runtimes.get("test", True)
  return [] if measured or config.split_by == "configuration" else ["--split", "valid"]
