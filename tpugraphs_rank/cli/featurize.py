"""Convert raw measurements and HLO programs to .npz graphs.

  tpugraphs-rank featurize --input kernels.pb --output graphs/
  tpugraphs-rank featurize --input pass1/ --repeat pass2/ --output graphs/

A TuningData file gives one graph per kernel, named after the kernel's module. Every other file
gives one graph, named after the file: ModuleTuningData, HLO as a protobuf or as text, StableHLO.
Files may be compressed. Of a folder that XLA has dumped, each program is taken once.

A damaged file or program is reported and skipped, and the others are converted. The exit status is
3 if any was skipped, and 1 if no graph is left. --strict stops at the first damaged one. --runner
converts the files with Apache Beam, in several processes or on many machines.
"""

from collections.abc import Sequence
import dataclasses
import logging
import pathlib

from absl import flags
import tqdm

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files
from tpugraphs_rank import work
from tpugraphs_rank.cli import app
from tpugraphs_rank.cli import engines
from tpugraphs_rank.hlo import convert
from tpugraphs_rank.hlo import featurizing
from tpugraphs_rank.hlo import folders

_SHOWN_OPCODES = 20

_log = logging.getLogger("tpugraphs_rank.featurize")


@dataclasses.dataclass(frozen=True)
class Featurized:
  """The result of `featurize`.

  Attributes:
    written: the graph files in order, both new and unchanged ones.
    skipped: what was skipped: a file, or a program of a file.
  """

  written: list[pathlib.Path]
  skipped: list[work.Failure]


def featurize(
    inputs: Sequence[str], output: str, padding: int = 0, repeats: Sequence[str] = (),
    overwrite: bool = False, strict: bool = False, engine: work.Engine = work.HERE) -> Featurized:
  """Converts files and folders of files to graphs in the folder `output`.

  Args:
    inputs: files with programs, or folders of them (without subfolders).
    output: the folder; it is created if it does not exist.
    padding: 0 or -1, see `tpugraphs_rank.hlo.features.node_features`.
    repeats: further measurements of all inputs. Each is a file if there is one input file,
      otherwise a folder with as many files, which are paired with the inputs in order.
    overwrite: whether files with other content may be replaced.
    strict: whether the first damaged file or program raises. Otherwise it is skipped.
    engine: where the files are converted.

  Raises:
    DataError, MissingDataError: an input is damaged, and `strict`; or no graph is left.
    OutputError: a file exists with other content, or cannot be written. Graphs of earlier inputs
      stay; none of this input is written.
    ConfigError: the repeats do not match the inputs.
  """
  paths = _files_of(inputs, "--input")
  passes = [_files_of([repeat], "--repeat") for repeat in repeats]
  for repeat, repeated in zip(repeats, passes):
    if len(repeated) != len(paths):
      raise errors.ConfigError(
          f"--repeat {repeat} has {len(repeated)} files and --input has {len(paths)}; expected "
          "equal numbers in the same order: give a folder with a repeat of every input file")
  items = [(index, featurizing.Source(path, tuple(repeated[index] for repeated in passes)))
           for index, path in enumerate(paths)]
  written: list[pathlib.Path] = []
  skipped: list[work.Failure] = []
  first_error: Exception | None = None
  taken: set[str] = set()
  with engine.scratch() as staging:
    outcomes = engine.map(featurizing.Featurize(padding, strict, staging), items,
                          lambda item: work.file_size(item[1].path))
    # disable=None: no bar without a terminal, because a bar makes log files unreadable.
    for path, outcome in zip(
        tqdm.tqdm(paths, desc="featurize", unit="file", disable=None), outcomes):
      if outcome.error is not None:
        if strict or len(paths) == 1:
          raise outcome.error
        first_error = first_error or outcome.error
        _skip(skipped, path, outcome.error)
        continue
      file = outcome.get()
      converted = file.converted
      for _, problem in converted.failed:
        _skip(skipped, path, problem)
      # The conversion has already logged these.
      skipped += [
          work.Failure(str(path), errors.DataError(f"{path}: module {name!r}: {reason}"))
          for name, reason in converted.skipped]
      names = convert.unique_names([graph.name for graph in converted.graphs], taken)
      targets = [pathlib.Path(output) / f"{name}.npz" for name in names]
      try:
        count = featurizing.write(file, targets, overwrite)
      except errors.OutputError as error:
        if engine.in_process or strict:
          raise
        # Other processes have converted the other files already.
        first_error = first_error or error
        _skip(skipped, path, error)
        continue
      written += targets
      _log_summary(file, count)
  if not written:
    raise work.nothing_left(skipped, first_error or errors.DataError(
        "no graph was written, because all programs were skipped; the first: "
        f"{skipped[0].error}"))
  return Featurized(written, skipped)


