"""Rank the configurations of your own program with a trained run.

  tpugraphs-rank rank --run bundled:tile_xla_cpu --hlo bundled:matmul --top_k 5
  tpugraphs-rank rank --run bundled:layout_xla_cpu_mixed --hlo bundled:transformer_block
  tpugraphs-rank rank --run bundled:tile_xla_cpu --hlo my_program.pb --kernels auto
  tpugraphs-rank rank --run_dir runs/first --hlo my_program.pb --candidates mine.npz

Reads what XLA dumps, what JAX writes, and raw files of measured programs. Prints the best
configurations: how often and by how much such predictions were faster than the default on the run's
validation programs, how far the networks of the run agree, and what to change in the program. It
writes two files into `predictions/` of the run directory (of the current folder for a bundled run),
or into --output:

  FILE.ranked.json  the same, for programs
  FILE.ranked.pb    the configurations as raw data without measurements: a TuningData of kernels
                    (tile sizes), or the ModuleTuningData of a program (layouts)

Files of another run or of another program with the same file name stay: a number is added to the
name. The raw file can be measured, and --hlo accepts it. With --measure, the collector measures the
best configurations on this machine, and the command compares predicted and measured runtimes: the
layouts of any program, and the tiles of kernels from the collector's catalogue. If some programs of
a file have no candidates, the others are ranked, and the exit status is 3; so it is with files that
cannot be ranked, if there are several. --runner ranks many files with Apache Beam, in several
processes or on many machines.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import hashlib
import logging
import pathlib
from typing import Any, TYPE_CHECKING

from absl import flags
import tqdm

from tpugraphs_rank import collect
from tpugraphs_rank import commands
from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files
from tpugraphs_rank import plugins
from tpugraphs_rank import work
from tpugraphs_rank.candidates import cpu_default
from tpugraphs_rank.candidates import measured
from tpugraphs_rank.candidates import preparing
from tpugraphs_rank.candidates import programs
from tpugraphs_rank.candidates import rank_tables
from tpugraphs_rank.candidates import ranking as ranked_lib
from tpugraphs_rank.candidates import tile_spaces
from tpugraphs_rank.cli import app
from tpugraphs_rank.cli import engines
from tpugraphs_rank.cli import rank_outputs
from tpugraphs_rank.cli import runs
from tpugraphs_rank.data import element_types
from tpugraphs_rank.hlo import reading
from tpugraphs_rank.hlo import stages
from tpugraphs_rank.training import run_directory

if TYPE_CHECKING:
  from tpugraphs_rank.training import run as run_lib

_FROM_TARGET = "target"

_log = logging.getLogger("tpugraphs_rank.rank")


def rank(run_dir: files.PathLike, hlo: files.PathLike, candidates: str = "", top_k: int = 10,
         module: str | None = None, target: str | None = None,
         tiling: str = _FROM_TARGET, max_candidates: int = 4096, seed: int = 0,
         strict: bool = False, kernels: str = preparing.ONE, measurable: bool = False,
         prior: str = "analytic", load: "Callable[[], run_lib.Run] | None" = None
         ) -> rank_outputs.Rankings:
  """Ranks the candidates of each program in a file.

  Args:
    run_dir: directory of a trained run, or the name of a bundled one.
    hlo: a raw file, see `programs.read`, or the name of a bundled example.
    candidates: the name of a generator, an `.npz` file or ""; see `programs.find`.
    top_k: how many of the best to return.
    module: only the program of this name.
    target: the hardware that the programs are for; None: the run's.
    tiling: one of `tile_spaces.TILINGS`, or `target`: that of the run's target.
    max_candidates: maximum candidates that `auto` generates for a program.
    seed: for `auto`.
    strict: whether to refuse programs that do not fit the run, instead of warning.
    kernels: what a run on tiles does with a program, see `preparing.parts_of`.
    measurable: whether to refuse programs that the collector cannot measure.
    prior: "analytic" or "none", see `load_run`.
    load: returns the run with these settings, if it is loaded already; None: loads it.

  Raises:
    ConfigError: a number is not positive, or a file of several programs needs `module`.
    CompatibilityError: the run cannot score a program; or, if `strict`, it is for another target or
      HLO stage or has opcodes or element types that training never saw.
    TpuGraphsRankError: the run directory, the file or the candidates are damaged.
  """
  if top_k < 1 or max_candidates < 1:
    raise errors.ConfigError(
        f"--top_k={top_k} --max_candidates={max_candidates}: expected 1 or more")
  to_rank = programs.read(hlo, module)
  directory = run_directory.RunDirectory(run_dir)
  about = directory.read_about()
  kind = str(about.get("kind"))
  if kind not in ("tile", "layout"):
    _load(run_dir, strict, prior)  # Explains what is damaged.
  is_file = not programs.is_generator(candidates)
  if len(to_rank) > 1 and (is_file or kind == "layout"):
    raise errors.ConfigError(
        f"{hlo} has {len(to_rank)} programs; expected one, because "
        + (f"{candidates} holds the candidates of one" if is_file else
           "a raw file holds the layouts of one") + ": choose it with --module NAME")
  # Everything that can refuse a program comes before TensorFlow, which takes seconds to import.
  mismatches = _stage_mismatches(to_rank, about, directory)
  warnings = list(mismatches.values())
  if strict and warnings:
    raise errors.CompatibilityError(warnings[0])
  parts = preparing.parts_of(
      to_rank, kind, candidates, kernels, str(directory), str(about.get("hlo_stage")))
  if measurable:
    _check_measurable(parts, kind)
  for warning in warnings:
    _log.warning("%s", warning)
  if tiling == _FROM_TARGET:
    tiling = tile_spaces.tiling_of(about.get("target"))
  prepared = preparing.with_candidates(
      parts, lambda program: cpu_default.with_default(
          programs.find(program, kind, candidates, tiling, max_candidates, seed),
          program.data.module, program.source, collect.default_tile(program.data.module.name)),
      functools.partial(tqdm.tqdm, desc="candidates", unit="program", disable=None), strict)
  _report_skipped(prepared.skipped)
  run = _load(run_dir, strict, prior) if load is None else load()
  if target is None:
    _log.info("no --target: assuming that %s is for the hardware of the run's measurements, %s",
              hlo, about.get("target"))
  else:
    run.check_target(target)
  other_target = ("it is for another target than the run's training programs"
                  if target not in (None, about.get("target")) else "")
  graphs = (programs.to_graph(part.program, candidate_set, run.normalizer.feature_padding)
            for part, candidate_set in zip(prepared.parts, prepared.sets))
  evidence = run.evidence
  results = []
  # The scores come first: at their end the run logs what training never saw.
  for scored, part, candidate_set in zip(
      tqdm.tqdm(run.score_each_with_members(graphs), total=len(prepared.parts), desc="scores",
                unit="program", disable=None), prepared.parts, prepared.sets):
    unseen = run.unseen(scored.graph)
    types = [name for kind_of_type in unseen.types for name in (
        element_types.without_column(part.program.data.module)
        if kind_of_type == element_types.OTHER else [kind_of_type])]
    results.append(ranked_lib.rank(
        part.program, candidate_set, scored.scores, top_k, members=scored.members,
        evidence=evidence, kernel=part.kernel, unseen_opcodes=unseen.opcodes,
        unseen_types=tuple(types), prior_weight=run.prior_weight(scored.graph),
        misfit=next(("it is of another HLO stage than the run's training programs"
                     for source in mismatches if part.program.source.startswith(source)),
                    other_target)))
  return rank_outputs.Rankings(results, prepared.skipped, rank_tables.RunFacts(
      str(directory), kind, str(about.get("collection")), str(about.get("target")),
      str(about.get("hlo_stage") or ""), run.config.model.members, evidence,
      commands.command("evaluate", "--run_dir", str(directory)), tuple(warnings)))


def _load(run_dir: files.PathLike, strict: bool, prior: str, trust_plugins: bool = False
          ) -> "run_lib.Run":
  from tpugraphs_rank.training import run  # Imports TensorFlow.
  return run.load_run(run_dir, strict, prior, trust_plugins)


def _report_skipped(skipped: Sequence[preparing.Skipped]) -> None:
  for one in skipped:
    if not one.is_kernel:
      _log.warning("skipped: %s", one.reason)
  kernels = [one for one in skipped if one.is_kernel]
  if kernels:
    _log.info("%d kernels are not ranked; the JSON file says why. The first: %s", len(kernels),
              kernels[0].reason)


def _stage_mismatches(to_rank: Sequence[programs.HloProgram], about: dict[str, Any],
                      directory: run_directory.RunDirectory) -> dict[str, str]:
  """A warning for each program that shows another HLO stage than the run's training graphs.

  Returns:
    The warnings by the program's `source`.
  """
  expected = str(about.get("hlo_stage") or "")
  warnings = {}
  for program in to_rank:
    stage = stages.of(program.data.module)
    if stage.name == stages.BEFORE and about.get("kind") == "layout":
      continue  # The public programs under layouts were optimised, but not fused yet.
    if stage.name and expected and stage.name != expected:
      wanted, actual = stages.TEXT.get(expected, expected), stages.TEXT[stage.name]
      warnings[program.source] = (
          f"{program.source} is a program {actual}: it {stage.why}. The run {directory} was "
          f"trained on programs {wanted}, which have other instructions, so its ranking may be no "
          f"better than chance: dump the program {wanted}, or choose a run on programs {actual}")
  return warnings


def _check_measurable(parts: Sequence[preparing.Part], kind: str) -> None:
  """Refuses programs that --measure cannot measure, before they are ranked."""
  names = [part.program.data.module.name for part in parts]
  try:
    collect.check_known(names, kind == "layout")
  except errors.CompatibilityError as error:
    raise errors.CompatibilityError(
        f"--measure: {error}; without --measure the program is ranked, and FILE.ranked.pb lists "
        "what to measure") from error
  _log.info("--measure: the collector knows %s and will measure the best configurations after the "
            "ranking", ", ".join(names[:3]) + (", ..." if len(names) > 3 else ""))


def measure(raw: pathlib.Path, results: Sequence[ranked_lib.Ranked]) -> list[measured.Measured]:
  """Lets the collector measure the configurations in a raw file of the results.

  The measurements are stored next to the file, in a folder named after it and its content.

  Raises:
    CompatibilityError: a program is in none of the collector's catalogues.
    OutputError: the collector failed.
    DataError: too few configurations could be measured.
  """
  digest = hashlib.sha256(raw.read_bytes()).hexdigest()[:8]
  folder = raw.with_name(f"{raw.stem}.{digest}.measured").resolve()
  passes = [{data.module.name: data for data in reading.read_raw(path).modules}
            for path in collect.measure_ranked(raw, folder)]
  return [
      measured.compare(result, [by_name[result.program.data.module.name] for by_name in passes])
      for result in results]


def define_flags() -> None:
  """Defines the command's flags."""
  runs.define_run_flag()
  flags.DEFINE_multi_string(
      "hlo", None, "The program: HLO (text or protobuf) or StableHLO, also compressed, or a raw "
      "TuningData or ModuleTuningData file; or a folder of them. Repeatable.", required=True)
  flags.DEFINE_string(
      "candidates", "", "auto: generate tiles or layouts that the program admits. runs: the runs "
      "in the raw file, measured or not. Otherwise an .npz file with config_feat, or with "
      "node_config_ids and node_config_feat, or the name of a generator that a plugin registers. "
      "By default runs if the file has any, else auto.")
  flags.DEFINE_multi_string("plugin", [], "Module or file that registers candidate generators. The "
                            "plugins of the run are loaded anyway. Repeatable.")
  flags.DEFINE_integer("top_k", 10, "Number of best configurations to report.")
  flags.DEFINE_string("output", None, "Folder of the results. By default predictions/ in the run "
                      "directory, or in the current folder for a bundled run.")
  flags.DEFINE_string("module", None, "Rank only the program of this name, from a file of several. "
                      "NAME#2 is the second of several of one name.")
  flags.DEFINE_enum("kernels", preparing.ONE, list(preparing.KERNELS),
                    "For runs on tiles. one: the program must be one kernel. auto: rank each "
                    "fusion, dot, reduction and so on of a program as a kernel of its own. whole: "
                    "tile the result of any program.")
  flags.DEFINE_string("target", None, "The hardware that the program is for. The command warns if "
                      "the run was trained for another.")
  flags.DEFINE_enum("tiling", _FROM_TARGET, [_FROM_TARGET, *tile_spaces.TILINGS],
                    "What the bounds of a tile mean, for --candidates=auto. tpu: hardware tiles in "
                    "physical order. elements: any number of elements. xla_cpu: numbers of "
                    "elements that divide their axes. target: chosen by the name of the run's "
                    "target.")
  flags.DEFINE_integer("max_candidates", 4096, "Maximum candidates that auto generates for a "
                       "program. If there are more, it samples.")
  flags.DEFINE_integer("seed", 0, "Seed of the candidates that auto samples.")
  runs.define_strict_flag("programs")
  runs.define_prior_flag()
  flags.DEFINE_bool("measure", False, "Measure the best configurations on this machine with the "
                    "collector: layouts of any program, and tiles of kernels of its catalogue, "
                    "which it recognises by the module's name. Others are refused before they are "
                    "ranked.")
  engines.define_flags("the folder of the results")


