"""What both collectors keep in their output folder: the plan, and what it was measured with."""

from collections.abc import Mapping, Sequence
from importlib import metadata
import pathlib
from typing import Any, Union

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import folder_settings
from tpugraphs_rank.collect.tile import blocks
from tpugraphs_rank.collect.tile import geometry
from tpugraphs_rank.synthesis.programs import programs
from tpugraphs_rank.synthesis.programs import sources

Kernel = Union[geometry.Kernel, blocks.SyntheticKernel]
_PACKAGES = ("jax", "jaxlib", "numpy", "protobuf")


def store(output: pathlib.Path, plan: dict[str, Any], fixed: Sequence[str], items: str) -> None:
  """Writes `plan.json`; an output folder keeps to the settings that it began with.

  More or fewer items are fine: each one's own part of the plan is what its files were measured by.

  Args:
    output: the folder.
    plan: JSON.
    fixed: keys that must not change.
    items: the key of what is measured, a list of objects with the key `stem`.

  Raises:
    RunDirectoryError: the folder was begun with other settings.
  """
  path = output / "plan.json"
  if path.exists():
    stored = files.read_json(path)
    folder_settings.refuse_if_different(path, folder_settings.differences(stored, plan, fixed))
    wanted = {entry["stem"] for entry in plan[items]}
    plan = {**plan, items: plan[items] + [
        entry for entry in stored[items] if entry["stem"] not in wanted]}
  files.write_json(path, plan)


def kernel_of(entry: Mapping[str, Any]) -> Kernel:
  """The kernel of a plan's entry: one of the catalogue's families, or a made program."""
  if "program" in entry:
    return blocks.SyntheticKernel(programs.RunnableProgram.from_json(entry["program"]))
  return geometry.parse_stem(entry["stem"])


def read_kernels(path: pathlib.Path) -> list[blocks.SyntheticKernel]:
  """The made programs of a file as kernels; see `read_programs`."""
  return [blocks.SyntheticKernel(program) for program in read_programs(path)]


def read_programs(path: pathlib.Path) -> list[programs.RunnableProgram]:
  """The made programs of a file, as `tpugraphs_rank.cli.synthesize` writes it.

  Raises:
    MissingDataError: there is no such file.
    DataError: it holds something else, or two programs of one name.
  """
  found = sources.from_json(files.read_json(path), str(path))
  stems = [program.stem for program in found]
  twice = sorted({stem for stem in stems if stems.count(stem) > 1})
  if twice:
    raise errors.DataError(f"{path}: two programs are named {twice[0]}")
  return found


def package_versions() -> dict[str, str]:
  """Versions of the packages that shape the measurement."""
  return {name: metadata.version(name) for name in _PACKAGES}
