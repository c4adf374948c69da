"""Measurements of several machines in one collector's folder: shared work, and its assembly.

  claims/                  which machine measures which program, and the common plan
  machines/NAME/           the folder of a machine, like that of a collector that works alone
  machines.json            written by `merge`: who measured what, and how well machines agree

`merge` copies the records of one machine for each program into the folder's own `measured/`.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import itertools
import json
import logging
import pathlib
import time
from typing import Any

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import folder_locks
from tpugraphs_rank import folder_settings
from tpugraphs_rank import json_shapes
from tpugraphs_rank.collect.common import claims as claims_lib
from tpugraphs_rank.collect.common import gates
from tpugraphs_rank.collect.common import plans
from tpugraphs_rank.collect.common import protocol

FOLDER, REPORT = "machines", "machines.json"
_ABOUT = "machine.json"
_SAME = ("cpu", "versions")
_POLL_S = 5.0
_REMEDY = "restore it, or measure again"
_DESCRIPTION = {"machine": dict, "versions": dict}
# What is used of a record: configurations of layouts, or tiles.
_RECORD = ({"failed": str}, {"configurations": [
    {"status": str, "layouts": str, "runtime_ns?": float}]}, {"configurations": [
        {"status": str, "output": [int], "reduction": [int], "runtime_ns?": float}]})


@dataclasses.dataclass(frozen=True)
class Sharing:
  """How this machine takes part.

  Attributes:
    machine: its name.
    common_programs: number of programs that every machine measures, to compare them.
    stale_s: seconds after which a claim that is not renewed counts as that of a dead machine.
    wait: whether to wait for the programs that others measure, and to take over those of machines
      that die.
  """

  machine: str
  common_programs: int = 3
  stale_s: float = 600.0
  wait: bool = False


def sharing(arguments: argparse.Namespace) -> Sharing:
  """This machine's part, from the collector's flags."""
  return Sharing(arguments.machine, arguments.common_programs, arguments.stale_after,
                 arguments.wait)


def prepare(output: pathlib.Path, machine: str | None, assemble_only: bool, passes: int) -> bool:
  """Merges what several machines have measured, if that is wanted.

  Args:
    output: the collector's folder.
    machine: the name of this machine, if it shares the work.
    assemble_only: whether nothing is to be measured.
    passes: number of passes.

  Returns:
    Whether this machine is to measure its part.

  Raises:
    ConfigError: the flags do not fit the folder.
  """
  if machine is not None and assemble_only:
    raise errors.ConfigError("--assemble_only merges all machines; leave out --machine")
  if machine is not None and (output / "plan.json").exists() and not is_shared(output):
    raise errors.ConfigError(
        f"one machine has measured in {output} without --machine; choose another --output to share "
        "the work")
  if machine is None and is_shared(output):
    if not assemble_only:
      raise errors.ConfigError(
          f"several machines measure in {output}; name this one with --machine, or merge what they "
          "have measured with --assemble_only")
    merge(output, passes)
  return machine is not None


def of_record(record: Mapping[str, Any]) -> dict[str, Any]:
  """The machine of a merged record, for the report; empty if one machine has measured alone."""
  return {"machine": record["machine"]} if "machine" in record else {}


@contextlib.contextmanager
def member(shared: pathlib.Path, plan: dict[str, Any], fixed: Sequence[str], items: str,
           sharing: Sharing) -> Iterator[pathlib.Path]:
  """The folder of this machine, with the plan; no other process works in it during the block.

  Args:
    shared: the folder that the machines share.
    plan, fixed, items: as of `plans.store`.
    sharing: this machine's part.

  Raises:
    RunDirectoryError: the machines have other settings, processors or versions of JAX; or another
      process uses the name of this machine.
  """
  claims_lib.check_machine(sharing.machine)
  about = {"machine": protocol.machine(), "cpu": protocol.cpu_model(),
           "versions": plans.package_versions()}
  path = shared / "claims" / "plan.json"
  same = {key: about[key] for key in _SAME}
  if path.exists():
    folder_settings.refuse_if_different(
        path, folder_settings.differences(json_shapes.read(path, dict, _REMEDY), same),
        "Measurements of different processors or compilers do not belong in one collection: choose "
        "another --output for this machine")
  plans.store(shared / "claims", {**plan, **same}, (*fixed, *_SAME), items)
  folder = shared / FOLDER / sharing.machine
  with folder_locks.hold(folder):
    plans.store(folder, plan, fixed, items)
    files.write_json(folder / _ABOUT, about)
    yield folder


def measure(shared: pathlib.Path, stems: Sequence[str], sharing: Sharing,
            work: Callable[[Callable[[int], list[str]], Callable[[str], None]], bool],
            alone: Callable[[Sequence[str]], Any]) -> list[str]:
  """Measures what no other machine measures, after the common programs.

  Args:
    shared: the folder that the machines share.
    stems: all programs.
    sharing: this machine's part.
    work: measures programs until its first argument, which claims up to N of them, returns none;
      calls its second argument with each one that is measured. Returns whether time is left.
    alone: measures these programs; for the common ones, which need no claim.

  Returns:
    The programs that other machines still measure.
  """
  both = claims_lib.common(stems, sharing.common_programs)
  alone(both)
  others = [stem for stem in stems if stem not in set(both)]
  waiting = 0
  with claims_lib.Claims(shared / "claims", sharing.machine, sharing.stale_s) as claims:
    while True:
      has_time = work(lambda most: claims.take(others, most, len(_names(shared)) or 1),
                      claims.finish)
      busy = claims.measured_elsewhere(others)
      if not (sharing.wait and has_time):
        return busy
      while busy and not claims.free(others):
        if len(busy) != waiting:
          waiting = len(busy)
          logging.info("waiting for %d programs that other machines measure", waiting)
        time.sleep(min(_POLL_S, sharing.stale_s / 2))
        busy = claims.measured_elsewhere(others)
      if not busy and not claims.free(others):
        return []


def _names(shared: pathlib.Path) -> list[str]:
  """The machines that have measured in a folder."""
  if not is_shared(shared):
    return []
  return sorted(path.name for path in (shared / FOLDER).iterdir() if path.is_dir())


def is_shared(folder: pathlib.Path) -> bool:
  """Whether several machines have measured in a folder."""
  return (folder / FOLDER).is_dir()


def _whole(folder: pathlib.Path, passes: int) -> dict[str, dict[int, dict[str, Any]]]:
  """The records of a machine's programs that have all passes: stem -> pass -> record."""
  records: dict[str, dict[int, dict[str, Any]]] = {}
  for path in sorted((folder / "measured").glob("*.pass*.json")):
    stem, _, number = path.name.removesuffix(".json").rpartition(".pass")
    if number.isdigit():
      record = json_shapes.read(path, _RECORD, f"delete {path.name} to measure it again")
      _check_runtimes(path, record)
      records.setdefault(stem, {})[int(number)] = record
  return {stem: by_pass for stem, by_pass in records.items()
          if set(range(1, passes + 1)) <= set(by_pass)
          or any("failed" in record for record in by_pass.values())}