@dataclasses.dataclass(frozen=True)
class _Rank(work.Task[rank_outputs.Source, rank_outputs.Written]):
  """Ranks a file and writes the results.

  Attributes:
    run_dir: the run.
    plugin: the plugins to load.
    settings: further arguments of `rank`.
    trust_plugins: whether the user consents to the plugins of the run.
  """

  run_dir: str
  plugin: tuple[str, ...]
  settings: Mapping[str, Any]
  trust_plugins: bool = False
  expected = (errors.TpuGraphsRankError,)

  @functools.cached_property
  def _run(self) -> "run_lib.Run":
    return _load(self.run_dir, self.settings["strict"], self.settings["prior"],
                 self.trust_plugins)

  @functools.cached_property
  def _plugins_loaded(self) -> bool:
    plugins.load_all(self.plugin)
    return True

  def rank(self, source: rank_outputs.Source) -> rank_outputs.Rankings:
    """The rankings of a file."""
    assert self._plugins_loaded
    return rank(self.run_dir, source.hlo, load=lambda: self._run, **self.settings)

  def __call__(self, source: rank_outputs.Source) -> rank_outputs.Written:
    rankings = self.rank(source)
    rank_outputs.write(source, rankings, self.run_dir)
    return rank_outputs.Written(
        rank_outputs.text(rankings), tuple(one for one in rankings.skipped if not one.is_kernel))


