"""Runners of Apache Beam by name, and its options, with errors for mistakes."""

from collections.abc import Sequence
import contextlib
import io
import pathlib
import shlex

from apache_beam.options import pipeline_options
from apache_beam.runners import runner as runners
from apache_beam.runners.portability import fn_api_runner
from apache_beam.transforms import environments

from tpugraphs_rank import config
from tpugraphs_rank import errors
from tpugraphs_rank.beam import worker

# Runners that a user may name; others are named by their class, as `module.Runner`.
DIRECT = "DirectRunner"
NAMES = (DIRECT, "FlinkRunner", "SparkRunner", "DataflowRunner", "PortableRunner")
# A mode that Beam does not know: it starts the workers of the runner's environment.
_OWN_WORKERS = "own_workers"


def check(name: str, options: pipeline_options.PipelineOptions) -> None:
  """Checks the name of a runner, and the number of workers on this machine.

  Raises:
    ConfigError: there is no such runner, it is not installed, or it cannot have that many workers.
  """
  if name != DIRECT:
    _other_runner(name)
    return
  direct = options.view_as(pipeline_options.DirectOptions)
  if direct.direct_num_workers < 0 or (
      direct.direct_num_workers != 1 and direct.direct_running_mode == "in_memory"):
    raise errors.ConfigError(
        f"--beam_args: --direct_num_workers={direct.direct_num_workers} with "
        f"--direct_running_mode={direct.direct_running_mode}; expected 1, or 0 (one for each "
        "core) or more with --direct_running_mode=multi_processing")


def runner_named(name: str, options: pipeline_options.PipelineOptions, folder: pathlib.Path
                 ) -> runners.PipelineRunner:
  """The runner of a name.

  Args:
    name: the name.
    options: Beam's options; those of the DirectRunner may change.
    folder: the folder of the pipeline.

  Raises:
    ConfigError: there is no such runner, or it is not installed.
  """
  if name != DIRECT:
    return _other_runner(name)
  # What Beam calls the DirectRunner first tries to download another runner, called Prism. This is
  # the one that it uses otherwise.
  direct = options.view_as(pipeline_options.DirectOptions)
  if direct.direct_running_mode not in ("multi_processing", _OWN_WORKERS):
    return fn_api_runner.FnApiRunner()
  direct.direct_running_mode = _OWN_WORKERS
  return fn_api_runner.FnApiRunner(
      default_environment=environments.SubprocessSDKEnvironment.from_command_string(
          f"exec {shlex.join(worker.command(folder))}"))


def _other_runner(name: str) -> runners.PipelineRunner:
  if name not in NAMES and "." not in name:
    raise errors.ConfigError(
        f"no runner {name!r}{config.nearest(name, NAMES)}; expected one of "
        f"{', '.join(NAMES)}, or the full name of a runner's class")
  try:
    return runners.create_runner(name)
  except (AttributeError, ImportError, TypeError, ValueError) as error:
    raise errors.ConfigError(f"the runner {name} cannot be used: {error}") from None


def parse(arguments: Sequence[str], runner: str) -> pipeline_options.PipelineOptions:
  """Beam's options from the words of a command line.

  Args:
    arguments: the words.
    runner: name of the runner. Those on clusters have options of their own, which only they know.

  Raises:
    ConfigError: an option is unknown or has a wrong value; or it is --runner.
  """
  parser = pipeline_options._BeamArgumentParser(
      prog="--beam_args", add_help=False, allow_abbrev=False)
  for options in pipeline_options.PipelineOptions.__subclasses__():
    if "_add_argparse_args" in options.__dict__:
      options._add_argparse_args(parser)
  messages = io.StringIO()
  try:
    with contextlib.redirect_stderr(messages):
      _, unknown = parser.parse_known_args(list(arguments))
  except SystemExit:
    reason = messages.getvalue().strip().splitlines()[-1].partition("error: ")[2]
    raise errors.ConfigError(f"--beam_args: {reason}") from None
  if any(word.partition("=")[0] == "--runner" for word in arguments):
    raise errors.ConfigError("--beam_args: --runner is a flag of this command; pass it there")
  if unknown and runner == DIRECT:
    known = [name for action in parser._actions for name in action.option_strings]
    raise errors.ConfigError(
        f"--beam_args: {runner} has no option {unknown[0]!r}"
        f"{config.nearest(unknown[0].partition('=')[0], known)}; expected options such as "
        "--direct_num_workers=2 --direct_running_mode=multi_processing")
  return pipeline_options.PipelineOptions(list(arguments))
