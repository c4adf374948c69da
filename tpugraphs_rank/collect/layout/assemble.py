"""From featurized programs to a collection: gates, splits, descriptor, report. Needs no JAX.

Reads the `.npz` files of `tpugraphs-rank featurize` and the collector's `report.json`; writes
`collection.json`, `measurement.json` and `npz/<split>/<program>.npz`.
"""

import collections
from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.collect.common import extending
from tpugraphs_rank.collect.common import gates
from tpugraphs_rank.collect.common import graph_files
from tpugraphs_rank.collect.common import machines
from tpugraphs_rank.collect.common import plans
from tpugraphs_rank.collect.layout import catalogue
from tpugraphs_rank.data import twins

# What makes a layout slow here, for readers who know other layout data.
SEMANTICS = "relayout-copies"
_TENSORS, _RANK = 3, 6


def constraints(program: graph_files.Arrays) -> np.ndarray:
  """The number of tensors for which each configuration requests a layout, (c,)."""
  configured = program["node_config_feat"]
  firsts = configured.reshape(*configured.shape[:2], _TENSORS, _RANK)[..., 0]
  return (firsts >= 0).sum(axis=(1, 2))


def _spread(values: Sequence[float], digits: int) -> dict[str, float]:
  return {"lowest": round(float(np.min(values)), digits),
          "median": round(float(np.median(values)), digits),
          "mean": round(float(np.mean(values)), digits),
          "highest": round(float(np.max(values)), digits)}


def _summary(stems: Sequence[str], programs: Mapping[str, graph_files.Arrays],
             qualities: Mapping[str, gates.Quality]) -> dict[str, Any]:
  """Figures of a set of programs."""
  if not stems:
    return {"programs": 0}
  chosen = [programs[stem] for stem in stems]
  counts = [qualities[stem].configurations for stem in stems]
  return {
      "programs": len(stems),
      "configurations": sum(counts),
      "configurations_per_program": [min(counts), max(counts)],
      "nodes": _spread([len(program["node_opcode"]) for program in chosen], 0),
      "configurable_nodes": _spread([len(program["node_config_ids"]) for program in chosen], 0),
      "tau_between_passes": _spread([qualities[stem].tau for stem in stems], 4),
      "slowest_over_fastest": _spread([qualities[stem].ratio for stem in stems], 3),
      "tau_of_fewest_constraints_first": _spread(
          [gates.kendall_tau_b(constraints(program), program["config_runtime"])
           for program in chosen], 4),
      "slowdown_of_default": _spread(
          [program["config_runtime_normalizers"][0] / program["config_runtime"].min() - 1
           for program in chosen], 4),
  }


def check_graphs(programs: Mapping[str, graph_files.Arrays]) -> None:
  """Checks that no graph is in two splits.

  Raises:
    DataError: a graph is in two splits; the message names the two programs.
  """
  seen: dict[str, str] = {}
  for stem, program in programs.items():
    digest = twins.graph_hash(program["node_opcode"], program["edge_index"], program["node_feat"])
    other = seen.setdefault(digest, stem)
    splits = [catalogue.parse_stem(name).definition.split for name in (other, stem)]
    if splits[0] != splits[1]:
      raise errors.DataError(
          f"{other} ({splits[0]}) and {stem} ({splits[1]}) are the same graph; change a shape in "
          "tpugraphs_rank/collect/layout/catalogue.py")


def _kinds(report: Mapping[str, Any], programs: Mapping[str, graph_files.Arrays],
           kept: Sequence[str]) -> dict[str, dict[str, float]]:
  """For each sampling method: its share of the configurations, and of the fastest ones."""
  sampled: collections.Counter = collections.Counter()
  fastest: collections.Counter = collections.Counter()
  for stem in kept:
    kinds = report["programs"][stem]["kinds"]
    if len(kinds) != len(programs[stem]["config_runtime"]):
      raise errors.DataError(
          f"the report has {len(kinds)} configurations of {stem}, but its graph has "
          f"{len(programs[stem]['config_runtime'])}; run the collector again")
    sampled.update(kinds)
    fastest[kinds[int(programs[stem]["config_runtime"].argmin())]] += 1
  return {kind: {"share": round(count / sum(sampled.values()), 4),
                 "fastest_of_programs": fastest[kind]} for kind, count in sampled.items()}


