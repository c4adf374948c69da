"""Print what Chakra traces hold and what is wrong with them.

  tpugraphs-rank chakra inspect job.0.et
  tpugraphs-rank chakra inspect traces/ --output traces.json
  tpugraphs-rank chakra inspect job.0.et --write job.0.json

For each trace the command prints nodes by type and operator, attributes with their kinds,
dependencies, depth, durations, and faults: cycles, attributes of a kind that simulators do not
read, and nodes without cost. --output writes the numbers as JSON. --write writes the trace again:
in the JSON form of the reference jsonizer if the name ends in .json, else in the binary form. The
file is compressed if its name ends in .gz.

The exit status is 3 if a trace cannot be read and others can.
"""

import logging
import pathlib
from typing import Any

from absl import flags

from tpugraphs_rank import commands
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.chakra import graphs
from tpugraphs_rank.chakra import summary as summary_lib
from tpugraphs_rank.chakra import traces
from tpugraphs_rank.cli import app

_log = logging.getLogger("tpugraphs_rank.chakra")


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("output", None, "JSON file for all numbers.")
  flags.DEFINE_string("write", None, "File to write the trace to again.")


def main(argv: list[str]) -> int:
  """Runs the command."""
  values = flags.FLAGS
  if len(argv) < 2:
    raise errors.ConfigError("expected the name of a trace, or of a folder of traces, such as "
                             + commands.command("chakra", "inspect", "job.0.et"))
  paths = graphs.trace_files(argv[1:])
  if values.write and len(paths) > 1:
    raise errors.ConfigError(f"--write takes one trace, but there are {len(paths)}; name one of "
                             "them")
  summaries: list[dict[str, Any]] = []
  skipped = 0
  for path in paths:
    try:
      trace = traces.read(path)
      summary = summary_lib.summarize(trace, str(path))
    except errors.DataError as error:
      if len(paths) == 1:
        raise
      _log.warning("skipped: %s", error)
      skipped += 1
      continue
    if summaries:
      print()
    print(summary_lib.text(summary))
    summaries.append(summary)
    if values.write:
      target = pathlib.Path(values.write)
      traces.write(target, trace, compress=target.suffix == ".gz")
      print(f"trace: {target}")
  if not summaries:
    raise errors.DataError(f"none of the {len(paths)} traces can be read; see the messages above")
  if values.output:
    files.write_json(values.output, {"traces": summaries})
    print(f"numbers: {values.output}")
  return app.SOME_SKIPPED if skipped else 0
