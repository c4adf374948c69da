"""What the commands that use a trained run share."""

import pathlib

from absl import flags

BUNDLED = "bundled:"
# The baselines that commands compare with by default.
BASELINES = ("random", "default_configuration", "size_heuristic", "boosted_trees")


def define_run_flag() -> None:
  """Defines `--run_dir` and its alias `--run`."""
  flags.DEFINE_string(
      "run_dir", None, "Directory of a trained run, or the name of a bundled one, such as "
      "bundled:tile_xla_cpu. --run is the same.", required=True)
  flags.DEFINE_alias("run", "run_dir")
  define_trust_flag()


def define_trust_flag(values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines `--trust_plugins` for a command that reads settings from files or run directories."""
  flags.DEFINE_bool("trust_plugins", False, "Run the plugins that a run directory or a file of "
                    "settings names, also those that you have not named with --plugin before. "
                    "They can do anything: read them first.", flag_values=values)


def define_baselines_flag() -> None:
  """Defines `--baselines` for a command that compares runs with baselines."""
  flags.DEFINE_list("baselines", list(BASELINES),
                    "Baselines to compare with, separated by commas; there are also "
                    "lambdarank, and for tiles analytic_cost. Empty: none.")


def define_baseline_flags() -> None:
  """Defines `--baselines` and `--data_root` for a command that evaluates a run on its data."""
  define_baselines_flag()
  flags.DEFINE_string("data_root", None, "Folder of the public collections. Default: the run's.")


def define_partial_flag() -> None:
  """Defines `--partial` for a command that reads the collection of a run."""
  flags.DEFINE_bool("partial", None, "If graphs of the collection are missing, use those that "
                    "exist. Default: as the run was trained.")


def define_strict_flag(what: str) -> None:
  """Defines `--strict` for a command that scores programs or graphs."""
  flags.DEFINE_bool("strict", False, f"Refuse {what} that do not fit the run (another target or "
                    "HLO stage, or opcodes or element types that training never saw), instead of "
                    "warning.")


def define_prior_flag() -> None:
  """Defines `--prior` for a command that scores tiles."""
  flags.DEFINE_enum(
      "prior", "analytic", ["analytic", "none"], "What scores tiles of programs that are unlike "
      "the run's training programs: also the run's analytic cost, if it has one (analytic), or the "
      "network alone (none).")


def results_folder(run_dir: str) -> pathlib.Path:
  """Where a run's results go by default: its directory; the current folder for a bundled run."""
  return pathlib.Path("." if run_dir.startswith(BUNDLED) else run_dir)
