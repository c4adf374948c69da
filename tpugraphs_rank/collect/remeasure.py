"""Measures the configurations in a raw file, for programs that the collector knows by name.

Reads a raw file whose runs name configurations, measured or not, as `tpugraphs-rank rank` writes
it, and writes the same programs with the runtimes of two passes: `<output>/pass1.pb` and
`pass2.pb`. The default configuration is always measured too. An arbitrary program cannot be rebuilt
from its HLO under another tile or layout, so only kernels of the tile collector's families and
programs of the layout collector's families are measured.

A folder belongs to one file: what it holds is not measured again.
"""

import argparse
from collections.abc import Callable, Sequence
import dataclasses
import hashlib
import os
import pathlib
import subprocess
import sys
from typing import Any

import tqdm

from tpugraphs_rank import commands
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.candidates import layouts
from tpugraphs_rank.collect.common import jax_process
from tpugraphs_rank.collect.common import plans
from tpugraphs_rank.collect.common import processes
from tpugraphs_rank.collect.common import protocol
from tpugraphs_rank.collect.layout import catalogue
from tpugraphs_rank.collect.layout import configurations as layout_sampling
from tpugraphs_rank.collect.layout import measure as layout_measure
from tpugraphs_rank.collect.layout import raw as layout_raw
from tpugraphs_rank.collect.tile import collect
from tpugraphs_rank.collect.tile import configurations
from tpugraphs_rank.collect.tile import geometry
from tpugraphs_rank.collect.tile import raw
from tpugraphs_rank.hlo import graph
from tpugraphs_rank.hlo import hlo_pb2
from tpugraphs_rank.hlo import reading
from tpugraphs_rank.hlo import tuning_pb2

PASSES = 2
_FIXED = ("kind", "file", "protocol")
_WHAT_IS_POSSIBLE = (
    "the collector rebuilds only the programs of its catalogues: kernels such as "
    "matmul.256x256x256.f32 and programs such as resnet.2x32x16x2.forward; measure other programs "
    "with the compiler that runs them")


def is_layout(modules: Sequence[tuning_pb2.ModuleTuningData]) -> bool:
  """Whether the runs configure layouts (of one program) rather than tiles (of kernels).

  Raises:
    DataError: there are no runs, or runs of both kinds.
  """
  kinds = {run.WhichOneof("config") for data in modules for run in data.runs}
  if len(kinds) != 1 or not all(data.runs for data in modules):
    raise errors.DataError(
        "a module has no runs, or runs of several kinds; expected configurations of one kind for "
        f"every module, as {commands.command('rank')} writes them")
  return kinds == {"module_config"}


def check_known(names: Sequence[str], of_layouts: bool) -> None:
  """Checks that the collector can rebuild the programs; needs no JAX.

  Raises:
    CompatibilityError: a name does not have the form of the catalogue's names.
  """
  parse: Callable[[str], object] = catalogue.parse_stem if of_layouts else geometry.parse_stem
  for name in names:
    try:
      parse(name)
    except errors.TpuGraphsRankError as error:
      raise errors.CompatibilityError(
          f"{name!r} cannot be measured here: {_WHAT_IS_POSSIBLE}") from error


def tiles_of(data: tuning_pb2.ModuleTuningData) -> list[geometry.Tile]:
  """The distinct tiles of a kernel's runs, after its default tile.

  Raises:
    DataError: the bounds of a run are not a tile of this kernel.
  """
  kernel = geometry.parse_stem(data.module.name)
  axes = kernel.output_axes + kernel.reduction_axes
  chosen = [configurations.default_tile(kernel)]
  for index, run in enumerate(data.runs):
    bounds = run.op_config.tile_size_config
    tile = geometry.Tile(tuple(bounds.output_bounds), tuple(bounds.kernel_bounds))
    sides = tile.output + tile.reduction
    fits = len(tile.output) == len(kernel.output_axes) and len(sides) == len(axes)
    if not fits or any(side < 1 or size % side for size, side in zip(axes, sides)):
      raise errors.DataError(
          f"{kernel.stem}: run {index} has output_bounds {list(tile.output)} and kernel_bounds "
          f"{list(tile.reduction)}; expected divisors of {list(kernel.output_axes)} and "
          f"{list(kernel.reduction_axes)}: rank candidates with --tiling=xla_cpu")
    if tile not in chosen:
      chosen.append(tile)
  return chosen


def first_record(data: tuning_pb2.ModuleTuningData) -> dict[str, Any]:
  """The record that a first pass would have made of the runs' layouts, the default first."""
  sites = layouts.sites(data.module, [int(node) for node in data.config_index_to_node])
  default = tuple(tuple(() for _ in site.shapes) for site in sites)
  texts = [layout_sampling.to_text(default)]
  for run in data.runs:
    text = layout_sampling.to_text(tuple(
        tuple(tuple(tensor.dims) for tensor in node.tensors)
        for node in run.module_config.layout_config.nodes))
    if text not in texts:
      texts.append(text)
  return {"sites": [{"node": site.node, "opcode": site.opcode,
                     "shapes": [list(shape) for shape in site.shapes]} for site in sites],
          "configurations": [{"layouts": text, "status": "ok"} for text in texts]}


def check_same_graph(module: hlo_pb2.HloModuleProto, measured: hlo_pb2.HloModuleProto) -> None:
  """Checks that the measured program is the program of the file, and not another of that name.

  Raises:
    DataError: features, opcodes or edges differ.
  """
  ours, theirs = graph.graph_arrays(module), graph.graph_arrays(measured)
  for key in ("node_opcode", "edge_index", "node_feat"):
    if ours[key].shape != theirs[key].shape or (ours[key] != theirs[key]).any():
      raise errors.DataError(
          f"{module.name}: the program in the file differs from the collector's program of this "
          f"name ({key} differs); rename the module, or use the HLO that the collector wrote")


