"""Describe a folder of .npz graphs as a collection.

  tpugraphs-rank make-collection --npz graphs/ --name tile:mine --kind tile \\
    --target my_chip --valid_fraction 0.15 --test_fraction 0.15

Writes the descriptor that `tpugraphs-rank train --collection` takes. With fractions, the programs
are divided into train, valid and test. Programs of the same structure (equal opcodes and edges)
stay in one split. Without fractions the collection stays whole, for training with
--split_by=configuration.

Graphs without runtimes cannot be trained or evaluated on, only ranked. With --valid_fraction alone,
they are the test split, as in the public collections. Otherwise they are left out and counted.

A damaged graph, or one of another kind, is reported and left out. The exit status is then 3.
--strict stops at the first one.
"""

import dataclasses
import logging
import os
import pathlib
import shlex
from typing import Any

from absl import flags
import numpy as np
import tqdm

from tpugraphs_rank import commands
from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files
from tpugraphs_rank.cli import app
from tpugraphs_rank.data import graphs as graphs_lib
from tpugraphs_rank.data import npz as npz_lib
from tpugraphs_rank.data import registry
from tpugraphs_rank.data import twins

# With fewer distinct configurations, a share of them is too small to evaluate a ranking.
_FEW_CONFIGS = 16
# Maximum names of programs that a line lists.
_LISTED = 5

_log = logging.getLogger("tpugraphs_rank.make_collection")


@dataclasses.dataclass(frozen=True)
class _Program:
  """The facts about a graph that the description needs."""

  path: pathlib.Path
  structure: str
  padding: int
  configs: int
  distinct_configs: int
  has_runtimes: bool
  equal_runtimes: bool


@dataclasses.dataclass(frozen=True)
class Written:
  """A descriptor that was written.

  Attributes:
    path: the descriptor.
    collection: the collection that it describes.
    report: one line on each split.
    command: the command that trains on it.
    skipped: the error of each graph that was left out.
  """

  path: pathlib.Path
  collection: registry.Collection
  report: tuple[str, ...]
  command: str
  skipped: tuple[errors.TpuGraphsRankError, ...] = ()


def make_collection(
    npz: files.PathLike, name: str, kind: str, target: str,
    output: files.PathLike | None = None, valid_fraction: float | None = None,
    test_fraction: float | None = None, seed: int = 0, overwrite: bool = False,
    strict: bool = True, **optional: Any) -> Written:
  """Reads and validates every graph of a folder, and writes their collection's descriptor.

  Args:
    npz: the folder; its subfolders are included.
    name: `tile:<source>` or `layout:<source>:<search>`.
    kind: "tile" or "layout".
    target: the hardware that was measured.
    output: path of the descriptor; None: collection.json in the folder.
    valid_fraction: share of the programs to validate on; None: the collection is not divided.
    test_fraction: share of the programs to test on; None: none.
    seed: of the division.
    overwrite: whether an existing descriptor may be replaced.
    strict: whether a graph that is damaged or of another kind raises. Otherwise it is left out.
    **optional: further keys of the descriptor, such as `hlo_stage`.

  Raises:
    TpuGraphsRankError: a graph is damaged or of another kind (if `strict`, or if no graph is left),
      or the settings do not fit.
  """
  folder = pathlib.Path(npz)
  path = pathlib.Path(output) if output is not None else folder / "collection.json"
  fractions = _fractions(valid_fraction, test_fraction)
  if name in registry.collection_names():
    raise errors.ConfigError(f"--name {name} is a registered collection; choose another name")
  if path.exists() and not overwrite:
    raise errors.OutputError(f"{path} exists; choose another --output, or add --overwrite")
  programs, skipped = _read(folder, kind, strict)
  splits, left_out = _divided(folder, programs, fractions, seed)
  values: dict[str, Any] = {
      "name": name, "kind": kind, "target": target,
      "splits": {split: len(members) for split, members in splits.items()},
      "path": pathlib.Path(os.path.relpath(folder, path.parent)).as_posix(),
      "files": {split: [program.path.relative_to(folder).as_posix() for program in members]
                for split, members in splits.items()},
      "has_runtimes": {split: members[0].has_runtimes for split, members in splits.items()},
      "padding": programs[0].padding, **optional}
  collection = registry.collection_from_dict(values, path.resolve().parent)
  files.write_json(path, values)
  measured = [program for program in programs if program.has_runtimes]
  _warn_of_nothing_to_rank(folder, measured, divided=bool(fractions))
  report = [_described(split, members) for split, members in splits.items()]
  if left_out:
    report.append(f"left out, because they have no runtimes: {_listed(left_out)}" + (
        "; without --test_fraction, they are the test split" if fractions else
        "; with --valid_fraction, they are the test split"))
  return Written(path, collection, tuple(report), _command(collection, path, measured),
                 tuple(skipped))


