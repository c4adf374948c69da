"""From the records of the passes to raw `ModuleTuningData`: the same runs in each pass's file."""

from collections.abc import Sequence
import pathlib
from typing import Any

import numpy as np

from tpugraphs_rank import files
from tpugraphs_rank.collect.common import gates
from tpugraphs_rank.collect.common import machines
from tpugraphs_rank.collect.common import plans
from tpugraphs_rank.collect.layout import configurations
from tpugraphs_rank.hlo import tuning_pb2

# What identifies a configuration in a record, and what else is used of a record.
LAYOUTS = {"layouts": str, "kind?": str, "reason?": str}
_SITES = {"sites": [{"node": int, "opcode": str}]}


def repeat_of(number: int, passes: int) -> int:
  """The number of the record that holds the repetition of a pass."""
  return number + passes


def read_passes(output: pathlib.Path, stem: str, passes: int) -> list[dict[str, Any]]:
  """The existing records of a program, one for each pass.

  If every pass was repeated, a record holds the faster time of each configuration.
  """
  def read(number: int) -> dict[str, Any] | None:
    path = plans.record_path(output, stem, number)
    return plans.read_record(path, LAYOUTS, more=_SITES) if path.exists() else None

  numbers = range(1, passes + 1)
  first = [read(number) for number in numbers]
  second = [read(repeat_of(number, passes)) for number in numbers]
  pairs = [(one, other) for one, other in zip(first, second) if one and other]
  if len(pairs) == passes and not any("failed" in record for pair in pairs for record in pair):
    return [_faster(one, other) for one, other in pairs]
  return [record for record in first if record]


def _faster(record: dict[str, Any], repeat: dict[str, Any]) -> dict[str, Any]:
  """The record of a pass with the faster of the two times of each configuration."""
  again = {entry["layouts"]: entry for entry in repeat["configurations"]}
  entries = []
  for entry in record["configurations"]:
    other = again.get(entry["layouts"], {"status": "not_repeated"})
    if entry["status"] == "ok" and other["status"] != "ok":
      entry = {**entry, "status": other["status"]}
    elif entry["status"] == "ok" and other["optimised_hlo"] != entry["optimised_hlo"]:
      entry = {**entry, "status": "compiled_differently"}
    elif entry["status"] == "ok":
      entry = {**entry, "runtime_ns": min(entry["runtime_ns"], other["runtime_ns"])}
    entries.append(entry)
  return {**record, "configurations": entries, "date": max(record["date"], repeat["date"]),
          "total_s": record["total_s"] + repeat["total_s"]}


def agreement(output: pathlib.Path, stem: str, passes: int) -> float:
  """Kendall's tau between the passes over a program: the lowest of any pair of passes."""
  entries = usable(read_passes(output, stem, passes))["entries"]
  times = np.array([[entry["runtime_ns"] for entry in by_pass] for by_pass in entries])
  return gates.assess(times.reshape(-1, passes).T, gates.LAYOUT).tau


def usable(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
  """The configurations of a program that are used, and why the others are not.

  The first pass drops configurations that compile to the same program as an earlier one, and those
  that compute different numbers. A later pass may drop more.

  Args:
    records: the records of one program from `measure.measure`, one for each pass.

  Returns:
    `entries`: for each configuration that is used, its entries in all passes; `dropped`: reason ->
    number of configurations.
  """
  later = [{entry["layouts"]: entry for entry in record["configurations"]}
           for record in records[1:]]
  entries: list[list[dict[str, Any]]] = []
  dropped: dict[str, int] = {}
  for first in records[0]["configurations"]:
    by_pass = [first]
    if first["status"] == "ok":
      by_pass += [table.get(first["layouts"], {"status": "not_repeated"}) for table in later]
    reasons = [entry["status"] for entry in by_pass if entry["status"] != "ok"]
    if not reasons and len({entry["optimised_hlo"] for entry in by_pass}) > 1:
      reasons = ["compiled_differently"]
    if reasons:
      dropped[reasons[0]] = dropped.get(reasons[0], 0) + 1
    else:
      entries.append(by_pass)
  return {"entries": entries, "dropped": dropped}


def tuning_module(record: dict[str, Any], entries: Sequence[dict[str, Any]]
                  ) -> tuning_pb2.ModuleTuningData:
  """One program as raw data; the default configuration comes first and is flagged.

  Args:
    record: the record of a pass, for the program and its sites.
    entries: the pass's entries of the configurations that are used.
  """
  with plans.numbers_fit(record):
    data = tuning_pb2.ModuleTuningData(
        module=plans.module_proto(record),
        config_index_to_node=[site["node"] for site in record["sites"]])
    for index, entry in enumerate(entries):
      run = data.runs.add(is_default=index == 0)
      for layouts in configurations.from_text(entry["layouts"]):
        node = run.module_config.layout_config.nodes.add()
        for layout in layouts:
          node.tensors.add(dims=layout)
      run.profile.compute_time_ns = entry["runtime_ns"]
  return data


def write(output: pathlib.Path, stems: Sequence[str], passes: int) -> dict[str, Any]:
  """Writes `pass<n>/<stem>.pb` of all programs that every pass measured.

  A program is left out if a pass failed on it, if its default configuration is not usable, or if
  fewer than two configurations are.

  Returns:
    The report: `programs` (stem -> sites, candidates, dropped, kinds, seconds), `failed` (stem ->
    reason), `unfinished` (stems), `dates` (first and last measurement).
  """
  report: dict[str, Any] = {"programs": {}, "failed": {}, "unfinished": []}
  dates: list[str] = []
  for stem in sorted(stems):
    records = read_passes(output, stem, passes)
    failures = [record["failed"] for record in records if "failed" in record]
    if failures:
      report["failed"][stem] = failures[0]
      continue
    if len(records) < passes:
      report["unfinished"].append(stem)
      continue
    choice = usable(records)
    entries = choice["entries"]
    if len(entries) < 2 or entries[0][0] is not records[0]["configurations"][0]:
      report["failed"][stem] = f"no usable default configuration (dropped: {choice['dropped']})"
      continue
    for number, record in enumerate(records):
      module = tuning_module(record, [by_pass[number] for by_pass in entries])
      with files.atomic_write(output / f"pass{number + 1}" / f"{stem}.pb") as file:
        file.write(module.SerializeToString(deterministic=True))
    kinds = [by_pass[0].get("kind", "") for by_pass in entries]
    dates += [record["date"] for record in records]
    report["programs"][stem] = {
        "sites": [site["opcode"] for site in records[0]["sites"]],
        "candidates": len(records[0]["configurations"]), "dropped": choice["dropped"],
        "kinds": kinds, "seconds": [record["total_s"] for record in records],
        **machines.of_record(records[0])}
  report["dates"] = [min(dates), max(dates)] if dates else []
  return report
