"""The folder in which one program is measured: its files and what they hold.

  program.pb           the program with all fields and the configurations, a ModuleTuningData
  program.txt          the program as HLO text, if it came as text; program.pb then lacks fields
  plan.json            settings that do not change
  compiled/N.json,bin  the outcome and the machine code of configuration N; 0 is the default
  measured/NAME.passK.json   the record of a pass

This module needs no JAX.
"""

from collections.abc import Sequence
import pathlib
from typing import Any

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files
from tpugraphs_rank import json_shapes
from tpugraphs_rank.collect.common import plans
from tpugraphs_rank.collect.common import protocol
from tpugraphs_rank.collect.hlo import requests
from tpugraphs_rank.collect.layout import configurations
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import tuning_pb2

PROGRAM, TEXT, PLAN = "program.pb", "program.txt", "plan.json"
TUNED_HLO, TUNED_STABLEHLO = "tuned.hlo.pb", "tuned.mlir"  # The program with its best requests.
# What is used of the result of a search.
TUNED = {"finished": bool, "is_faster": bool, "nodes": [int], "best": {
    "layouts": str, "seconds": float, "default_seconds": float}}
AHEAD = "ahead"  # Machine code that helpers of `tune` compile ahead; see `session`.
STEM = "program"  # In the names of the records.
_OUTCOME = {"status": str, "reason?": str, "optimised_hlo?": str}
_TENSORS = {"reshape": 2}  # Output and input; all others have a kernel too.


def sites_of(data: tuning_pb2.ModuleTuningData, source: str) -> list[configurations.Site]:
  """The configured instructions of a program in the order of its runs.

  If it names none, these are all for which a layout can be requested.

  Raises:
    DataError: there is none, or a request is for an instruction that takes none.
  """
  possible = requests.open_sites(data.module, source)
  if not data.config_index_to_node:
    if not possible:
      raise errors.DataError(
          f"{source} has no dot, convolution or reshape with more than one layout outside "
          "fusions, so there is nothing to request; use the program before optimisation")
    return possible
  by_node = {site.node: site for site in possible}
  listed = [instruction for computation in data.module.computations
            for instruction in computation.instructions]
  sites = []
  for node in map(int, data.config_index_to_node):
    if node >= len(listed):
      raise errors.DataError(
          f"{source}: instruction {node} is configured, but the program has instructions 0 to "
          f"{len(listed) - 1}; supply configurations of this program")
    if node not in by_node:
      instruction = listed[node]
      raise errors.DataError(
          f"{source}: layouts of {escaping.quoted(instruction.name)} "
          f"({escaping.shown(instruction.opcode)}) are configured; expected a dot, convolution or "
          "reshape with two axes or more, outside fusions and the functions of reductions")
    sites.append(by_node[node])
  return sites


def configurations_of(data: tuning_pb2.ModuleTuningData, sites: Sequence[configurations.Site],
                      source: str) -> list[configurations.Configuration]:
  """The distinct configurations of a program's runs, the default first.

  Raises:
    DataError: a run has another number of instructions or tensors than the program.
  """
  listed = [configurations.default(sites)]
  seen = set(listed)
  for index, run in enumerate(data.runs):
    nodes = run.module_config.layout_config.nodes
    if len(nodes) != len(sites):
      raise errors.DataError(f"{source}: run {index} configures {len(nodes)} instructions; "
                             f"expected {len(sites)}; supply configurations of this program")
    rows = []
    for site, node in zip(sites, nodes):
      tensors = [tuple(tensor.dims) for tensor in node.tensors]
      if any(tensors[len(site.shapes):]):
        raise errors.DataError(
            f"{source}: run {index} requests a layout of tensor {len(site.shapes)} of instruction "
            f"{site.node}, a {site.opcode} with {len(site.shapes)} tensors; supply configurations "
            "of this program")
      tensors = tensors[:len(site.shapes)] + [()] * (len(site.shapes) - len(tensors))
      rows.append(tuple(requests.complete(layout, len(shape)) if layout else ()
                        for layout, shape in zip(tensors, site.shapes)))
    configuration = tuple(rows)
    if configuration not in seen:
      seen.add(configuration)
      listed.append(configuration)
  return listed


