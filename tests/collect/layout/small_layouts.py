"""Artificial records of a layout measurement, as the collector's passes write them."""

import base64
from collections.abc import Sequence
from typing import Any

from tpugraphs_rank.collect.layout import configurations as configurations_lib
from tpugraphs_rank.hlo import hlo_pb2

SITES = [configurations_lib.Site(2, "dot", ((8, 4), (8, 6), (6, 4))),
         configurations_lib.Site(3, "reshape", ((2, 4, 4), (8, 4)))]


def module(name: str = "jit_program", rows: int = 8) -> bytes:
  """HLO of a product and a reshape of it."""
  proto = hlo_pb2.HloModuleProto(name=name, entry_computation_id=1)
  computation = proto.computations.add(name="main", id=1, root_id=14)

  def add(identity: int, opcode: str, dimensions: Sequence[int], operands: Sequence[int] = (),
          **fields: Any) -> None:
    instruction = computation.instructions.add(
        name=f"{opcode}.{identity}", opcode=opcode, id=identity, operand_ids=operands, **fields)
    instruction.shape.element_type = 11
    instruction.shape.dimensions.extend(dimensions)
    instruction.shape.layout.minor_to_major.extend(reversed(range(len(dimensions))))

  add(11, "parameter", (rows, 6))
  add(12, "parameter", (6, 4), parameter_number=1)
  add(13, "dot", (rows, 4), (11, 12))
  add(14, "reshape", (2, rows // 2, 4), (13,))
  return proto.SerializeToString()


def configurations(count: int) -> list[configurations_lib.Configuration]:
  """The default and other configurations, all different."""
  result = [configurations_lib.default(SITES)]
  orders = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
  flat = [(), (0, 1), (1, 0)]
  for number in range(1, count):
    dot = (flat[number % 3], flat[number // 3 % 3], flat[number // 9 % 3])
    result.append((dot, (orders[number // 27 % 6], ())))
  assert len(set(result)) == count
  return result


def record(stem: str, pass_number: int, count: int = 44, step_ns: int = 1000,
           statuses: dict[int, str] | None = None,
           programs: dict[int, str] | None = None, rows: int = 8) -> dict[str, Any]:
  """The record of a pass; configuration i takes 100 + i steps plus the number of the pass in ns.

  Args:
    stem: the program.
    pass_number: 1 or later.
    count: of configurations.
    step_ns: length of a step; 0: all take equally long.
    statuses: configurations that are not `ok`.
    programs: digests of optimised HLO other than `program <i>`.
    rows: of the product.
  """
  entries = []
  for index, configuration in enumerate(configurations(count)):
    entry: dict[str, Any] = {
        "layouts": configurations_lib.to_text(configuration),
        "status": (statuses or {}).get(index, "ok"),
        "optimised_hlo": (programs or {}).get(index, f"program {index}")}
    if entry["status"] == "ok":
      entry["runtime_ns"] = 100_000 + step_ns * index + pass_number
      if pass_number == 1:  # The first pass samples them.
        entry["kind"] = "random" if index else "default"
    entries.append(entry)
  return {"stem": stem, "pass": pass_number, "seed": 0, "compile_s": 1.0, "total_s": 2.0,
          "date": f"2026-01-0{pass_number}T00:00:00+00:00",
          "module": base64.b64encode(module(rows=rows)).decode(),
          "sites": [{"node": site.node, "opcode": site.opcode,
                     "shapes": [list(shape) for shape in site.shapes]} for site in SITES],
          "configurations": entries}
