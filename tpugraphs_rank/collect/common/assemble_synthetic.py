"""From featurized synthetic programs to a collection: gates, descriptor, report. Needs no JAX.

All programs go into the training split: synthetic programs are never used for testing.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
from typing import Any

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.collect.common import gates
from tpugraphs_rank.collect.common import graph_files
from tpugraphs_rank.collect.common import machines
from tpugraphs_rank.collect.common import plans

SPLIT = "train"


@dataclasses.dataclass(frozen=True)
class Kind:
  """The differences between synthetic programs under tile sizes and under layouts.

  Attributes:
    programs: key of the report with the measured kernels or programs.
    passes: names of the raw files or folders in the collector's output.
    keys: the arrays that each `.npz` file must hold.
    limits: the quality gates.
    varied: what differs between the configurations.
  """

  programs: str
  passes: Sequence[str]
  keys: Sequence[str]
  limits: gates.Limits
  varied: str


KINDS: Mapping[str, Kind] = {
    "tile": Kind("kernels", ("pass1.pb", "pass2.pb"), graph_files.TILE_KEYS, gates.SYNTHETIC_TILE,
                 "tile sizes"),
    "layout": Kind("programs", ("pass1", "pass2"), graph_files.LAYOUT_KEYS, gates.SYNTHETIC_LAYOUT,
                   "requested layouts")}


def assemble(collected: pathlib.Path, npz: pathlib.Path, output: pathlib.Path, name: str
             ) -> dict[str, Any]:
  """Builds the folder of a collection of synthetic programs.

  Args:
    collected: output folder of a collector that measured a file of synthetic programs, for
      `report.json`.
    npz: folder that `tpugraphs-rank featurize` wrote.
    output: the collection's folder; `.npz` files of an earlier assembly there are replaced.
    name: name of the collection, such as `tile:synthetic`; the part before the first colon is its
      kind.

  Returns:
    The contents of `measurement.json`.

  Raises:
    MissingDataError: the report or a program's `.npz` file does not exist.
    DataError: a file is damaged, or no program passes the gates.
    UnknownNameError: the name does not begin with a kind.
  """
  if name.partition(":")[0] not in KINDS:
    raise errors.UnknownNameError(
        f"the name {name!r} does not begin with a kind of collection; expected "
        f"{' or '.join(KINDS)}, a colon and a name, such as tile:synthetic")
  kind = KINDS[name.partition(":")[0]]
  report = plans.read_report(collected, kind.programs)
  measured = report[kind.programs]
  graphs = graph_files.read_all(npz, measured, kind.keys,
                                [collected / part for part in kind.passes])
  qualities = {stem: gates.assess(arrays["config_runtime_passes"], kind.limits)
               for stem, arrays in graphs.items()}
  kept = sorted(stem for stem in graphs if not qualities[stem].failed_gate)
  if not kept:
    raise errors.DataError(f"none of the {len(graphs)} programs in {npz} passes the gates")
  graph_files.write_splits(output / "npz", graphs, dict.fromkeys(kept, SPLIT))
  families = sorted({stem.partition(".")[0] for stem in kept})
  # The collector's own refusals give the reason after the error's name; for all other errors, the
  # name says more than the message.
  failed = [why.removeprefix("DataError: ").partition(":")[0] for why in report["failed"].values()]
  planned = len(measured) + len(failed) + len(report["unfinished"])
  measurement = {
      "machine": report["machine"], "versions": report["versions"], "dates": report["dates"],
      **machines.of_measurement(report),
      "seed": report["seed"], "protocol": report["protocol"],
      "gates": {
          "lowest_tau_between_passes": kind.limits.tau, "lowest_ratio": kind.limits.ratio,
          "fewest_configurations": kind.limits.configurations, "planned": planned,
          "not_measured": len(report["unfinished"]),
          "failed": {why: failed.count(why) for why in sorted(set(failed))},
          "lost": {reason: sum(quality.failed_gate == reason for quality in qualities.values())
                   for reason in gates.REASONS},
          "kept": len(kept), "kept_share": len(kept) / max(planned - len(report["unfinished"]), 1)},
      "seconds": float(np.sum([seconds for entry in measured.values()
                               for seconds in entry["seconds"]])),
      "configurations": int(sum(qualities[stem].configurations for stem in kept)),
      "tau_between_passes": float(np.mean([qualities[stem].tau for stem in kept]))}
  files.write_json(output / "measurement.json", measurement)
  graph_files.write_descriptor(
      output, name, report["machine"]["cpu"], {SPLIT: kept},
      {family: [family] for family in families},
      "Synthetic programs, compiled by XLA and timed on one core of the target CPU under many "
      f"{kind.varied}; see measurement.json in this folder.")
  return measurement
