"""The traces that `chakra synthesize` writes."""

import collections
from collections.abc import Mapping
import contextlib
import dataclasses
import filecmp
import hashlib
import os
import pathlib
import re
import secrets
from typing import Any

import numpy as np

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import folder_settings
from tpugraphs_rank.chakra import costs as costs_lib
from tpugraphs_rank.chakra import exporting
from tpugraphs_rank.chakra import trace_folders
from tpugraphs_rank.synthesis.dags import dags as dags_lib
from tpugraphs_rank.synthesis.traces import generation

SETTINGS, RECORD, PRIVATE = "settings.json", "traces.json", "private_names.json"
# The files of a comparison, as `chakra compare` writes them.
COMPARISON = ("report.md", "results.json", "distributions.png", "nearest.png", "graphs.png")
# Share of nodes without cost. The export fuses them; linked PyTorch traces have 5 %, traces of the
# host alone over 90 %.
MOST_WITHOUT_COST = 0.5


def check_costs(traces: dags_lib.Dags, training: dags_lib.Dags, costs: costs_lib.Costs | None
                ) -> None:
  """Checks, before a generator is trained, that graphs like the training graphs can be exported.

  Args:
    traces: the graphs of the whole traces.
    training: sub-graphs of them.
    costs: costs that the user gives.

  Raises:
    DataError: more than half of the nodes of the training graphs have no cost, or the costs name
      an unknown value, or a value cannot be exported.
  """
  if costs is not None:
    costs_lib.check(costs, exporting.vocabularies(traces))
  lacking: collections.Counter[str] = collections.Counter()
  for nodes, costless in exporting.without_cost(training, costs):
    lacking.update(name for name, without in zip(nodes.names, costless.tolist()) if without)
  count, total = lacking.total(), int(training.sizes.sum())
  if count > MOST_WITHOUT_COST * total:
    shown = ", ".join(repr(word) for word, _ in lacking.most_common(3))
    raise errors.DataError(
        f"{count:,} of the {total:,} nodes of the training sub-graphs have no cost, so that little "
        "would remain of graphs like them; expected durations, or operations and bytes; give costs "
        f"of operators such as {shown} in a file (--costs), or use traces that state durations")


@dataclasses.dataclass(frozen=True)
class Names:
  """Names that hide those of operators.

  Attributes:
    operators: the new name of each operator.
    key: secret seed of the order of nodes.
  """

  operators: Mapping[str, str]
  key: int


def private_names(output: pathlib.Path, graphs: dags_lib.Dags) -> Names:
  """The secret names in a folder, or new ones, which are stored there.

  They are random numbers of the operating system, drawn once, so that a resumed run agrees. No
  setting determines them, and a number says nothing about the place of a name in the alphabet.

  Raises:
    DataError: the file of names is damaged.
  """
  path = output / PRIVATE
  words = sorted(exporting.vocabularies(graphs).get("operator", []))
  stored = files.read_json(path) if path.exists() else {
      "operators": {}, "key": secrets.token_hex(16)}
  known = stored.get("operators") if isinstance(stored, dict) else None
  key = stored.get("key") if isinstance(stored, dict) else None
  if (not isinstance(known, dict) or not isinstance(key, str)
      or not re.fullmatch("[0-9a-f]{32}", key)
      or not all(isinstance(name, str) and re.fullmatch(r"op_\d{1,9}", name)
                 for name in known.values()) or len(set(known.values())) < len(known)):
    raise errors.DataError(
        f"{path} is damaged; expected the keys 'operators', with different names such as 'op_1', "
        "and 'key'; restore the file, or remove it to draw new names")
  missing = [word for word in words if word not in known]
  if missing:
    taken = set(known.values())
    free = [name for number in range(1, len(known) + len(missing) + len(taken) + 1)
            if (name := f"op_{number}") not in taken][:len(missing)]
    secrets.SystemRandom().shuffle(free)
    known = {**known, **dict(zip(missing, free))}
    files.write_json(path, {"operators": known, "key": key})
    with contextlib.suppress(OSError):  # A file system without permissions.
      path.chmod(0o600)
  return Names(known, int(key, 16))


def check_settings(output: pathlib.Path, settings: Mapping[str, Any], traces: dags_lib.Dags
                   ) -> None:
  """Stores the settings of a training in a new folder, or compares them with the stored ones.

  Raises:
    RunDirectoryError: the folder belongs to other settings or other traces, or has results without
      settings; nothing was written.
  """
  path = output / SETTINGS
  kept = [name for name in ("generator", "training.npz") if (output / name).exists()]
  if kept and not path.exists():
    raise errors.RunDirectoryError(
        f"{output} has {kept[0]}, but no {SETTINGS} that says which settings it belongs to; choose "
        "another --output")
  digest = hashlib.sha256()
  for array in (traces.x, traces.src, traces.dst, traces.node_off, traces.edge_off):
    digest.update(np.ascontiguousarray(array, np.int64).tobytes())
  digest.update(repr(exporting.vocabularies(traces)).encode())
  folder_settings.check(output, {**settings, "traces of --input": digest.hexdigest()[:16]})