def _divided(folder: pathlib.Path, programs: list[_Program], fractions: dict[str, float], seed: int
             ) -> tuple[dict[str, list[_Program]], list[_Program]]:
  """The programs of each split, and those that no split takes.

  Only measured programs can be trained and evaluated on. The others are the test split if no
  measured programs were requested for it, as in the public collections.
  """
  measured = [program for program in programs if program.has_runtimes]
  unmeasured = [program for program in programs if not program.has_runtimes]
  if not fractions:
    return {registry.WHOLE: measured or unmeasured}, unmeasured if measured else []
  if not measured:
    raise errors.DataError(
        f"{folder}: no graph has runtimes, so there is nothing to train on; give no fractions, "
        "and the undivided collection can be scored")
  assigned = twins.divide([program.structure for program in measured], fractions, seed)
  splits = {split: [program for program, own in zip(measured, assigned) if own == split]
            for split in registry.SPLITS if split in assigned}
  if unmeasured and "test" not in splits:
    return {**splits, "test": unmeasured}, []
  return splits, unmeasured


def _listed(programs: list[_Program]) -> str:
  """The number of programs, and the first names."""
  names = [program.path.stem for program in programs[:_LISTED]]
  return f"{len(programs)} ({', '.join(names)}{', ...' if len(programs) > len(names) else ''})"


def _fractions(valid: float | None, test: float | None) -> dict[str, float]:
  if valid is None:
    if test is not None:
      raise errors.ConfigError(
          "--test_fraction without --valid_fraction; training needs programs to validate on: give "
          "both, or neither for a collection that is not divided")
    return {}
  fractions = {"valid": valid} if not test else {"test": test, "valid": valid}
  if not all(0.0 < value < 1.0 for value in fractions.values()) or sum(fractions.values()) >= 1.0:
    raise errors.ConfigError(
        f"--valid_fraction {valid} and --test_fraction {test}; expected shares above 0 that leave "
        "programs to train on")
  return fractions


def _read(folder: pathlib.Path, kind: str, strict: bool
          ) -> tuple[list[_Program], list[errors.TpuGraphsRankError]]:
  """All graphs below the folder, by name, and the errors of those that are left out.

  The graphs agree in kind and padding.
  """
  paths = files.without_companions(
      sorted(folder.rglob("*.npz"), key=lambda path: (path.stem, path)), _log, folder)
  if not folder.is_dir():
    what = "is a file" if folder.exists() else "does not exist"
    raise errors.MissingDataError(f"--npz {folder} {what}; expected a folder of .npz graphs")
  if not paths:
    raise errors.MissingDataError(
        f"--npz {folder} contains no .npz file; "
        f"{commands.command('featurize', '--input', 'X', '--output', str(folder))} converts raw "
        ".pb files to this format")
  programs: list[_Program] = []
  skipped: list[errors.TpuGraphsRankError] = []
  # disable=None: no bar without a terminal, because a bar makes log files unreadable.
  for path in tqdm.tqdm(paths, desc="reading", unit="graph", disable=None):
    try:
      _check_name(path.relative_to(folder).as_posix())
      graph = _checked(path, kind)
    except errors.DataError as error:
      if strict:
        raise
      skipped.append(error)
      continue
    programs.append(_Program(
        path, twins.graph_hash(graph.node_opcode, graph.edge_index), graph.feature_padding,
        graph.num_configs, len(np.unique(graph.config_keys())), graph.has_runtimes,
        graph.has_runtimes and graph.num_configs > 1
        and bool(np.ptp(graph.relative_runtime) == 0)))
    first, last = programs[0], programs[-1]
    if len(programs) > 1 and programs[-2].path.stem == path.stem:
      raise errors.DataError(
          f"{programs[-2].path} and {path} have the same name, so results could not distinguish "
          "them; rename one")
    if first.padding != last.padding:
      raise errors.DataError(
          f"{first.path} has feature_padding {first.padding}, {path} has {last.padding}; expected "
          "the same in all graphs of a collection")
  if not programs:
    raise skipped[0]
  return programs, skipped


