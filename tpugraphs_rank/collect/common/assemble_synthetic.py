"""From featurised made programs to a collection: gates, descriptor, report. No JAX needed.

All programs go into the training split: nothing is ever tested on them.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import logging
import pathlib
from typing import Any

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.collect.common import gates
from tpugraphs_rank.collect.common import graph_files
from tpugraphs_rank.collect.tile import assemble

SPLIT = "train"


@dataclasses.dataclass(frozen=True)
class Kind:
  """What is different between made programs under tiles and under layouts.

  Attributes:
    programs: key of the report that holds what was measured.
    passes: names of the raw files or folders in the collector's output.
    configurations: keys that only this kind's `.npz` have.
    limits: of the gates.
    under: what was chosen for each configuration.
  """

  programs: str
  passes: Sequence[str]
  configurations: Sequence[str]
  limits: gates.Limits
  under: str

  @property
  def keys(self) -> list[str]:
    """What each `.npz` must hold."""
    return [key for key in assemble.KEYS if key != "config_feat"] + list(
        self.configurations)


KINDS: Mapping[str, Kind] = {
    "tile": Kind("kernels", ("pass1.pb", "pass2.pb"), ("config_feat",), gates.MADE, "tile sizes"),
    "layout": Kind("programs", ("pass1", "pass2"), ("node_config_feat", "node_config_ids"),
                   gates.MADE_LAYOUT, "requested layouts")}


def assemble_made(collected: pathlib.Path, npz: pathlib.Path, output: pathlib.Path, name: str
                  ) -> dict[str, Any]:
  """Builds the folder of a collection of made programs.

  Args:
    collected: output folder of `tpugraphs_rank.collect.tile.collect --programs` or `tpugraphs_rank.collect.layout.collect --made`
      (for `report.json`).
    npz: folder that `tpugraphs_rank.cli.featurize` wrote.
    output: the collection's folder; npz files of an earlier assembly there are replaced.
    name: of the collection, such as `tile:made`; what stands before the colon is its kind.

  Returns:
    What `measurement.json` holds.

  Raises:
    MissingDataError: the report or a program's `.npz` is not there.
    DataError: a file is damaged, or no program passes the gates.
    UnknownNameError: the name begins with no kind.
  """
  if name.partition(":")[0] not in KINDS:
    raise errors.UnknownNameError(
        f"no kind of collection is named in {name!r}; expected {' or '.join(KINDS)}, a colon and "
        "a name, such as tile:made")
  kind = KINDS[name.partition(":")[0]]
  report = files.read_json(collected / "report.json")
  measured = report[kind.programs]
  kernels = graph_files.read_all(npz, list(measured), kind.keys,
                                 [collected / part for part in kind.passes])
  judged = {stem: gates.judge(found["config_runtime_passes"], kind.limits)
            for stem, found in kernels.items()}
  kept = sorted(stem for stem in kernels if not judged[stem].lost)
  if not kept:
    raise errors.DataError(f"none of the {len(kernels)} programs in {npz} passes the gates")
  graph_files.write_splits(output / "npz", kernels, dict.fromkeys(kept, SPLIT))
  families = sorted({stem.partition(".")[0] for stem in kept})
  # Our own refusals say why after the error's name; of others the name says more.
  failed = [why.removeprefix("DataError: ").partition(":")[0] for why in report["failed"].values()]
  planned = len(measured) + len(failed) + len(report["unfinished"])
  measurement = {
      "machine": report["machine"], "versions": report["versions"], "dates": report["dates"],
      "seed": report["seed"], "protocol": report["protocol"],
      "gates": {
          "lowest_tau_between_passes": kind.limits.tau, "lowest_ratio": kind.limits.ratio,
          "fewest_configurations": kind.limits.configurations, "planned": planned,
          "not_measured": len(report["unfinished"]),
          "failed": {why: failed.count(why) for why in sorted(set(failed))},
          "lost": {reason: sum(quality.lost == reason for quality in judged.values())
                   for reason in gates.REASONS},
          "kept": len(kept), "kept_share": len(kept) / max(planned - len(report["unfinished"]), 1)},
      "seconds": float(np.sum([seconds for entry in measured.values()
                               for seconds in entry["seconds"]])),
      "configurations": int(sum(judged[stem].configurations for stem in kept)),
      "tau_between_passes": float(np.mean([judged[stem].tau for stem in kept]))}
  files.write_json(output / "measurement.json", measurement)
  graph_files.write_descriptor(
      output, name, report["machine"]["cpu"], {SPLIT: kept},
      {family: [family] for family in families},
      "Made programs, compiled by XLA and timed on one core of the target CPU under many "
      f"{kind.under}; see measurement.json beside this file.")
  return measurement


def main(argv: list[str] | None = None) -> None:
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