def _check_runtimes(path: pathlib.Path, record: Mapping[str, Any]) -> None:
  """Raises DataError if a measured time is not above zero."""
  for entry in record.get("configurations", ()):
    if entry.get("runtime_ns", 1) <= 0:
      raise errors.DataError(
          f"{path}: runtime_ns is {entry['runtime_ns']}; expected a time above 0; delete "
          f"{path.name} to measure it again")


def merge(shared: pathlib.Path, passes: int) -> dict[str, Any]:
  """Copies each program's records of one machine into `measured/`, and compares the machines.

  A program that several machines have measured counts once, as the machine measured it whose name
  comes first. Every copied record names its machine.

  Returns:
    The contents of `machines.json`: `machines` (name -> description, versions, programs), and
    `agreement`: for each pair of machines with programs in common, their number, the mean of
    Kendall's tau between the machines, that of tau between the passes of one machine, and the
    median ratio of the programs' median times (second machine over first).

  Raises:
    DataError: a record is damaged.
  """
  records = {name: _whole(shared / FOLDER / name, passes) for name in _names(shared)}
  # A machine that ended before its first program may not have described itself.
  names = [name for name in records
           if records[name] or (shared / FOLDER / name / _ABOUT).exists()]
  chosen: dict[str, str] = {}
  for name in names:
    for stem in records[name]:
      failed = any("failed" in record for record in records[name][stem].values())
      if stem not in chosen or (not failed and any(
          "failed" in record for record in records[chosen[stem]][stem].values())):
        chosen[stem] = name
  for stem, name in chosen.items():
    for number, record in records[name][stem].items():
      files.write_json(plans.record_path(shared, stem, number), {**record, "machine": name})
  agreement = [row for one, other in itertools.combinations(names, 2)
               if (row := _agreement(one, other, records, passes))]
  report = {
      "machines": {name: {**_about(shared / FOLDER / name),
                          "programs": sum(chosen[stem] == name for stem in chosen)}
                   for name in names},
      "agreement": agreement}
  files.write_json(shared / REPORT, report)
  for figures in agreement:
    logging.info("%s", text(figures))
  return report


