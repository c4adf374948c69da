"""From featurised kernels to a collection: gates, splits, descriptor, report. No JAX needed.

Reads the `.npz` of `tpugraphs_rank.cli.featurize` and the collector's `report.json`; writes
`collection.json`, `measurement.json` and `npz/<split>/<kernel>.npz`.
"""

import argparse
from collections.abc import Mapping
import logging
import pathlib
from typing import Any

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.collect.common import gates
from tpugraphs_rank.collect.common import graph_files
from tpugraphs_rank.collect.tile import catalogue
from tpugraphs_rank.collect.tile import geometry
from tpugraphs_rank.collect.tile import splits
from tpugraphs_rank.data import twins

KEYS = ("node_feat", "node_opcode", "edge_index", "config_feat", "config_runtime",
        "config_runtime_normalizers", "config_runtime_passes")


def _largest_first(kernel: graph_files.Arrays) -> float:
  """Tau of "largest output tile first" against the runtimes (column 15: the output's volume)."""
  return gates.kendall_tau_b(-kernel["config_feat"][:, 15], kernel["config_runtime"])


def _summary(stems: list[str], kernels: Mapping[str, graph_files.Arrays],
             judged: Mapping[str, gates.Quality]) -> dict[str, Any]:
  """Figures of a set of kernels."""
  if not stems:
    return {"kernels": 0}
  ratios = np.array([judged[stem].ratio for stem in stems])
  taus = np.array([judged[stem].tau for stem in stems])
  counts = np.array([judged[stem].configurations for stem in stems])
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
             seed: int) -> dict[str, Any]:
  """Builds the collection's folder.

  Args:
    collected: output folder of `tpugraphs_rank.collect.tile.collect` (for `report.json`).
    npz: folder that `tpugraphs_rank.cli.featurize` wrote.
    output: the collection's folder; npz files of an earlier assembly there are replaced.
    name: of the collection, for instance `tile:xla_cpu`.
    seed: of the splits.

  Returns:
    What `measurement.json` holds.

  Raises:
    MissingDataError: the report or a kernel's `.npz` is not there.
    DataError: a file is damaged or no kernel passes the gates.
  """
  report = files.read_json(collected / "report.json")
  kernels = graph_files.read_all(npz, list(report["kernels"]), KEYS,
                                 [collected / "pass1.pb", collected / "pass2.pb"])
  judged = {stem: gates.judge(found["config_runtime_passes"], gates.TILE)
            for stem, found in kernels.items()}
  kept = [stem for stem in kernels if not judged[stem].lost]
  if not kept:
    raise errors.DataError(f"none of the {len(kernels)} kernels in {npz} passes the gates")
  hashes = {stem: twins.graph_hash(kernels[stem]["node_opcode"], kernels[stem]["edge_index"],
                                   kernels[stem]["node_feat"]) for stem in kept}
  assigned = splits.split(hashes, catalogue.UNSEEN_GROUPS, seed)
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

  dropped: dict[str, int] = {}
  for entry in report["kernels"].values():
    for reason, count in entry["dropped"].items():
      dropped[reason] = dropped.get(reason, 0) + count
  measurement = {
      "machine": report["machine"], "versions": report["versions"], "dates": report["dates"],
      "seed": report["seed"], "split_seed": seed, "protocol": report["protocol"],
      "gates": {
          "lowest_tau_between_passes": gates.TILE.tau, "lowest_ratio": gates.TILE.ratio,
          "fewest_configurations": gates.TILE.configurations,
          "failed_to_measure": report["failed"], "not_measured": report["unfinished"],
          "configurations_dropped": dropped,
          "families": gates.losses((geometry.parse_stem(stem).family, judged[stem])
                                   for stem in sorted(judged))},
      "all_measured": _summary(sorted(judged), kernels, judged),
      "splits": {split: _summary(stems, kernels, judged) for split, stems in by_split.items()},
      "test_of_seen_groups": _summary(
          [stem for stem in by_split["test"] if group_of(stem) not in catalogue.UNSEEN_GROUPS],
          kernels, judged),
      "unseen_groups": {group: _summary(
          [stem for stem in by_split["test"] if group_of(stem) == group], kernels, judged)
                        for group in catalogue.UNSEEN_GROUPS},
      "groups": {group: _summary([stem for stem in kept if group_of(stem) == group],
                                 kernels, judged) for group in sorted(groups)},
  }
  files.write_json(output / "measurement.json", measurement)
  graph_files.write_descriptor(
      output, name, report["machine"]["cpu"], by_split, groups,
      "Real kernels compiled by XLA and timed on one core of the target CPU under "
      "many tile sizes; see README.md and measurement.json beside this file.")
  return measurement


def arguments_of(description: str, name: str) -> argparse.ArgumentParser:
  """What is said to make a collection of measured kernels; `name` is its own if none is given."""
  parser = argparse.ArgumentParser(description=description)
  parser.add_argument("--collected", required=True, type=pathlib.Path,
                      help="output folder of tpugraphs_rank.collect.tile.collect")
  parser.add_argument("--npz", required=True, type=pathlib.Path,
                      help="folder that tpugraphs_rank.cli.featurize wrote")
  parser.add_argument("--output", required=True, type=pathlib.Path,
                      help="the collection's folder")
  parser.add_argument("--name", default=name)
  return parser


def main(argv: list[str] | None = None) -> None:
  parser = arguments_of(__doc__, "tile:xla_cpu")
  parser.add_argument("--seed", type=int, default=0, help="of the splits")
  arguments = parser.parse_args(argv)
  logging.basicConfig(level=logging.INFO, format="%(message)s")
  measurement = assemble(arguments.collected, arguments.npz, arguments.output, arguments.name,
                         arguments.seed)
  for split, summary in measurement["splits"].items():
    logging.info("%s: %d kernels, %d configurations", split, summary["kernels"],
                 summary.get("configurations", 0))


if __name__ == "__main__":
  main()
