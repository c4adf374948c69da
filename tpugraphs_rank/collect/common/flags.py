"""The collectors' flags, defined once: for both collectors and for `tpugraphs-rank collect`."""

import argparse
from collections.abc import Mapping, Sequence
import dataclasses
import os
import pathlib
from typing import Any

from tpugraphs_rank.collect.common import protocol

KINDS = ("tile", "layout")
SMALL_PROGRAM = 150  # Instructions; smaller programs are measured under more configurations.


@dataclasses.dataclass(frozen=True)
class Flag:
  """A flag of one or both collectors.

  Attributes:
    name: without the dashes.
    type: int, float, str, bool, or list[str] and list[int], which are separated by commas.
    defaults: the default value of each kind of collector that has the flag.
    help: a sentence.
  """

  name: str
  type: Any
  defaults: Mapping[str, Any]
  help: str


def _both(value: Any) -> dict[str, Any]:
  return dict.fromkeys(KINDS, value)


FLAGS = (
    Flag("synthetic", str, _both(None), "File of synthetic programs, as `tpugraphs-rank "
         "synthesize` writes it, to measure instead of the catalogue."),
    Flag("families", list[str], _both(None), "Only these families of the catalogue, separated by "
         "commas."),
    Flag("exclude", str, _both(None), "File with the names of kernels or programs of the catalogue "
         "that are not measured, one a line. With --extend, those that the collection holds are "
         "never measured again."),
    Flag("limit", int, _both(None), "Maximum number of kernels or programs."),
    Flag("configurations", int, {"tile": 28, "layout": 46}, "Maximum number of configurations of "
         "each kernel or program, including the default."),
    Flag("configurations_of_small_programs", int, {"layout": 66},
         f"The same for programs of at most {SMALL_PROGRAM} instructions."),
    Flag("seed", int, _both(0), "Seed of the configurations, the operands and the order."),
    Flag("passes", int, _both(2), "Number of independent measurements of each configuration."),
    Flag("cores", list[int], _both(None), "Processor cores to measure on at the same time, "
         "separated by commas. Tiles: one pass on each core; by default as many cores as passes, "
         "if there are enough. Layouts: one program on each core; by default one on any core."),
    Flag("budget_ms", int, {"tile": protocol.TILE.budget_ns // 1_000_000,
                            "layout": protocol.LAYOUT.budget_ns // 1_000_000},
         "Measuring time of a configuration in one pass, in milliseconds."),
    Flag("time_budget", float, _both(float("inf")), "Seconds after which no further kernel or "
         "program is started. The same command resumes later."),
    Flag("program_limit", float, {"layout": 300.0}, "Seconds after which a pass over one program "
         "is abandoned."),
    Flag("assemble_only", bool, _both(False), "Measure nothing; write the .pb files of what all "
         "passes have measured so far."),
    Flag("machine", str, _both(None), "Share the work with other machines that have the same "
         "--output: the name of this one. Each program is measured by one of them. Run "
         "--assemble_only afterwards."),
    Flag("common_programs", int, _both(3), "With --machine, the number of programs that every "
         "machine measures, to compare the machines."),
    Flag("stale_after", float, _both(600.0), "With --machine, seconds after which a program is "
         "measured by another machine, if the one that has begun shows no sign of life."),
)


def of_kind(kind: str) -> list[Flag]:
  """The flags of the tile or of the layout collector."""
  return [flag for flag in FLAGS if kind in flag.defaults]


# The flags of a collector that shares its work.
SHARING = ("machine", "common_programs", "stale_after")


def parser(kind: str, description: str | None) -> argparse.ArgumentParser:
  """The argument parser of a collector."""
  result = argparse.ArgumentParser(
      prog=f"python -m tpugraphs_rank.collect.{kind}", description=description,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  result.add_argument("--output", required=True, type=pathlib.Path, help="Folder of the results.")
  for flag in of_kind(kind):
    text, default = flag.help.replace("%", "%%"), flag.defaults[kind]
    if flag.type is bool:
      result.add_argument(f"--{flag.name}", action="store_true", help=text)
    else:
      shown = "" if default in (None, float("inf")) else f" Default: {default}."
      result.add_argument(f"--{flag.name}", type=_PARSERS.get(flag.type, flag.type),
                          default=default, help=text + shown)
  result.add_argument("--wait", action="store_true", help="With --machine, wait for the programs "
                      "that other machines measure, and take over those of machines that die.")
  return result


def _words(text: str) -> list[str]:
  return [word for word in text.split(",") if word]


def _numbers(text: str) -> list[int]:
  return [int(word) for word in _words(text)]


_PARSERS: dict[Any, Any] = {list[str]: _words, list[int]: _numbers}


def parse(kind: str, description: str | None, argv: Sequence[str] | None) -> argparse.Namespace:
  """Parses and checks the arguments of a collector; wrong ones end the program with status 2."""
  result = parser(kind, description)
  arguments = result.parse_args(argv)
  if arguments.passes < 2:
    result.error("--passes must be at least 2: the quality gates compare independent passes")
  if arguments.common_programs < 0 or arguments.stale_after < 1:
    result.error("--common_programs must be at least 0, --stale_after at least 1 second")
  cores, usable = arguments.cores or [], usable_cores()
  if len(set(cores)) < len(cores) or (usable and not set(cores) <= set(usable)):
    result.error(f"--cores={','.join(map(str, cores))}: expected different cores of "
                 f"{','.join(map(str, usable))}")
  return arguments


def usable_cores() -> list[int]:
  """The processor cores that this process may use; [] where the system does not tell."""
  return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