def _about(folder: pathlib.Path) -> dict[str, Any]:
  stored = json_shapes.read(folder / _ABOUT, _DESCRIPTION, _REMEDY)
  return {"description": stored["machine"], "versions": stored["versions"]}


def text(row: Mapping[str, Any]) -> str:
  """A row of `agreement` in words."""
  one, other = row["machines"]
  below = " (they disagree: look for other load on one of them)" if (
      row["tau"] < gates.LAYOUT.tau) else ""
  return (f"{one} and {other}: Kendall's tau {row['tau']:.3f} over {row['programs']} common "
          f"programs, {row['tau_between_passes']:.3f} between passes of one machine; "
          f"{other} takes {row['ratio_of_medians']:.3f} times as long{below}")


def _agreement(one: str, other: str, records: Mapping[str, Mapping[str, Any]], passes: int
               ) -> dict[str, Any] | None:
  """How well two machines agree on their common programs; None without any."""
  taus, of_passes, ratios = [], [], []
  for stem in sorted(set(records[one]) & set(records[other])):
    first, second = (_times(records[name][stem], passes) for name in (one, other))
    shared = sorted(set(first) & set(second))
    if len(shared) < 2:
      continue
    a, b = (np.array([times[key] for key in shared]) for times in (first, second))  # (c, passes)
    taus.append(gates.kendall_tau_b(a.mean(axis=1), b.mean(axis=1)))
    of_passes += [gates.assess(times.T, gates.LAYOUT).tau for times in (a, b)]
    ratios.append(float(np.median(b.mean(axis=1)) / np.median(a.mean(axis=1))))
  if not taus:
    return None
  return {"machines": [one, other], "programs": len(taus), "tau": float(np.mean(taus)),
          "lowest_tau": min(taus), "tau_between_passes": float(np.mean(of_passes)),
          "ratio_of_medians": float(np.median(ratios))}


def _times(by_pass: Mapping[int, Mapping[str, Any]], passes: int) -> dict[str, list[float]]:
  """The runtimes (passes,) of the configurations that every pass has measured."""
  tables: list[dict[str, float]] = []
  for number in range(1, passes + 1):
    record = by_pass.get(number, {})
    tables.append({
        json.dumps(entry["layouts"] if "layouts" in entry else
                   [entry["output"], entry["reduction"]]): entry["runtime_ns"]
        for entry in record.get("configurations", ())
        if entry["status"] == "ok" and "runtime_ns" in entry})
  keys = set(tables[0]).intersection(*tables[1:])
  return {key: [table[key] for table in tables] for key in keys}


def of_measurement(report: Mapping[str, Any]) -> dict[str, Any]:
  """What `measurement.json` says about several machines, from the collector's report."""
  return {key: report[key] for key in ("machines", "agreement") if key in report}


def of_report(shared: pathlib.Path) -> dict[str, Any]:
  """What `report.json` says about the machines; empty if one machine has measured alone."""
  if not is_shared(shared):
    return {}
  stored = json_shapes.read(shared / REPORT, {
      "machines": {str: {"description": dict, "versions": dict}}, "agreement": [dict]}, _REMEDY)
  descriptions = [entry["description"] for entry in stored["machines"].values()]
  versions = [entry["versions"] for entry in stored["machines"].values()]
  if not descriptions:
    raise errors.DataError(f"{shared / FOLDER} holds no machine")
  return {"machine": descriptions[0], "versions": versions[0], **stored}
