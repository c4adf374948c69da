"""The collector: compiles real programs with XLA, times them, and makes collections of the results.

The measuring code runs in an environment of its own, which has JAX and no TensorFlow; `environment`
makes it. README.md describes what is measured, and how.
"""

from collections.abc import Sequence
import pathlib
from typing import Any

from tpugraphs_rank import errors


def check_known(names: Sequence[str], of_layouts: bool) -> None:
  """Checks that the collector can measure programs, by the names of their modules; needs no JAX.

  Layouts are measured for any program, from its HLO. Tiles need a kernel that can be rebuilt.

  Args:
    names: of the modules.
    of_layouts: whether layouts of them are to be measured, rather than tiles.

  Raises:
    CompatibilityError: a kernel is not in the collector's catalogue.
  """
  from tpugraphs_rank.collect import remeasure
  if not of_layouts:
    remeasure.check_known(names, of_layouts)


def default_tile(name: str) -> tuple[int, ...]:
  """The sides of a kernel's default tile, output axes first; () if it is in no catalogue.

  Args:
    name: of the kernel's module.
  """
  from tpugraphs_rank.collect.tile import configurations
  from tpugraphs_rank.collect.tile import geometry
  try:
    tile = configurations.default_tile(geometry.parse_stem(name))
  except errors.TpuGraphsRankError:
    return ()
  return tile.output + tile.reduction


def measure_ranked(file: pathlib.Path, output: pathlib.Path) -> list[pathlib.Path]:
  """Measures the configurations in a raw file, in the collector's environment.

  Args:
    file: the raw file, as `tpugraphs-rank rank` writes it.
    output: folder of the results. It belongs to this file: what it holds is not measured again.

  Returns:
    The raw files with the runtimes, one a pass.

  Raises:
    CompatibilityError: a kernel whose tiles are to be measured is not in the collector's catalogue.
    OutputError: the environment could not be made, or the measurement failed.
  """
  from tpugraphs_rank.collect import environment
  from tpugraphs_rank.collect import remeasure
  from tpugraphs_rank.hlo import reading
  modules = reading.read_raw(file).modules
  names = [data.module.name for data in modules]
  try:
    remeasure.check_known(names, remeasure.is_layout(modules))
  except errors.CompatibilityError:
    if not remeasure.is_layout(modules):
      raise
    from tpugraphs_rank.candidates import supplied
    from tpugraphs_rank.collect.hlo import prepare
    program, text = prepare.read(file)
    prepare.prepare(output, program, text, supplied.from_runs(
        program.data, "layout", program.source), prepare.Settings())
    measure_hlo(output)
    return sorted(output.glob("pass*.pb"))
  environment.run("tpugraphs_rank.collect.remeasure", "--input", str(file.resolve()), "--output",
                  str(output.resolve()))
  return sorted(output.glob("pass*.pb"))


def measure_hlo(output: pathlib.Path) -> dict[str, Any]:
  """Measures the program of a folder that `hlo.prepare` has written.

  Returns:
    The report, see `hlo.collect.write`.

  Raises:
    OutputError: the environment could not be made, or the measurement failed.
  """
  from tpugraphs_rank import files
  from tpugraphs_rank.collect import environment
  environment.run("tpugraphs_rank.collect.hlo", "--folder", str(output.resolve()))
  return files.read_json(output / "report.json")
