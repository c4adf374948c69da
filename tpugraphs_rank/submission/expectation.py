"""The rows that a submission must have, taken from the ranked graphs or from a sample."""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import functools
import pathlib
import re

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.data import collections
from tpugraphs_rank.data import headers
from tpugraphs_rank.data import registry
from tpugraphs_rank.metrics import competition
from tpugraphs_rank.submission import reading
from tpugraphs_rank.submission import rows as rows_lib

# The order of the collections in a file.
COLLECTIONS: tuple[str, ...] = (
    "tile:xla", "layout:xla:default", "layout:xla:random", "layout:nlp:default",
    "layout:nlp:random")

_CONFIG_KEYS = {"tile": "config_feat", "layout": "node_config_feat"}
_PUBLIC_ID = re.compile(r"((tile):[^:]+|(layout):[^:]+:[^:]+):(.+)")


@dataclasses.dataclass(frozen=True)
class ExpectedRow:
  """One row that a submission must have.

  Attributes:
    id: `<collection>:<file stem>`.
    collection: its name.
    kind: "tile" or "layout".
    length: number of indices in the row; None if the sample does not determine it.
    num_configs: number of configurations of the graph, whose indices are 0 to num_configs - 1; None
      if the sample does not determine it.
    path: the graph's file; None for a sample.
  """

  id: str
  collection: str
  kind: str
  length: int | None
  num_configs: int | None
  path: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True)
class Expectation:
  """The rows of a submission, in their order.

  Attributes:
    rows: in the order of the file.
    source: where they come from, for messages.
  """

  rows: tuple[ExpectedRow, ...]
  source: str

  @functools.cached_property
  def places(self) -> Mapping[str, int]:
    """The index in `rows` of each ID."""
    return {row.id: place for place, row in enumerate(self.rows)}

  @property
  def collections(self) -> tuple[str, ...]:
    """Names of the collections, in their order."""
    return tuple(dict.fromkeys(row.collection for row in self.rows))

  def only(self, names: Iterable[str]) -> "Expectation":
    """The rows of these collections only."""
    wanted = frozenset(names)
    return Expectation(tuple(row for row in self.rows if row.collection in wanted), self.source)

  def count(self, ids: Iterable[str]) -> dict[str, int]:
    """The number of IDs of each collection; unknown IDs are ignored."""
    counts = dict.fromkeys(self.collections, 0)
    for name in ids:
      if name in self.places:
        counts[self.rows[self.places[name]].collection] += 1
    return counts


def from_data(names: Sequence[str | registry.Collection] = COLLECTIONS, split: str = "test",
              data_root: files.PathLike | None = None) -> Expectation:
  """The rows of all graphs of a split, from the headers of their files.

  Within a collection, the rows are sorted by file stem (by code point).

  Args:
    names: the collections, in the order of the file.
    split: the split that is ranked.
    data_root: as for `load_collection`.

  Raises:
    MissingDataError, UnknownNameError, DataError: as for `load_collection`; or a file is damaged,
      of another kind or without configurations.
  """
  expected: list[ExpectedRow] = []
  for name in names:
    members = collections.load_collection(name, split, data_root)
    collection = members.collection
    for path in sorted(members.paths, key=lambda path: path.stem):
      count = num_configs(path, collection.kind)
      expected.append(ExpectedRow(
          rows_lib.graph_id(collection.name, path.stem), collection.name, collection.kind,
          rows_lib.row_length(collection.kind, count), count, path))
  what = f"{len(names)} collections" if len(names) > 1 else "".join(
      {row.collection for row in expected})
  result = Expectation(tuple(expected), f"the {split} graphs of {what}")
  if len(result.places) != len(expected):
    raise errors.DataError(
        "two graphs have the same ID; name each collection once, and give its files different "
        "stems")
  return result


def num_configs(path: files.PathLike, kind: str) -> int:
  """The number of configurations of the graph in a file. Only headers are read.

  Args:
    path: an `.npz` file.
    kind: "tile" or "layout".

  Raises:
    MissingDataError: there is no such file.
    DataError: it is damaged, of another kind, its arrays disagree, or it has no configurations.
  """
  arrays = headers.read_headers(path)
  features = _CONFIG_KEYS[kind]
  for key in ("config_runtime", features):
    if key not in arrays or not arrays[key].shape:
      raise errors.DataError(
          f"{path} lacks the key {key!r} of a {kind} graph (found: "
          f"{', '.join(sorted(arrays)) or 'none'}); download it again, or move it elsewhere")
  count = arrays["config_runtime"].shape[0]
  if arrays[features].shape[0] != count:
    raise errors.DataError(
        f"{path}: config_runtime has {count} entries, {features} has {arrays[features].shape[0]}; "
        "expected one for each configuration in both: download the file again")
  if not count:
    raise errors.DataError(f"{path} has no configurations, so there is nothing to rank in it")
  return count


def from_sample(path: files.PathLike) -> Expectation:
  """The rows of a sample submission, in its order.

  IDs are used as they are. A tile row determines the number of indices and, if it has fewer than 5
  and they are 0 to n - 1, the number of configurations. A layout row with more than 5 indices must
  be a permutation and determines its length; a shorter one is a placeholder and determines nothing.
  Windows line ends, a byte order mark and a missing last newline are accepted in a sample.

  Raises:
    MissingDataError: there is no such file.
    DataError: it is not a submission; the message names line and ID.
  """
  data = reading.read_bytes(path).removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
  parsed = reading.parse(data if data.endswith(b"\n") else data + b"\n")
  if parsed.faults:
    raise errors.DataError(
        f"sample {path}: {parsed.faults[0]}; download it again, or validate with --data_root")
  expected: dict[str, ExpectedRow] = {}
  for row in parsed.rows:
    problem = "appears twice" if row.id in expected else _add(row, expected)
    if problem:
      raise errors.DataError(
          f"sample {path}: line {row.line}: {row.id}: {problem}; download it again, or validate "
          "with --data_root")
  if not expected:
    raise errors.DataError(f"sample {path} has no rows; download it again, or validate with "
                           "--data_root")
  return Expectation(tuple(expected.values()), f"sample {path}")


def _add(row: reading.ReadRow, expected: dict[str, ExpectedRow]) -> str:
  """Adds the row that a sample's row determines. Returns what is wrong with it, or ""."""
  match = _PUBLIC_ID.fullmatch(row.id)
  if not match:
    return "expected an ID tile:<source>:<stem> or layout:<source>:<search>:<stem>"
  kind = match[2] or match[3]
  indices = row.indices or ()
  length = len(indices)
  if len(set(indices)) != length:
    return "repeats an index, so the number of configurations is not clear"
  whole = set(indices) == set(range(length))
  expected_length: int | None = length
  count: int | None
  if kind == "tile":
    if length > competition.TILE_K:
      return f"has {length} indices; expected at most {competition.TILE_K} for a tile"
    count = length if whole and length < competition.TILE_K else None
  elif length > competition.TILE_K:
    if not whole:
      return f"is not a permutation of 0 to {length - 1}"
    count = length
  else:
    expected_length = count = None
  expected[row.id] = ExpectedRow(row.id, match[1], kind, expected_length, count)
  return ""