def _measure_tiles(output: pathlib.Path, modules: Sequence[tuning_pb2.ModuleTuningData],
                   plan: dict[str, Any]) -> None:
  plan = {**plan, "kernels": [
      {"stem": data.module.name, "tiles": [
          {"output": list(chosen.output), "reduction": list(chosen.reduction)}
          for chosen in tiles_of(data)]} for data in modules]}
  plans.store(output, plan, _FIXED, "kernels")
  collect.run_passes(output, PASSES, collect.choose_cores(None, PASSES))
  report = raw.write(output, [geometry.parse_stem(data.module.name) for data in modules], PASSES)
  _check_measured(report, [data.module.name for data in modules])
  measured = {data.module.name: data.module
              for data in reading.read_raw(output / "pass1.pb").modules}
  for data in modules:
    check_same_graph(data.module, measured[data.module.name])


def _check_measured(report: dict[str, Any], stems: Sequence[str]) -> None:
  for stem in stems:
    if stem in report["failed"]:
      raise errors.OutputError(f"{stem} could not be measured: {report['failed'][stem]}")


def _measure_layouts(output: pathlib.Path, path: pathlib.Path,
                     data: tuning_pb2.ModuleTuningData, plan: dict[str, Any]) -> None:
  stem = data.module.name
  plans.store(output, {**plan, "programs": [{"stem": stem}]}, _FIXED, "programs")
  for number in tqdm.tqdm(range(1, PASSES + 1), disable=None, desc="measure", unit="pass"):
    if plans.record_path(output, stem, number).exists():
      continue
    done = subprocess.run(
        [sys.executable, "-m", "tpugraphs_rank.collect.remeasure", "--input", str(path),
         "--output", str(output), "--pass_number", str(number)],
        env={**os.environ, **protocol.LAYOUT_ENVIRONMENT}, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
      raise errors.OutputError(
          f"pass {number} over {stem} ended with status {done.returncode} (see its messages above)")
  records = layout_raw.read_passes(output, stem, PASSES)
  entries = layout_raw.usable(records)["entries"]
  check_same_graph(data.module, plans.module_proto(records[0]))
  for number, record in enumerate(records):
    module = layout_raw.tuning_module(record, [by_pass[number] for by_pass in entries])
    with files.atomic_write(output / f"pass{number + 1}.pb") as file:
      file.write(module.SerializeToString(deterministic=True))


def _run_layout_pass(output: pathlib.Path, data: tuning_pb2.ModuleTuningData, number: int,
                     plan: dict[str, Any]) -> None:
  """One pass over one program, in a process with `protocol.LAYOUT_ENVIRONMENT`."""
  jax_process.import_jax(protocol.LAYOUT_ENVIRONMENT)
  program = catalogue.parse_stem(data.module.name)
  try:
    record = layout_measure.measure(
        program, 0, 0, plan["seed"], number, protocol.Protocol(**plan["protocol"]),
        first_record(data))
  except errors.DataError:
    raise errors.DataError(
        f"{program.stem}: the file configures the nodes {list(data.config_index_to_node)}, which "
        "differ from the collector's; rank with --hlo on a file that the collector wrote, which "
        "names its nodes"
    ) from None
  files.write_json(plans.record_path(output, program.stem, number), record)


def remeasure(path: pathlib.Path, output: pathlib.Path, budget_ms: int | None = None,
              pass_number: int = 0) -> None:
  """Measures the configurations of a raw file.

  Args:
    path: the raw file.
    output: folder of the results.
    budget_ms: measuring time of a configuration in one pass; None: the collector's default.
    pass_number: run only this pass over the one program, in this process; 0: everything.

  Raises:
    CompatibilityError: a program is not in a catalogue.
    DataError: the file is damaged, or its program differs from the collector's of that name.
    RunDirectoryError: the folder belongs to another file.
    OutputError: a pass failed.
  """
  modules = reading.read_raw(path).modules
  of_layouts = is_layout(modules)
  check_known([data.module.name for data in modules], of_layouts)
  settings = protocol.LAYOUT if of_layouts else protocol.TILE
  if budget_ms is not None:
    settings = dataclasses.replace(settings, budget_ns=budget_ms * 1_000_000)
  plan = {"kind": "layout" if of_layouts else "tile", "seed": 0,
          "file": hashlib.sha256(path.read_bytes()).hexdigest(),
          "protocol": dataclasses.asdict(settings)}
  if not of_layouts:
    _measure_tiles(output, modules, plan)
  elif pass_number:
    _run_layout_pass(output, modules[0], pass_number, plans.read(output))
  else:
    _measure_layouts(output, path, modules[0], plan)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the measurement with command-line arguments and returns the exit status."""
  parser = argparse.ArgumentParser(
      description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--input", required=True, type=pathlib.Path,
                      help="Raw file with the configurations.")
  parser.add_argument("--output", required=True, type=pathlib.Path, help="Folder of the results.")
  parser.add_argument("--budget_ms", type=int,
                      help="Measuring time of a configuration in one pass, in milliseconds.")
  parser.add_argument("--pass_number", type=int, default=0, help=argparse.SUPPRESS)
  return processes.main(
      lambda arguments: remeasure(arguments.input, arguments.output, arguments.budget_ms,
                                  arguments.pass_number), parser.parse_args(argv))


if __name__ == "__main__":
  sys.exit(main())
