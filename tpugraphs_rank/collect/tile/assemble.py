"""From featurized kernels to a collection: gates, splits, descriptor, report. Needs no JAX.

Reads the `.npz` files of `tpugraphs-rank featurize` and the collector's `report.json`; writes
`collection.json`, `measurement.json` and `npz/<split>/<kernel>.npz`.
"""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

import numpy as np

from tpugraphs_rank import files
from tpugraphs_rank.collect.common import extending
from tpugraphs_rank.collect.common import gates
from tpugraphs_rank.collect.common import graph_files
from tpugraphs_rank.collect.common import machines
from tpugraphs_rank.collect.common import plans
from tpugraphs_rank.collect.tile import catalogue
from tpugraphs_rank.collect.tile import geometry
from tpugraphs_rank.collect.tile import splits
from tpugraphs_rank.data import twins


def _largest_first(kernel: graph_files.Arrays) -> float:
  """Tau between "largest output tile first" and the runtimes (column 15: the output's volume)."""
  return gates.kendall_tau_b(-kernel["config_feat"][:, 15], kernel["config_runtime"])


def _summary(stems: Sequence[str], kernels: Mapping[str, graph_files.Arrays],
             qualities: Mapping[str, gates.Quality]) -> dict[str, Any]:
  """Figures of a set of kernels."""
  if not stems:
    return {"kernels": 0}
  ratios = np.array([qualities[stem].ratio for stem in stems])
  taus = np.array([qualities[stem].tau for stem in stems])
  counts = np.array([qualities[stem].configurations for stem in stems])
  default = np.array([kernels[stem]["config_runtime_normalizers"][0]
                      / kernels[stem]["config_runtime"].min() for stem in stems])
  return {
      "kernels": len(stems),
      "configurations": int(counts.sum()),
      "configurations_per_kernel": [int(counts.min()), int(counts.max())],
      "tau_between_passes": {"mean": round(float(taus.mean()), 4),
                             "lowest": round(float(taus.min()), 4)},
      "slowest_over_fastest": {"median": round(float(np.median(ratios)), 2),
                               "lowest": round(float(ratios.min()), 2),
                               "highest": round(float(ratios.max()), 2)},
      "tau_of_largest_output_tile_first": round(
          float(np.mean([_largest_first(kernels[stem]) for stem in stems])), 4),
      "slowdown_of_default_tile": {"mean": round(float(default.mean() - 1), 4),
                                   "median": round(float(np.median(default) - 1), 4)},
  }


def assemble(collected: pathlib.Path, npz: pathlib.Path, output: pathlib.Path, name: str,
             seed: int, earlier: extending.Earlier = extending.NONE) -> dict[str, Any]:
  """Builds the collection's folder.

  Args:
    collected: the collector's output folder, for `report.json`.
    npz: folder that `tpugraphs-rank featurize` wrote.
    output: the collection's folder; `.npz` files of an earlier assembly there are replaced.
    name: name of the collection, for instance `tile:xla_cpu`.
    seed: seed of the splits.
    earlier: a collection whose kernels this one holds as well, in their splits.

  Returns:
    The contents of `measurement.json`.

  Raises:
    MissingDataError: the report or a kernel's `.npz` file does not exist.
    DataError: a file is damaged, or no kernel passes the gates.
  """
  report = plans.read_report(collected, "kernels")
  kernels = graph_files.read_all(npz, report["kernels"], graph_files.TILE_KEYS,
                                 [collected / "pass1.pb", collected / "pass2.pb"])
  earlier.check_new(kernels)
  qualities, measured = gates.assess_all(kernels, gates.TILE, f"kernels in {npz}")
  all_measured = _summary(sorted(qualities), kernels, qualities)
  families = gates.count_by_family(
      (geometry.parse_stem(stem).family, qualities[stem]) for stem in sorted(qualities))
  earlier.add_to(kernels, qualities, gates.TILE)
  kept = sorted([*measured, *earlier.graphs])
  hashes = {stem: twins.graph_hash(kernels[stem]["node_opcode"], kernels[stem]["edge_index"],
                                   kernels[stem]["node_feat"]) for stem in kept}
  assigned = splits.split(hashes, catalogue.UNSEEN_GROUPS, seed, earlier.splits)
  graph_files.write_splits(output / "npz", kernels, assigned)

  groups: dict[str, list[str]] = {}
  for stem in kept:
    family = geometry.parse_stem(stem).definition
    members = groups.setdefault(family.group, [])
    if family.name not in members:
      members.append(family.name)
  by_split = {split: [stem for stem in kept if assigned[stem] == split]
              for split in graph_files.SPLITS}

  def group_of(stem: str) -> str:
    return geometry.parse_stem(stem).definition.group

  measurement = {
      "machine": report["machine"], "versions": report["versions"], "dates": report["dates"],
      **machines.of_measurement(report),
      "seed": report["seed"], "split_seed": seed, "protocol": report["protocol"],
      "gates": {
          "lowest_tau_between_passes": gates.TILE.tau, "lowest_ratio": gates.TILE.ratio,
          "fewest_configurations": gates.TILE.configurations,
          "failed_to_measure": report["failed"], "not_measured": report["unfinished"],
          "configurations_dropped": gates.count_dropped(report["kernels"].values()),
          "families": families},
      "all_measured": all_measured,
      **earlier.description(measured),
      "splits": {split: _summary(stems, kernels, qualities) for split, stems in by_split.items()},
      "test_of_seen_groups": _summary(
          [stem for stem in by_split["test"] if group_of(stem) not in catalogue.UNSEEN_GROUPS],
          kernels, qualities),
      "unseen_groups": {group: _summary(
          [stem for stem in by_split["test"] if group_of(stem) == group], kernels, qualities)
                        for group in catalogue.UNSEEN_GROUPS},
      "groups": {group: _summary([stem for stem in kept if group_of(stem) == group],
                                 kernels, qualities) for group in sorted(groups)},
  }
  files.write_json(output / "measurement.json", measurement)
  graph_files.write_descriptor(
      output, name, earlier.processors(report["machine"]["cpu"]), by_split, groups,
      "Real kernels compiled by XLA and timed on one core of the target CPU under "
      "many tile sizes; see README.md and measurement.json in this folder.")
  return measurement
