"""From the records of the passes to raw `TuningData`: the same runs in each pass's `.pb` file."""

from collections.abc import Sequence
import pathlib
from typing import Any

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.collect.common import machines
from tpugraphs_rank.collect.common import plans
from tpugraphs_rank.collect.tile import geometry
from tpugraphs_rank.collect.tile import planned
from tpugraphs_rank.hlo import tuning_pb2

# What identifies a configuration in a record.
TILE = {"output": [int], "reduction": [int]}


def usable(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
  """The configurations of a kernel that are used, and why the others are not.

  A configuration is used if every pass measured it and its optimised HLO differs from that of all
  earlier ones. The default comes first, so it stays when another configuration equals it.

  Args:
    records: the records of one kernel from `measure.measure_kernel`, one for each pass.

  Returns:
    `indices` (into `configurations`) and `dropped`: reason -> number of configurations.
  """
  indices: list[int] = []
  dropped: dict[str, int] = {}
  seen = set()
  for index, entries in enumerate(zip(*(record["configurations"] for record in records))):
    reasons = [entry["status"] for entry in entries if entry["status"] != "ok"]
    if not reasons and entries[0]["optimised_hlo"] in seen:
      reasons = ["same_program"]
    if reasons:
      dropped[reasons[0]] = dropped.get(reasons[0], 0) + 1
      continue
    seen.add(entries[0]["optimised_hlo"])
    indices.append(index)
  return {"indices": indices, "dropped": dropped}


def tuning_module(record: dict[str, Any], indices: Sequence[int], kernel: planned.Kernel
                  ) -> tuning_pb2.ModuleTuningData:
  """One kernel as raw data.

  The output tile becomes `output_bounds`, the reduction tile `kernel_bounds`, the block of the
  first operand `input_bounds`. The default configuration is flagged.
  """
  data = tuning_pb2.ModuleTuningData(module=plans.module_proto(record))
  for index in indices:
    entry = record["configurations"][index]
    tile = geometry.Tile(tuple(entry["output"]), tuple(entry["reduction"]))
    if (len(tile.output), len(tile.reduction)) != (
        len(kernel.output_axes), len(kernel.reduction_axes)) or min(
            (*tile.output, *tile.reduction), default=1) < 1:
      raise errors.DataError(
          f"the record of {kernel.stem} is damaged: configuration {index} has the tile "
          f"{tile.output} {tile.reduction}; expected {len(kernel.output_axes)} and "
          f"{len(kernel.reduction_axes)} positive sides; delete it to measure it again")
    with plans.numbers_fit(record):
      run = data.runs.add(is_default=index == 0)
      config = run.op_config.tile_size_config
      config.output_bounds.extend(tile.output)
      config.kernel_bounds.extend(tile.reduction)
      config.input_bounds.extend(kernel.input_bounds(tile))
      run.profile.compute_time_ns = entry["runtime_ns"]
  return data


def _records(output: pathlib.Path, stem: str, passes: int) -> list[dict[str, Any]] | None:
  """The kernel's record in each pass, or None if one is missing."""
  paths = [plans.record_path(output, stem, number) for number in range(1, passes + 1)]
  if not all(path.exists() for path in paths):
    return None
  return [plans.read_record(path, TILE) for path in paths]


def write(output: pathlib.Path, kernels: Sequence[planned.Kernel], passes: int) -> dict[str, Any]:
  """Writes `pass<n>.pb` with all kernels that every pass measured, in the order of their names.

  A kernel is left out if a pass failed on it, if its default configuration is not usable, or if
  fewer than two configurations are.

  Returns:
    The report: `kernels` (stem -> candidates, dropped, seconds), `failed` (stem -> reason),
    `unfinished` (stems), `dates` (first and last measurement).
  """
  data = [tuning_pb2.TuningData() for _ in range(passes)]
  report: dict[str, Any] = {"kernels": {}, "failed": {}, "unfinished": []}
  dates = []
  for kernel in sorted(kernels, key=lambda kernel: kernel.stem):
    stem = kernel.stem
    records = _records(output, stem, passes)
    if records is None:
      report["unfinished"].append(stem)
      continue
    failures = [record["failed"] for record in records if "failed" in record]
    if failures:
      report["failed"][stem] = failures[0]
      continue
    choice = usable(records)
    if len(choice["indices"]) < 2 or choice["indices"][0] != 0:
      report["failed"][stem] = f"no usable default configuration (dropped: {choice['dropped']})"
      continue
    for collected, record in zip(data, records):
      collected.modules.append(tuning_module(record, choice["indices"], kernel))
    dates += [record["date"] for record in records]
    report["kernels"][stem] = {
        "candidates": len(records[0]["configurations"]), "dropped": choice["dropped"],
        "seconds": [record["total_s"] for record in records], **machines.of_record(records[0])}
  for number, collected in enumerate(data, 1):
    with files.atomic_write(output / f"pass{number}.pb") as file:
      file.write(collected.SerializeToString(deterministic=True))
  report["dates"] = [min(dates), max(dates)] if dates else []
  return report