def assemble(collected: pathlib.Path, npz: pathlib.Path, output: pathlib.Path, name: str,
             earlier: extending.Earlier = extending.NONE) -> dict[str, Any]:
  """Builds the collection's folder.

  Args:
    collected: the collector's output folder, for `report.json`.
    npz: folder that `tpugraphs-rank featurize` wrote.
    output: the collection's folder; `.npz` files of an earlier assembly there are replaced.
    name: name of the collection, for instance `layout:xla_cpu:mixed`.
    earlier: a collection whose programs this one holds as well.

  Returns:
    The contents of `measurement.json`.

  Raises:
    MissingDataError: the report or a program's `.npz` file does not exist.
    DataError: a file is damaged, two splits share a graph, or no program passes the gates.
  """
  report = plans.read_report(collected, "programs", {"kinds": [str]})
  programs = graph_files.read_all(npz, report["programs"], graph_files.LAYOUT_KEYS,
                                  [collected / "pass1", collected / "pass2"])
  earlier.check_new(programs)
  qualities, measured = gates.assess_all(programs, gates.LAYOUT, f"programs in {npz}")
  all_measured = _summary(sorted(qualities), programs, qualities)
  families = gates.count_by_family(
      (catalogue.parse_stem(stem).family, qualities[stem]) for stem in sorted(qualities))
  drawn = _kinds(report, programs, measured)
  seconds = round(sum(sum(report["programs"][stem]["seconds"]) for stem in programs)
                  / sum(qualities[stem].configurations for stem in programs), 3)
  earlier.add_to(programs, qualities, gates.LAYOUT)
  kept = sorted([*measured, *earlier.graphs])
  check_graphs({stem: programs[stem] for stem in kept})
  definitions = {stem: catalogue.parse_stem(stem).definition for stem in programs}
  graph_files.write_splits(output / "npz", programs,
                           {stem: definitions[stem].split for stem in kept})

  groups: dict[str, list[str]] = {}
  for stem in kept:
    members = groups.setdefault(definitions[stem].group, [])
    family = catalogue.parse_stem(stem).family
    if family not in members:
      members.append(family)
  by_split = {split: [stem for stem in kept if definitions[stem].split == split]
              for split in graph_files.SPLITS}
  measurement = {
      "semantics": SEMANTICS,
      "machine": report["machine"], "versions": report["versions"], "dates": report["dates"],
      **machines.of_measurement(report),
      "seed": report["seed"], "protocol": report["protocol"],
      "gates": {
          "lowest_tau_between_passes": gates.LAYOUT.tau,
          "fewest_configurations": gates.LAYOUT.configurations,
          "failed_to_measure": report["failed"], "not_measured": report["unfinished"],
          "configurations_dropped": gates.count_dropped(report["programs"].values()),
          "families": families},
      "drawn": drawn, "seconds_per_configuration": seconds, "all_measured": all_measured,
      **earlier.description(measured),
      "splits": {split: _summary(stems, programs, qualities) for split, stems in by_split.items()},
      "modes": {mode: _summary([stem for stem in kept if stem.endswith(f".{mode}")], programs,
                               qualities) for mode in catalogue.MODES},
      "families": {
          family: {"split": catalogue.FAMILIES[family].split,
                   **_summary([stem for stem in kept if stem.startswith(f"{family}.")], programs,
                              qualities)} for family in sorted(sum(groups.values(), []))},
  }
  files.write_json(output / "measurement.json", measurement)
  graph_files.write_descriptor(
      output, name, earlier.processors(report["machine"]["cpu"]), by_split, groups,
      "Real programs compiled by XLA and timed on one core of the target CPU under "
      f"many requested layouts ({SEMANTICS}); see README.md and measurement.json in "
      "this folder.")
  return measurement
