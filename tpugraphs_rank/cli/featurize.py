"""Turns raw protobufs (measurements or bare HLO) into `.npz` graphs.

    python -m tpugraphs_rank.cli.featurize --input kernels.pb --output graphs/
    python -m tpugraphs_rank.cli.featurize --input pass1/ --repeat pass2/ --output graphs/

A `TuningData` gives one graph a kernel, named after its module; a `ModuleTuningData`, a
`HloModuleProto` or a `HloProto` gives one graph, named after the file.
"""

from collections.abc import Sequence
import logging
import pathlib

from absl import flags
import tqdm

from tpugraphs_rank import errors
from tpugraphs_rank.hlo import convert
from tpugraphs_rank.hlo import output as hlo_output

# XLA's dump folder holds these beside the programs.
_NOT_PROGRAMS = "-memory-usage-report.pb"

_log = logging.getLogger("tpugraphs_rank.featurize")


def featurize(
    inputs: Sequence[str], output: str, padding: int = 0, repeats: Sequence[str] = (),
    overwrite: bool = False) -> list[pathlib.Path]:
  """Featurises files and folders of files into the folder `output`.

  Args:
    inputs: `.pb` files, or folders whose `.pb` files are taken (not those of their subfolders).
    output: a folder, made if need be.
    padding: 0 or -1, see `tpugraphs_rank.hlo.features.node_features`.
    repeats: further measurements of all inputs: each a file if there is one input file, otherwise
      a folder with as many files, which pair with the inputs in order.
    overwrite: whether files of other content may be replaced.

  Returns:
    The graph files, written now or found unchanged, in order.

  Raises:
    TpuGraphsRankError: the message says what is wrong and what mends it. Graphs of earlier inputs
      stay; of the failing input none is written.
  """
  paths = _files_of(inputs, "--input")
  passes = [_files_of([repeat], "--repeat") for repeat in repeats]
  for repeat, found in zip(repeats, passes):
    if len(found) != len(paths):
      raise errors.ConfigError(
          f"--repeat {repeat} has {len(found)} files and --input {len(paths)}; expected as many, "
          "in the same order; give a folder that holds a repeat of every input file")
  written: list[pathlib.Path] = []
  taken: set[str] = set()
  # Silent when nobody watches: a progress bar makes log files unreadable.
  for index, path in enumerate(tqdm.tqdm(paths, desc="featurize", unit="file", disable=None)):
    converted = convert.convert_file(path, padding, [found[index] for found in passes])
    names = convert.unique_names([graph.name for graph in converted.graphs], taken)
    targets = [pathlib.Path(output) / f"{name}.npz" for name in names]
    pending = [
        overwrite or hlo_output.check_free(target, graph.arrays)
        for target, graph in zip(targets, converted.graphs)]
    for target, graph, wanted in zip(targets, converted.graphs, pending):
      if wanted:
        hlo_output.write_graph(target, graph.arrays)
    written += targets
    _log_summary(converted, sum(pending))
  return written


def _files_of(places: Sequence[str], flag: str) -> list[pathlib.Path]:
  """Files as they are, folders as the sorted `.pb` files in them."""
  paths: list[pathlib.Path] = []
  for place in map(pathlib.Path, places):
    if not place.is_dir():
      paths.append(place)
      continue
    found = sorted(path for path in place.glob("*.pb") if path.is_file())
    programs = [path for path in found if not path.name.endswith(_NOT_PROGRAMS)]
    if len(programs) < len(found):
      _log.info("%s: %d *%s files left out: they hold no program", place,
                len(found) - len(programs), _NOT_PROGRAMS)
    if not programs:
      raise errors.MissingDataError(
          f"{flag} {place} holds no .pb file; expected raw protobufs directly in this folder; "
          "give the folder that holds them, or the files themselves")
    paths += programs
  if not paths:
    raise errors.ConfigError(f"{flag} names no file; expected a .pb file or a folder of them")
  return paths


def _log_summary(converted: convert.Converted, written: int) -> None:
  graphs = converted.graphs
  runs, valid = sum(g.runs for g in graphs), sum(g.valid_runs for g in graphs)
  _log.info(
      "%s (%s): %d graphs (%d written, %d already there), %d nodes, %d of %d runs count "
      "(%d left out), %d programs skipped",
      converted.source, converted.file_kind, len(graphs), written, len(graphs) - written,
      sum(len(g.arrays["node_opcode"]) for g in graphs), valid, runs, runs - valid,
      len(converted.skipped))
  unknown = {}
  for graph in graphs:
    for opcode, count in graph.unknown_opcodes.items():
      unknown[opcode] = unknown.get(opcode, 0) + count
  if unknown:
    _log.warning(
        "%s: opcodes that the table lacks are stored as 0: %s", converted.source,
        ", ".join(f"{opcode} ({count})" for opcode, count in sorted(unknown.items())))


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_multi_string(
      "input", None, "A raw .pb file, or a folder of them; may be given several times.",
      required=True)
  flags.DEFINE_string("output", None, "The folder that the .npz files go to.", required=True)
  flags.DEFINE_enum(
      "padding", "0", ["0", "-1"],
      "What follows short lists that have no sum and product: 0 as in the public release, or -1 "
      "as in its later variant. The file records it as feature_padding.")
  flags.DEFINE_multi_string(
      "repeat", [],
      "Another measurement of the same programs and runs (a file, or a folder if there are "
      "several input files); may be given several times. Runtimes become the mean over all, and "
      "config_runtime_passes keeps each.")
  flags.DEFINE_bool("overwrite", False, "Replace existing files that differ.")


def main(argv: list[str]) -> None:
  """Runs the command."""
  values = flags.FLAGS
  featurize(values.input, values.output, int(values.padding), values.repeat, values.overwrite)