def main(argv: list[str]) -> int:
  """Runs the command."""
  values = flags.FLAGS
  task = _Rank(values.run_dir, tuple(values.plugin), {name: values[name].value for name in (
      "candidates", "top_k", "module", "target", "tiling", "max_candidates", "seed", "strict",
      "kernels", "prior")} | {"measurable": values.measure},
               values.trust_plugins)
  folder = pathlib.Path(values.output or files.without_links(
      runs.results_folder(values.run_dir), "predictions"))
  engine = engines.engine()
  paths = rank_outputs.files_of(values.hlo)
  for name in ("module", "measure"):
    if values[name].value and (len(paths) > 1 or name == "measure" and not engine.in_process):
      raise errors.ConfigError(f"--{name} is for one program in this process; pass one file in "
                               "--hlo, and no --runner")
  sources = rank_outputs.sources(folder, values.run_dir, paths)
  if values.measure:
    return _rank_and_measure(task, sources[0])
  failures: list[work.Failure] = []
  ranked = 0
  outcomes = engine.map(task, sources, lambda source: work.file_size(pathlib.Path(source.hlo)))
  for source, outcome in zip(sources, outcomes):
    if outcome.error is not None:
      if len(sources) == 1 or values.strict:
        raise outcome.error
      _log.warning("skipped: %s", outcome.error)
      failures.append(work.Failure(source.hlo, outcome.error))
      continue
    ranked += 1
    written = outcome.get()
    failures += [work.Failure(source.hlo, errors.DataError(one.reason)) for one in written.skipped]
    title, end = (f"{escaping.printable(source.hlo)}\n", "\n") if len(sources) > 1 else ("", "")
    print(f"{title}{written.text}\n{rank_outputs.places(source)}{end}", flush=True)
  engines.write_failures(failures, folder)
  if not ranked:
    raise failures[0].error
  return app.SOME_SKIPPED if failures else 0


def _rank_and_measure(task: _Rank, source: rank_outputs.Source) -> int:
  rankings = task.rank(source)
  rank_outputs.write(source, rankings, task.run_dir)
  print(rank_outputs.text(rankings), flush=True)
  comparisons = measure(source.as_raw, rankings.results)
  for comparison in comparisons:
    print(measured.table(comparison) + "\n")
  rank_outputs.write(source, rankings, task.run_dir, comparisons)
  print(rank_outputs.places(source))
  return app.SOME_SKIPPED if any(not one.is_kernel for one in rankings.skipped) else 0
