"""Search the settings of a training with Optuna; run it again to resume.

  tpugraphs-rank sweep --output sweeps/tile --config tile_xla_cpu --trials 40
  tpugraphs-rank sweep --output sweeps/mine --collection graphs/collection.json --space space.json
  tpugraphs-rank train --config sweeps/tile/best.json --run_dir runs/best

Each trial trains a run with the settings of --config and of the flags, except for those that are
searched. The first trial keeps the values of --config, where the search space contains them. Trials
that fall behind end early. Start the command several times, also on machines that share the folder,
to run trials in parallel: they share what they learn. --space is a JSON file with a range for each
setting to search:

  {"learning_rate": {"low": 0.0003, "high": 0.01, "log": true},
   "hidden_width": {"choices": [32, 64, 128]}}
"""

import shlex

from absl import flags

from tpugraphs_rank import commands
from tpugraphs_rank import errors
from tpugraphs_rank import run_config
from tpugraphs_rank import tables
from tpugraphs_rank.cli import app
from tpugraphs_rank.cli import help_text
from tpugraphs_rank.cli import interruption

_SHOWN = 10  # Trials in the printed table.


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("output", None, "Folder of the sweep. If it holds a sweep of the same "
                      "settings, the sweep resumes.", required=True)
  flags.DEFINE_integer("trials", 30, "Trials of the sweep, over all processes.", lower_bound=1)
  flags.DEFINE_float("minutes", None, "Begin no trial after this time. Default: no limit.",
                     lower_bound=0.0)
  flags.DEFINE_string("space", None, "JSON file with the search space. Default: that of the model.")
  flags.DEFINE_boolean("prune", True, "End trials early that are worse than the median of the "
                       "others.")
  app.define_config_flags(run_config.RunConfig)
  for name in ("output", "trials", "minutes", "space", "prune"):
    help_text.describe(flags.FLAGS[name], "Sweep", True, name)


def kept() -> str:
  """What an interrupted sweep keeps. Other processes may work on it at the same time."""
  return interruption.kept("the trials up to their last checkpoints are kept", "output")


def main(argv: list[str]) -> None:
  """Runs the command."""
  values = flags.FLAGS
  config = app.config_from_flags(run_config.RunConfig)
  try:
    import optuna  # Its import takes a second. The modules below import it, too.
  except ModuleNotFoundError as error:
    raise errors.ConfigError(
        "sweep needs Optuna, which is not installed: pip install 'optuna>=4'") from error
  del optuna
  from tpugraphs_rank.models import search_spaces  # TensorFlow: not for --help or a wrong flag.
  from tpugraphs_rank.sweeps import space as space_lib
  from tpugraphs_rank.sweeps import sweep
  ranges, source = (search_spaces.of(config.model.model), f"the model {config.model.model!r}"
                    ) if values.space is None else (space_lib.read(values.space), values.space)
  space = space_lib.Space(ranges, config, source)
  outcome = sweep.run(values.output, config, space, sweep.Settings(
      values.trials, values.minutes, values.prune, config.training.seed))
  names = list(space.ranges)
  print(tables.text(
      ("trial", outcome.metric, "epochs", "state", *names),
      [(str(one.number), "-" if one.value is None else f"{one.value:.4f}", str(one.epoch),
        one.state, *(_shown(one.settings.get(name)) for name in names))
       for one in outcome.trials[:_SHOWN]]))
  if len(outcome.trials) > _SHOWN:
    print(f"({len(outcome.trials) - _SHOWN} more in {values.output}/sweep.csv)")
  if outcome.importance:
    print("share of the variance: " + ", ".join(
        f"{name} {share:.0%}" for name, share in outcome.importance.items()))
  if outcome.best is None:
    print("no trial is finished")
    return
  print(f"best: trial {outcome.best.number}; figure: {values.output}/sweep.png\n"
        "next: " + commands.command(
            "train", "--config", shlex.quote(f"{values.output}/best.json"), "--run_dir",
            "runs/best"))


def _shown(value: object) -> str:
  if isinstance(value, float):
    return f"{value:.3g}"
  if isinstance(value, list):
    return ",".join(map(str, value))
  return "-" if value is None else str(value)
