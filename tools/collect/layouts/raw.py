"""From the passes' records to raw `ModuleTuningData`: the same runs in each pass's `.pb`."""

import pathlib
from typing import Any, Dict, List, Sequence

from tools.collect import raw
from tools.collect.layouts import measure
from tools.collect.layouts import sampling
from tpugraphs_rank import files
from tpugraphs_rank.hlo import tuning_pb2


def usable(records: Sequence[Dict[str, Any]]) -> Dict[str, Any]:
  """Which configurations of a program count, and why the others do not.

  The first pass drops what it cannot tell from an earlier configuration and what computes other
  numbers; what a later pass finds wrong is dropped, too.

  Args:
    records: one record of `measure.measure` a pass, of one program.

  Returns:
    `entries`: for each configuration that counts its entry in every pass; `dropped`: reason ->
    how many.
  """
  later = [{entry["layouts"]: entry for entry in record["configurations"]}
           for record in records[1:]]
  entries: List[List[Dict[str, Any]]] = []
  dropped: Dict[str, int] = {}
  for first in records[0]["configurations"]:
    found = [first]
    if first["status"] == "ok":
      found += [table.get(first["layouts"], {"status": "not_repeated"}) for table in later]
    reasons = [entry["status"] for entry in found if entry["status"] != "ok"]
    if not reasons and len({entry["optimised_hlo"] for entry in found}) > 1:
      reasons = ["compiled_differently"]
    if reasons:
      dropped[reasons[0]] = dropped.get(reasons[0], 0) + 1
    else:
      entries.append(found)
  return {"entries": entries, "dropped": dropped}


def tuning_module(record: Dict[str, Any], entries: Sequence[Dict[str, Any]]
                  ) -> tuning_pb2.ModuleTuningData:
  """One program as raw data; the default configuration stands first and is flagged.

  Args:
    record: of a pass, for the program and its sites.
    entries: the pass's entries of the configurations that count.
  """
  data = tuning_pb2.ModuleTuningData(
      module=raw.module_proto(record),
      config_index_to_node=[site["node"] for site in record["sites"]])
  for index, entry in enumerate(entries):
    run = data.runs.add(is_default=index == 0)
    for layouts in sampling.from_text(entry["layouts"]):
      node = run.module_config.layout_config.nodes.add()
      for layout in layouts:
        node.tensors.add(dims=layout)
    run.profile.compute_time_ns = entry["runtime_ns"]
  return data


def write(output: pathlib.Path, stems: Sequence[str], passes: int) -> Dict[str, Any]:
  """Writes `pass<n>/<stem>.pb` of all programs that every pass measured.

  A program is left out where a pass failed on it, where its default configuration does not count,
  or where fewer than two configurations do.

  Returns:
    The report: `programs` (stem -> sites, candidates, dropped, kinds, seconds), `failed` (stem ->
    why), `unfinished` (stems), `dates` (first and last measurement).
  """
  report: Dict[str, Any] = {"programs": {}, "failed": {}, "unfinished": []}
  dates: List[str] = []
  for stem in sorted(stems):
    paths = [measure.record_path(output, stem, number) for number in range(1, passes + 1)]
    records = [files.read_json(path) for path in paths if path.exists()]
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
      module = tuning_module(record, [found[number] for found in entries])
      with files.atomic_write(output / f"pass{number + 1}" / f"{stem}.pb") as file:
        file.write(module.SerializeToString(deterministic=True))
    kinds = [found[0]["kind"] for found in entries]
    dates += [record["date"] for record in records]
    report["programs"][stem] = {
        "sites": [site["opcode"] for site in records[0]["sites"]],
        "candidates": len(records[0]["configurations"]), "dropped": choice["dropped"],
        "kinds": kinds, "seconds": [record["total_s"] for record in records]}
  report["dates"] = [min(dates), max(dates)] if dates else []
  return report