def read_program(folder: pathlib.Path) -> tuning_pb2.ModuleTuningData:
  """The program and its runs; see `store_program`. A text is not parsed here.

  Raises:
    DataError: the file is damaged.
  """
  path = folder / PROGRAM
  try:
    return tuning_pb2.ModuleTuningData.FromString(path.read_bytes())
  except Exception as error:
    raise errors.DataError(f"{path} is damaged: {error}; delete {folder} and measure again"
                           ) from None


def store_program(folder: pathlib.Path, data: tuning_pb2.ModuleTuningData, text: str = "") -> None:
  """Writes the program, with its configurations as runs without measurements."""
  with files.atomic_write(folder / PROGRAM) as file:
    file.write(data.SerializeToString(deterministic=True))
  if text:
    with files.atomic_write(folder / TEXT) as file:
      file.write(text.encode())


def full_module(folder: pathlib.Path, data: tuning_pb2.ModuleTuningData, source: str
                ) -> hlo_pb2.HloModuleProto:
  """The program with all fields, for one device, in the order of `data`; needs JAX for text.

  Raises:
    DataError: it lacks fields, or XLA cannot read its text.
  """
  module = data.module
  if (folder / TEXT).exists():
    from tpugraphs_rank.collect.hlo import programs  # Needs JAX.
    parsed = programs.module_of_text((folder / TEXT).read_text(encoding="utf-8"), source)
    module = in_order_of(parsed, data.module, source)
  return requests.for_one_device(module, source)


def in_order_of(module: hlo_pb2.HloModuleProto, reference: hlo_pb2.HloModuleProto, source: str
                ) -> hlo_pb2.HloModuleProto:
  """The computations and instructions of a program in the order of another form of it, by name.

  Raises:
    DataError: the names differ.
  """
  by_name = {computation.name: computation for computation in module.computations}
  result = hlo_pb2.HloModuleProto()
  result.CopyFrom(module)
  del result.computations[:]
  for theirs in reference.computations:
    ours = by_name.get(theirs.name)
    named = {} if ours is None else {
        instruction.name: instruction for instruction in ours.instructions}
    if ours is None or {instruction.name for instruction in theirs.instructions} != named.keys():
      raise errors.DataError(
          f"{source}: XLA reads computation {escaping.quoted(theirs.name)} of this text with other "
          "instructions; export the program as a protobuf")
    computation = result.computations.add()
    computation.CopyFrom(ours)
    del computation.instructions[:]
    computation.instructions.extend(named[instruction.name] for instruction in theirs.instructions)
  return result


def environment(folder: pathlib.Path) -> dict[str, str]:
  """The variables of the processes that measure the program, from `plan.json`."""
  return protocol.environment_with(plan_of(folder)["xla_flags"])


def plan_of(folder: pathlib.Path) -> dict[str, Any]:
  """The settings in `plan.json`.

  Raises:
    MissingDataError, DataError: there are none, or they are damaged.
  """
  return plans.read(folder, settings={
      "source": str, "seed": int, "program_limit": float, "xla_flags": str})


def outcome_path(folder: pathlib.Path, index: int) -> pathlib.Path:
  """Where the outcome of compiling a configuration is."""
  return folder / "compiled" / f"{index:05d}.json"


def code_path(folder: pathlib.Path, index: int) -> pathlib.Path:
  """Where the machine code of a configuration is."""
  return folder / "compiled" / f"{index:05d}.bin"


def outcomes(folder: pathlib.Path, count: int) -> list[dict[str, Any] | None]:
  """The outcomes of all configurations; None where there is none yet."""
  paths = [outcome_path(folder, index) for index in range(count)]
  return [json_shapes.read(path, _OUTCOME, "delete it to compile it again") if path.exists()
          else None for path in paths]
