"""From featurised made programs to a collection: gates, descriptor, report. No JAX needed.

All programs go into the training split: nothing is ever tested on them.
"""

import logging
import pathlib
from typing import Any, Dict, List, Optional

import numpy as np

from tools.collect import assemble
from tools.collect import gates
from tools.collect import graph_files
from tpugraphs_rank import errors
from tpugraphs_rank import files

SPLIT = "train"


def assemble_made(collected: pathlib.Path, npz: pathlib.Path, output: pathlib.Path, name: str
                  ) -> Dict[str, Any]:
  """Builds the folder of a collection of made programs.

  Args:
    collected: output folder of `tools.collect.tile --programs` (for `report.json`).
    npz: folder that `experiments.featurize` wrote.
    output: the collection's folder; npz files of an earlier assembly there are replaced.
    name: of the collection, such as `tile:made`.

  Returns:
    What `measurement.json` holds.

  Raises:
    MissingDataError: the report or a program's `.npz` is not there.
    DataError: a file is damaged, or no program passes the gates.
  """
  report = files.read_json(collected / "report.json")
  kernels = graph_files.read_all(npz, list(report["kernels"]), assemble.KEYS,
                                 [collected / "pass1.pb", collected / "pass2.pb"])
  judged = {stem: gates.judge(found["config_runtime_passes"], gates.MADE)
            for stem, found in kernels.items()}
  kept = sorted(stem for stem in kernels if not judged[stem].lost)
  if not kept:
    raise errors.DataError(f"none of the {len(kernels)} programs in {npz} passes the gates")
  graph_files.write_splits(output / "npz", kernels, dict.fromkeys(kept, SPLIT))
  families = sorted({stem.partition(".")[0] for stem in kept})
  # Our own refusals say why after the error's name; of others the name says more.
  failed = [why.removeprefix("DataError: ").partition(":")[0] for why in report["failed"].values()]
  planned = len(report["kernels"]) + len(failed) + len(report["unfinished"])
  measurement = {
      "machine": report["machine"], "versions": report["versions"], "dates": report["dates"],
      "seed": report["seed"], "protocol": report["protocol"],
      "gates": {
          "lowest_tau_between_passes": gates.MADE.tau, "lowest_ratio": gates.MADE.ratio,
          "fewest_configurations": gates.MADE.configurations, "planned": planned,
          "failed": {why: failed.count(why) for why in sorted(set(failed))},
          "lost": {reason: sum(quality.lost == reason for quality in judged.values())
                   for reason in gates.REASONS},
          "kept": len(kept), "kept_share": len(kept) / max(planned, 1)},
      "seconds": float(np.sum([seconds for entry in report["kernels"].values()
                               for seconds in entry["seconds"]])),
      "configurations": int(sum(judged[stem].configurations for stem in kept)),
      "tau_between_passes": float(np.mean([judged[stem].tau for stem in kept]))}
  files.write_json(output / "measurement.json", measurement)
  graph_files.write_descriptor(
      output, name, report["machine"]["cpu"], {SPLIT: kept},
      {family: [family] for family in families},
      "Made programs, compiled by XLA and timed on one core of the target CPU under many tile "
      "sizes; see measurement.json beside this file.")
  return measurement


def main(argv: Optional[List[str]] = None) -> None:
  arguments = assemble.arguments_of(__doc__, "tile:made").parse_args(argv)
  logging.basicConfig(level=logging.INFO, format="%(message)s")
  measurement = assemble_made(
      arguments.collected, arguments.npz, arguments.output, arguments.name)
  gate = measurement["gates"]
  logging.info("%d of %d programs kept (%d configurations), failed: %s, lost at the gates: %s",
               gate["kept"], gate["planned"], measurement["configurations"], gate["failed"],
               gate["lost"])
  logging.info("written: %s", arguments.output / "collection.json")


if __name__ == "__main__":
  main()