def write(output: pathlib.Path, graphs: dags_lib.Dags, ranks: int,
          costs: costs_lib.Costs | None = None, names: Names | None = None) -> exporting.Report:
  """Writes OUTPUT/traces; traces that an earlier call wrote there are replaced.

  OUTPUT/traces.json lists them. It names new traces before they appear, so that a call after an
  interruption knows all of them. Only listed files are removed, and files of the same content.

  Args:
    output: the folder.
    graphs: the graphs.
    ranks: number of ranks that run each graph.
    costs: costs that the user gives; those for values that the graphs lack are ignored.
    names: names that hide those of operators.

  Raises:
    DataError, LimitError: as `exporting.write`.
    OutputError: the folder has traces that are not listed, or cannot be written.
  """
  if costs is not None:
    words = {word: word for word in exporting.vocabularies(graphs)[costs.attribute]}
    if names is not None and costs.attribute == "operator":
      words = {word: names.operators[word] for word in words}
    costs = costs_lib.of_values(costs, words)
  if names is not None:
    graphs = generation.obfuscate(graphs, names.operators, names.key)
  try:
    with trace_folders.staging(output) as staging:
      report = exporting.write(staging / "traces", graphs, exporting.Settings(
          ranks=ranks, costs=costs))
      _replace(output / "traces", staging / "traces", output / RECORD)
  except OSError as error:
    if isinstance(error, errors.TpuGraphsRankError):
      raise
    raise files.output_error(output / "traces", error) from error
  return report


def _replace(folder: pathlib.Path, source: pathlib.Path, record: pathlib.Path) -> None:
  """Moves the files of a folder to another one, in place of those that the record lists."""
  new = {path.name: path for path in sorted(source.iterdir())}
  old = _recorded(record)
  present = {path.name: path for path in (folder.iterdir() if folder.exists() else ())}
  for name, path in present.items():
    if name in new:
      foreign = not path.is_file() or name not in old and not _equal(path, new[name])
    else:
      foreign = name not in old and path.is_file() and name.endswith(trace_folders.OF_SIMULATORS)
    if foreign:
      raise errors.OutputError(
          f"{path} was not written by this command, or {record} no longer lists it; simulators "
          "would read it together with the new traces; move it elsewhere, or choose another "
          "--output")
  files.write_json(record, {"files": sorted({*old, *new})})
  for name in sorted(old & present.keys()):
    if present[name].is_file() and not present[name].is_symlink():
      present[name].unlink(missing_ok=True)
  folder.mkdir(exist_ok=True)
  for name, path in new.items():
    os.replace(path, folder / name)
  files.write_json(record, {"files": sorted(new)})


def _recorded(path: pathlib.Path) -> set[str]:
  """The names of the traces that an earlier call wrote; none if the record is damaged."""
  if not path.exists():
    return set()
  try:
    stored = files.read_json(path)
  except errors.DataError:
    return set()
  listed = stored.get("files") if isinstance(stored, dict) else None
  return {name for name in listed if isinstance(name, str) and pathlib.PurePath(name).name == name
          } if isinstance(listed, list) else set()


def remove_comparison(folder: pathlib.Path) -> bool:
  """Removes the files of a comparison; other files, and a folder that holds some, stay.

  Returns:
    Whether there were such files.

  Raises:
    OutputError: a file cannot be removed.
  """
  paths = [path for name in COMPARISON if (path := folder / name).is_file() or path.is_symlink()]
  try:
    for path in paths:
      path.unlink(missing_ok=True)
  except OSError as error:
    raise files.output_error(folder, error) from error
  with contextlib.suppress(OSError):  # Other files are in it.
    folder.rmdir()
  return bool(paths)


def _equal(one: pathlib.Path, other: pathlib.Path) -> bool:
  return one.is_file() and filecmp.cmp(one, other, shallow=False)


def exportable(graphs: dags_lib.Dags, costs: costs_lib.Costs | None) -> dags_lib.Dags:
  """The graphs of which at least one node has a cost.

  Raises:
    DataError: there is none.
  """
  kept = [graph for graph, (_, costless) in enumerate(exporting.without_cost(graphs, costs))
          if not costless.all()]
  if not kept:
    raise errors.DataError(
        f"no node of the {len(graphs)} synthetic graphs has a cost; expected durations, or "
        "operations and bytes; give the costs of more operators in a file (--costs)")
  return graphs.take(kept)
