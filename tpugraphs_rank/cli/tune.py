"""Tune any HLO program here: propose layouts, measure, adapt, repeat.

  tpugraphs-rank tune --hlo bundled:transformer_block --measurements 20 \\
      --output build/tuned

Works on this CPU. The program is HLO before optimisation, as JAX, TensorFlow and XLA write it, or
StableHLO. The first measurement is the default; the next few differ as much as possible. Then a
model of the measurements so far chooses each next configuration; it sees what a simulated layout
assignment says of each, and the scores of a run if there is one. The search ends after
--measurements, after --minutes, or when more is not expected to help. At last, four fresh processes
measure the best and the default in turn. "No gain over the default" is an answer too.

Written to OUTPUT:

  tuned.json          what is fastest and by how much, with an interval; the requests by name
  tuned.hlo.pb        the program with the requests in it; tuned.mlir is the same as StableHLO
  measurements.jsonl  every measurement, written at once; the same command resumes
  measured.pb         the measurements as raw data, for `featurize` and `make-collection`;
                      --add_to DIR adds them to a collection, on which `train` can continue a run

`tpugraphs_rank.tune.load(OUTPUT)` loads the tuned program as a function in an environment with JAX.
"""

import logging
import pathlib
from typing import Any

from absl import flags

from tpugraphs_rank import errors
from tpugraphs_rank import json_shapes
from tpugraphs_rank.cli import app
from tpugraphs_rank.cli import own_collection
from tpugraphs_rank.cli import runs
from tpugraphs_rank.collect.hlo import folder as folder_lib
from tpugraphs_rank.collect.hlo import prepare
from tpugraphs_rank.collect.hlo import tune
from tpugraphs_rank.training import run_directory

_NO_RUN = "none"
_SHOWN = 8

_log = logging.getLogger("tpugraphs_rank.tune")


def define_flags() -> None:
  """Defines the command's flags."""
  default = tune.Settings()
  flags.DEFINE_string("hlo", None, "The program: HLO (text or protobuf) or StableHLO, also "
                      "compressed.", required=True)
  flags.DEFINE_string("output", None, "Folder of the results.", required=True)
  flags.DEFINE_string("run_dir", _NO_RUN, "Directory of a run trained on layouts, or the name of a "
                      "bundled one, whose scores are the prior; none: no prior. --run is the same.")
  flags.DEFINE_alias("run", "run_dir")
  runs.define_trust_flag()
  flags.DEFINE_integer("measurements", default.measurements, "Maximum number of measurements, "
                       "those of earlier calls included.")
  flags.DEFINE_float("minutes", default.minutes, "Maximum minutes of this call's search.")
  flags.DEFINE_bool("early", default.early,
                    "End when more measurements are not expected to help.")
  flags.DEFINE_string("add_to", None, "Folder of a collection to which the measurements are added, "
                      "for training; it is created if it does not exist.")
  flags.DEFINE_string("module", None, "The program of this name, from a file of several.")
  flags.DEFINE_string("xla_flags", default.xla_flags, "Flags of XLA with which the program will "
                      "run, as in the variable XLA_FLAGS.")
  flags.DEFINE_integer("seed", default.seed, "Seed of all random choices.")


def main(argv: list[str]) -> None:
  """Runs the command."""
  del argv
  values = flags.FLAGS
  settings = tune.Settings(values.measurements, values.minutes, values.seed, values.early,
                           values.xla_flags)
  program, text = prepare.read(values.hlo, values.module)
  prepare.with_sites(program)  # Refuses a program without a choice before anything is loaded.
  if values.add_to:
    own_collection.described(values.add_to)
  run = None
  if values.run_dir != _NO_RUN:
    if run_directory.RunDirectory(values.run_dir).read_about().get("kind") != "layout":
      raise errors.CompatibilityError(
          f"{values.run_dir} ranks tiles; expected a run on layouts, or --run none")
    app.require_tensorflow("--run")
    from tpugraphs_rank.training import run as run_lib  # Imports TensorFlow.
    run = run_lib.load_run(values.run_dir)
  output = pathlib.Path(values.output)
  try:
    result = tune.tune(output, program, text, settings, run)
  except KeyboardInterrupt:
    path = output / tune.RESULT
    if path.exists():
      stored = json_shapes.read(path, folder_lib.TUNED, "delete it")
      if stored["finished"]:
        _log.info("%s and the tuned program are those of the earlier search", path)
      else:
        best = stored["best"]
        _log.info("the best so far was measured as %.3f times as fast as the default, and is in %s",
                  best["default_seconds"] / best["seconds"], path)
    raise
  print(summary(result))
  print(f"tuned program: {output / 'tuned.hlo.pb'} and tuned.mlir\nreport: {output / tune.RESULT}")
  if values.add_to:
    written = own_collection.add(output / tune.MEASURED, values.add_to)
    print(f"added to {written.path}; {written.report[0]}\nnext: {written.command}")


def summary(result: dict[str, Any]) -> str:
  """The result as text."""
  failed = f", {result['failed']} of them failed" if result["failed"] else ""
  lines = [f"{result['measurements']} measurements{failed}; the search ended: {result['why']}"]
  confirmed = result["confirmed"]
  if confirmed is None:
    lines.append("No gain over the default: no other configuration was faster.")
  else:
    low, high = confirmed["interval"]
    speed = (f"{confirmed['speedup']:.3f} times as fast as the default (a further process is "
             f"expected between {low:.3f} and {high:.3f})")
    if result["is_faster"]:
      lines.append(f"The best is {speed}. It requests:")
      listed = result["best"]["requests"]
      lines += [f"  {one['instruction']} {one['tensor']} {one['tensor_shape']}: "
                f"{{{','.join(map(str, one['minor_to_major']))}}}" for one in listed[:_SHOWN]]
      if len(listed) > _SHOWN:
        lines.append(f"  and {len(listed) - _SHOWN} more requests")
    else:
      lines.append(f"No gain over the default: the best is {speed}. The tuned program is the "
                   "default.")
  return "\n".join(lines)
