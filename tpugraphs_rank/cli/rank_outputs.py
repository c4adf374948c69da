"""What the command `rank` writes and prints for each file of programs."""

from collections.abc import Iterable, Sequence
import dataclasses
import itertools
import pathlib
from typing import Any, NamedTuple

from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files
from tpugraphs_rank.candidates import measured
from tpugraphs_rank.candidates import preparing
from tpugraphs_rank.candidates import rank_tables
from tpugraphs_rank.candidates import ranking
from tpugraphs_rank.cli import runs
from tpugraphs_rank.hlo import folders
from tpugraphs_rank.hlo import reading
from tpugraphs_rank.metrics import evidence as evidence_lib

_MOST_NAMES = 100


@dataclasses.dataclass(frozen=True)
class Rankings:
  """The rankings of a file's programs.

  Attributes:
    results: one for each program or kernel.
    skipped: the programs and kernels that have no candidates.
    run: what a reader must know of the run.
  """

  results: list[ranking.Ranked]
  skipped: tuple[preparing.Skipped, ...]
  run: rank_tables.RunFacts


class Source(NamedTuple):
  """A file to rank, and the files of its ranking.

  Attributes:
    hlo: the file, or the name of a bundled example.
    as_json: the JSON file.
    as_raw: the raw file.
  """

  hlo: str
  as_json: pathlib.Path
  as_raw: pathlib.Path


class Written(NamedTuple):
  """The ranking of a file, after its files are written.

  Attributes:
    text: what a user reads.
    skipped: the whole programs that have no candidates.
  """

  text: str
  skipped: tuple[preparing.Skipped, ...]


def files_of(places: Sequence[str]) -> list[str]:
  """The files to rank: those named, and the programs of the folders; each once.

  Raises:
    MissingDataError: a folder holds no program.
  """
  paths: list[str] = []
  for place in places:
    folder = pathlib.Path(place)
    if place.startswith(runs.BUNDLED) or not folder.is_dir():
      paths.append(place)
    else:
      paths += map(str, folders.programs(folder))
  return list(dict.fromkeys(paths))


def sources(folder: pathlib.Path, run: str, paths: Sequence[str]) -> list[Source]:
  """The files to rank, with the files of their rankings in a folder.

  These are named after the program's file. If that name is taken by the ranking of another file or
  run, a number is added: `FILE.2.ranked.json`.
  """
  taken: set[pathlib.Path] = set()
  return [_source(folder, run, path, taken) for path in paths]


def _source(folder: pathlib.Path, run: str, hlo: str, taken: set[pathlib.Path]) -> Source:
  stem = reading.stem(hlo.removeprefix(runs.BUNDLED))
  numbers: Iterable[int] = itertools.count(1)
  for number in numbers:
    name = stem if number == 1 else f"{stem}.{number}"
    as_json = folder / f"{name}.ranked.json"
    is_free = not as_json.exists() or _identity(as_json) == _identity_of(run, hlo)
    if as_json not in taken and (is_free or number > _MOST_NAMES + len(taken)):
      break
  taken.add(as_json)
  return Source(hlo, as_json, folder / f"{name}.ranked.pb")


def _identity_of(run: str, hlo: str) -> dict[str, str]:
  """The run and the file that a ranking is of, whatever the current folder."""
  return {key: path if path.startswith(runs.BUNDLED) else str(pathlib.Path(path).resolve())
          for key, path in (("run_path", run), ("hlo_path", hlo))}


def _identity(path: pathlib.Path) -> dict[str, Any]:
  """The run and the file of a stored ranking; empty if that cannot be read."""
  try:
    stored = files.read_json(path)
    return {key: stored[key] for key in ("run_path", "hlo_path")}
  except (errors.TpuGraphsRankError, KeyError, TypeError):
    return {}


def write(source: Source, rankings: Rankings, run: str,
          comparisons: Sequence[measured.Measured] = ()) -> None:
  """Writes the raw file and the JSON file of a ranking.

  Args:
    source: the files.
    rankings: the rankings.
    run: the run, as the user names it.
    comparisons: the measurements of each program, if there are any.
  """
  with files.atomic_write(source.as_raw) as file:
    file.write(ranking.raw_bytes(rankings.results))
  contents = to_json(rankings, run, source.hlo)
  for program, comparison in zip(contents["programs"], comparisons):
    program["measured"] = measured.to_json(comparison)
  files.write_json(source.as_json, contents)


def to_json(rankings: Rankings, run: str, hlo: str) -> dict[str, Any]:
  """The contents of the JSON file."""
  facts = rankings.run
  total = None if facts.evidence is None else facts.evidence.of(evidence_lib.ALL)
  return {
      "run": str(run), "hlo": str(hlo), **_identity_of(str(run), str(hlo)),
      "what": "predictions, not measurements", "collection": facts.collection,
      "target": facts.target, "hlo_stage": facts.hlo_stage, "members": facts.members,
      "validation": None if total is None else dataclasses.asdict(total),
      "calibration": None if facts.evidence is None or facts.evidence.calibration is None else {
          "split": facts.evidence.split, "programs": facts.evidence.calibration.programs,
          "candidates": facts.evidence.calibration.candidates},
      "warnings": list(facts.warnings),
      "programs": [ranking.to_json(result) for result in rankings.results],
      "skipped": [skipped._asdict() for skipped in rankings.skipped]}


def text(rankings: Rankings) -> str:
  """The rankings as a user reads them, with an empty line at the end."""
  blocks = [rank_tables.heading(rankings.run)]
  blocks += [rank_tables.table(result) for result in rankings.results]
  if explained := rank_tables.legend(rankings.results):
    blocks.append(explained)
  kernels = sum(skipped.is_kernel for skipped in rankings.skipped)
  if kernels:
    blocks.append(f"{kernels} other kernels cannot be tiled; the JSON file says why")
  return "".join(f"{block}\n\n" for block in blocks).removesuffix("\n")


def places(source: Source) -> str:
  """Where the files are."""
  return "\n".join(escaping.printable(f"{what}: {path}") for what, path in (
      ("ranking", source.as_json), ("to measure", source.as_raw)))