def _check_name(name: str) -> None:
  """Raises DataError if a descriptor cannot hold the name of a file."""
  if not registry.is_name(name):
    raise errors.DataError(
        f"the name {escaping.quoted(name)} is longer than {registry.LONGEST_NAME} characters, or "
        "has some that cannot be printed; rename the file")


def _checked(path: pathlib.Path, kind: str) -> graphs_lib.ConfiguredGraph:
  """Reads a graph; raises DataError if it is damaged or of another kind."""
  graph = npz_lib.load_graph(path)
  if (graph.kind != kind or not graph.num_configs
      or not isinstance(graph, graphs_lib.ConfiguredGraph)):
    raise errors.DataError(
        f"{path} is a {graph.kind or 'bare'} graph with {graph.num_configs} configurations; "
        f"expected --kind {kind} with at least one; move the file elsewhere")
  return graph


def _warn_of_nothing_to_rank(folder: pathlib.Path, programs: list[_Program], divided: bool) -> None:
  """Warns of measured programs that training cannot use, which would only show there."""
  equal = sum(program.equal_runtimes for program in programs)
  if equal:
    _log.warning("%s: %d of %d programs have nothing to rank, because the runtimes of all their "
                 "configurations are equal", folder, equal, len(programs))
  needed = 2 if divided else len(registry.SPLITS)
  few = sum(program.distinct_configs < needed for program in programs)
  if few:
    _log.warning("%s: training will leave out %d of %d programs, which have fewer than %d distinct "
                 "configurations", folder, few, len(programs), needed)


def _described(split: str, programs: list[_Program]) -> str:
  counts = [program.configs for program in programs]
  distinct = [program.distinct_configs for program in programs]
  structures = len({program.structure for program in programs})
  return (f"{split}: {len(programs)} programs of {structures} structures, {sum(counts)} "
          f"configurations ({sum(distinct)} distinct), {min(distinct)} to {max(distinct)} distinct "
          "ones per program")


def _command(collection: registry.Collection, path: pathlib.Path, programs: list[_Program]) -> str:
  words = ["--collection", shlex.quote(str(path)), "--run_dir",
           f"runs/{collection.name.replace(':', '_')}"]
  if registry.WHOLE in collection.splits:
    words.append("--split_by=configuration")
    enough = sum(program.distinct_configs >= _FEW_CONFIGS for program in programs)
    if 0 < enough < len(programs):
      words.append(f"--min_configs={_FEW_CONFIGS}")
  return commands.command("train", *words)


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("npz", None, "Folder of the .npz graphs.", required=True)
  flags.DEFINE_string(
      "name", None, "Name of the collection: tile:<source> or layout:<source>:<search>.",
      required=True)
  flags.DEFINE_enum("kind", None, ["tile", "layout"], "Kind of the graphs.", required=True)
  flags.DEFINE_string("target", None, "The hardware that was measured.", required=True)
  flags.DEFINE_string("output", None, "Path of the descriptor. By default collection.json in the "
                      "folder.")
  flags.DEFINE_float("valid_fraction", None, "Share of the programs to validate on.")
  flags.DEFINE_float("test_fraction", None, "Share of the programs to test on.")
  flags.DEFINE_integer("seed", 0, "Seed of the division.")
  flags.DEFINE_enum("hlo_stage", "after_optimization", list(registry.HLO_STAGES),
                    "Whether the graphs show HLO before or after the compiler's optimisations.")
  flags.DEFINE_string("family_regex", None,
                      "Regular expression with the group (?P<family>...), applied to "
                      "a file's stem, for results by family.")
  flags.DEFINE_string("description", None, "One sentence about the collection.")
  flags.DEFINE_bool("overwrite", False, "Replace an existing descriptor.")
  flags.DEFINE_bool("strict", False, "Stop at the first graph that is damaged or of another kind, "
                    "instead of leaving it out.")


def main(argv: list[str]) -> int:
  """Runs the command."""
  values = flags.FLAGS
  optional = {key: values[key].value for key in ("hlo_stage", "family_regex", "description")
              if values[key].value is not None}
  written = make_collection(
      values.npz, values.name, values.kind, values.target, values.output, values.valid_fraction,
      values.test_fraction, values.seed, values.overwrite, values.strict, **optional)
  for error in written.skipped:
    _log.warning("skipped: %s", error)
  print(f"{written.path}: {written.collection.name}")
  for line in written.report:
    print(f"  {line}")
  print(f"next: {written.command}")
  return app.SOME_SKIPPED if written.skipped else 0