def _skip(skipped: list[work.Failure], path: pathlib.Path, error: Exception) -> None:
  _log.warning("skipped: %s", error)
  skipped.append(work.Failure(str(path), error))


def _files_of(places: Sequence[str], flag: str) -> list[pathlib.Path]:
  """The files themselves, and the sorted programs of the folders."""
  paths: list[pathlib.Path] = []
  for place in map(pathlib.Path, places):
    if not place.is_dir():
      if files.is_companion(place):
        raise errors.DataError(
            f"{flag} {place} is a file that the operating system added, not a program; expected a "
            f"program, such as {place.name.removeprefix('._')}")
      paths.append(place)
      continue
    try:
      paths += folders.programs(place)
    except errors.MissingDataError as error:
      raise errors.MissingDataError(f"{flag}: {error}") from None
  if not paths:
    raise errors.ConfigError(f"{flag} names no file; expected a program or a folder of programs")
  return paths


def _log_summary(file: featurizing.File, written: int) -> None:
  converted = file.converted
  graphs = converted.graphs
  runs, valid = sum(g.runs for g in graphs), sum(g.valid_runs for g in graphs)
  _log.info(
      "%s (%s): %d graphs (%d written, %d already there), %d nodes, %d of %d runs used "
      "(%d excluded), %d programs skipped",
      converted.source, converted.file_kind, len(graphs), written, len(graphs) - written,
      file.nodes, valid, runs, runs - valid,
      len(converted.skipped) + len(converted.failed))
  unknown: dict[str, int] = {}
  for graph in graphs:
    for opcode, count in graph.unknown_opcodes.items():
      unknown[opcode] = unknown.get(opcode, 0) + count
  if unknown:
    _log.warning(
        "%s: opcodes missing from the table are stored as 0: %s", converted.source,
        ", ".join(f"{escaping.shown(opcode)} ({count})"
                  for opcode, count in sorted(unknown.items())[:_SHOWN_OPCODES]))


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_multi_string(
      "input", None, "A raw protobuf, an HLO program (protobuf or text) or a StableHLO program, "
      "also compressed; or a folder of them.", required=True)
  flags.DEFINE_string("output", None, "Folder of the .npz files.", required=True)
  flags.DEFINE_enum(
      "padding", "0", ["0", "-1"],
      "Padding of short feature lists that have no sum and product: 0 as in the public release, or "
      "-1 as in its later variant. The file records it as feature_padding.")
  flags.DEFINE_multi_string(
      "repeat", [],
      "Another measurement of the same programs and runs: a file, or a folder if there are several "
      "input files. config_runtime becomes the mean over all measurements, and "
      "config_runtime_passes keeps each.")
  flags.DEFINE_bool("overwrite", False, "Replace existing files with other content.")
  flags.DEFINE_bool("strict", False, "Stop at the first damaged file or program, instead of "
                    "skipping it.")
  engines.define_flags("--output")


def main(argv: list[str]) -> int:
  """Runs the command."""
  values = flags.FLAGS
  with engines.failures_of_errors():
    result = featurize(values.input, values.output, int(values.padding), values.repeat,
                       values.overwrite, values.strict, engines.engine())
  engines.write_failures(result.skipped, values.output)
  if not result.skipped:
    return 0
  _log.warning("graphs in %s: %d; skipped files and programs: %d (exit status %d)",
               values.output, len(result.written), len(result.skipped), app.SOME_SKIPPED)
  return app.SOME_SKIPPED
