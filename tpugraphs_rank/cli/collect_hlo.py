"""Measure any HLO program under requested layouts.

  tpugraphs-rank collect hlo --hlo bundled:transformer_block --random 20 --output build/measured
  tpugraphs-rank collect hlo --hlo my_program.pb --configurations my_program.ranked.pb --output DIR

The program is HLO before optimisation, as JAX, TensorFlow and XLA write it, or StableHLO; its
source is not needed. Each configuration requests layouts for outputs and operands of dots,
convolutions and reshapes, also in loops, branches and called functions. The command compiles all
configurations, in parallel if there are several cores, runs them on random arguments, compares
their results with the default's, and times them in two passes on one core. Parameters that are
indices get values within the table.

Configurations come from a file that `tpugraphs-rank rank` wrote (FILE.ranked.pb), from an .npz
file, or are drawn at random. OUTPUT/report.json has the ranking, and OUTPUT/pass1.pb and pass2.pb
are raw data for `featurize` and `make-collection`. After an interruption, the same command resumes.
"""

import pathlib
from typing import Any

from absl import flags

from tpugraphs_rank import collect
from tpugraphs_rank import errors
from tpugraphs_rank import tables
from tpugraphs_rank.candidates import supplied
from tpugraphs_rank.collect.hlo import prepare

_SHOWN = 5
_RANDOM = 46


def define_flags() -> None:
  """Defines the command's flags."""
  default = prepare.Settings()
  flags.DEFINE_string("hlo", None, "The program: HLO (text or protobuf) or StableHLO, also "
                      "compressed, or a raw ModuleTuningData file.", required=True)
  flags.DEFINE_string("output", None, "Folder of the results.", required=True)
  flags.DEFINE_string("configurations", None, "File with the configurations: FILE.ranked.pb or "
                      ".npz. By default those in --hlo if it has any, else random ones.")
  flags.DEFINE_integer("random", None, "Measure this many random configurations instead, "
                       f"including the default. Default: {_RANDOM}.")
  flags.DEFINE_string("module", None, "The program of this name, from a file of several.")
  flags.DEFINE_integer("seed", default.seed,
                       "Seed of random configurations, arguments and the order.")
  flags.DEFINE_integer("budget_ms", default.budget_ms,
                       "Measuring time of a configuration in one pass, in milliseconds.")
  flags.DEFINE_float("program_limit", default.program_limit,
                     "Seconds after which compiling, or a pass, is abandoned.")
  flags.DEFINE_string("xla_flags", default.xla_flags, "Flags of XLA, as in the variable XLA_FLAGS. "
                      "By default those of the bundled collections; `tune` has others.")


def main(argv: list[str]) -> None:
  """Runs the command."""
  del argv
  values = flags.FLAGS
  if values.random is not None and (values.configurations or values.random < 2):
    raise errors.ConfigError(
        f"--random={values.random}: expected 2 or more, and no --configurations")
  settings = prepare.Settings(values.seed, values.budget_ms, values.program_limit,
                              values.xla_flags)
  program, text = prepare.read(values.hlo, values.module)
  if values.configurations:
    candidates = prepare.supplied_configurations(program, values.configurations)
  elif values.random is None and supplied.has_runs(program.data, "layout"):
    candidates = supplied.from_runs(program.data, "layout", program.source)
  else:
    candidates = prepare.random_configurations(program, values.random or _RANDOM, values.seed)
  output = pathlib.Path(values.output)
  prepare.prepare(output, program, text, candidates, settings)
  print(summary(collect.measure_hlo(output)))
  print(f"report: {output / 'report.json'}\nraw data: {output / 'pass1.pb'} and pass2.pb")


def summary(report: dict[str, Any]) -> str:
  """A report as text: how many were measured, how well passes agree, and the fastest."""
  dropped = "".join(f"; {count} {_REASONS.get(reason, reason)}"
                    for reason, count in sorted(report["dropped"].items()))
  rows = [[str(entry["configuration"]), f"{entry['runtime_ns'] / 1e6:.4f} ms",
           f"{report['default_ns'] / entry['runtime_ns']:.3f}",
           "the default" if entry["configuration"] == 0 else ""]
          for place, entry in enumerate(report["ranking"])
          if place < _SHOWN or entry["configuration"] == 0]
  lines = [f"measured {report['measured']} of {report['configurations']} configurations{dropped}"]
  lines += [f"  {reason}" for reason in report["reasons"]]
  gate = " (below the gate: times differ between the passes)" if report["fails_gate"] else ""
  lines.append(f"Kendall's tau of the two passes: {report['tau']:.3f}{gate}")
  lines.append(tables.text(["configuration", "runtime", "default / runtime", ""], rows,
                           tables.RIGHT * 3 + tables.LEFT, rule=False).rstrip())
  return "\n".join(lines)


_REASONS = {
    "same_program": "compile to the same program as others",
    "mismatch": "compute other numbers than the default",
    "not_compiled": "do not compile",
    "crashed": "end the compiler's process",
    "compiled_differently": "compiled differently in the passes",
}
