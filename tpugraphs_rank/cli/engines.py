"""The flags of the commands that process many programs: where they run, and what failed."""

from collections.abc import Iterator, Sequence
import contextlib
import importlib.util
import logging
import pathlib
import shlex

from absl import flags

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import work

_FILE = "failures.json"


def define_flags(place: str, failures: bool = True) -> None:
  """Defines the flags.

  Args:
    place: where the file of failures goes by default, in words.
    failures: whether the command has such a file.
  """
  flags.DEFINE_string(
      "runner", "", "Run as an Apache Beam pipeline on this runner, instead of in this process: "
      "DirectRunner (on this machine), FlinkRunner, SparkRunner, DataflowRunner, PortableRunner, "
      "or the full name of a class.")
  flags.DEFINE_multi_string(
      "beam_args", [], "Options of Apache Beam, as on its own command lines: "
      '--beam_args="--direct_num_workers=2 --direct_running_mode=multi_processing". Repeatable.')
  flags.DEFINE_string(
      "work_folder", None, "Folder that this process and all of Beam's workers share. Inputs and "
      "results pass through it. By default the system's folder for temporary files, which suits "
      "workers on this machine.")
  if failures:
    flags.DEFINE_string(
        "failures", None, "JSON file of the inputs that failed, with their errors. By default "
        f"{_FILE} in {place} with --runner, and none without it.")


def engine() -> work.Engine:
  """Where the tasks of the command run.

  Raises:
    ConfigError: there is no such runner or option.
    CompatibilityError: Apache Beam is not installed.
  """
  values = flags.FLAGS
  if not values.runner:
    for name in ("beam_args", "work_folder"):
      if values[name].value:
        raise errors.ConfigError(f"--{name} needs --runner, such as --runner=DirectRunner")
    return work.HERE
  if importlib.util.find_spec("apache_beam") is None:
    raise errors.CompatibilityError(
        "--runner needs Apache Beam, which is not installed in this environment; "
        "`pip install apache-beam` installs it")
  with _without_warnings():
    from tpugraphs_rank.beam import engine as beam_engine
  try:
    words = [word for text in values.beam_args for word in shlex.split(text)]
  except ValueError as error:
    raise errors.ConfigError(f"--beam_args: {error}") from None
  return beam_engine.BeamEngine(values.runner, words, values.work_folder)


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
  """Silences what Beam logs while it is imported: that clients of Google Cloud are not there."""
  logging.disable(logging.WARNING)
  try:
    yield
  finally:
    logging.disable(logging.NOTSET)


@contextlib.contextmanager
def failures_of_errors() -> Iterator[None]:
  """Writes the requested file of failures also if the block fails because no input is left."""
  try:
    yield
  except Exception as error:
    failures = getattr(error, "failures", ())
    if failures and flags.FLAGS.failures is not None:
      write_failures(failures, pathlib.Path())
    raise


def write_failures(failures: Sequence[work.Failure], folder: files.PathLike) -> None:
  """Writes the file of failures if it is requested, or if there are some with --runner.

  Args:
    failures: the failures.
    folder: its default folder.
  """
  path = flags.FLAGS.failures
  if path is None:
    path = pathlib.Path(folder) / _FILE
    # A list of an earlier run would be wrong now.
    if not flags.FLAGS.runner or not failures and not path.exists():
      return
  files.write_json(path, [failure.to_json() for failure in failures])
