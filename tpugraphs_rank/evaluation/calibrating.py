"""The calibration of a run that was trained already: scores of a split against its runtimes."""

import dataclasses
import logging

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.data import splits
from tpugraphs_rank.metrics import evidence as evidence_lib
from tpugraphs_rank.training import evidence_files
from tpugraphs_rank.training import run as run_lib
from tpugraphs_rank.training import run_directory

_logger = logging.getLogger(__name__)


def scored(run: run_lib.Run, split: str, data_root: str | None = None
           ) -> list[tuple[splits.ProgramView, evidence_lib.Scored]]:
  """The programs of a split, each with its default if that is known, and their scores.

  Args:
    run: the run.
    split: "valid", or "test" to check a calibration.
    data_root: folder of the public collections; None: that of the run.

  Raises:
    TpuGraphsRankError: the split cannot be read, or has no runtimes.
  """
  config = dataclasses.replace(run.config.data, duplicates="keep")
  if data_root is not None:
    config = dataclasses.replace(config, data_root=data_root)
  programs = evidence_files.with_defaults(
      splits.load_programs(config, split, run.config.training.seed))
  return list(zip(programs, evidence_files.scored(programs, run.score_programs(programs))))


def of_run(run: run_lib.Run, data_root: str | None = None) -> evidence_lib.Evidence:
  """Figures and calibration of a run on its validation split; errors as of `scored`."""
  split = evidence_files.SPLIT
  return evidence_lib.gather((one for _, one in scored(run, split, data_root)), split)


def complete(run_dir: files.PathLike, data_root: str | None = None) -> bool:
  """Calibrates a run whose directory lacks a calibration.

  An older version trained it; or its split divides configurations, so that validation during
  training lacks the defaults of most programs. Here they are scored, too.

  Args:
    run_dir: the run directory, or `bundled:NAME`.
    data_root: folder of the public collections; None: that of the run.

  Returns:
    Whether the file was written. Bundled runs are read-only, and a run whose validation split
    cannot be read stays as it is, with a warning.
  """
  directory = run_directory.RunDirectory(run_dir)
  stored = evidence_files.read(directory)
  if directory.bundled or stored is not None and (
      stored.calibration is not None
      or directory.read_config().data.split_by != "configuration"):
    return False
  try:
    evidence = of_run(run_lib.load_run(run_dir), data_root=data_root)
    if evidence == stored:
      return False
    evidence_files.write(directory, evidence)
  except errors.OutOfMemoryError:
    raise
  except errors.TpuGraphsRankError as error:
    _logger.warning("%s stays without a calibration: %s", directory, error)
    return False
  return True
