"""The rows that a submission must have: from the data, a sample, or what is public about both."""

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
from tpugraphs_rank.submission import public_graphs
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
    length: number of indices in the row; None: unknown.
    num_configs: number of configurations of the graph, whose indices are 0 to num_configs - 1;
      None: unknown.
    path: the graph's file; None if it was not read.
  """

  id: str
  collection: str
  kind: str
  length: int | None
  num_configs: int | None
  path: pathlib.Path | None = None

  def with_configs(self, count: int, path: pathlib.Path | None = None) -> "ExpectedRow":
    """The row of a graph with `count` configurations."""
    return dataclasses.replace(self, length=rows_lib.row_length(self.kind, count),
                               num_configs=count, path=path)


@dataclasses.dataclass(frozen=True)
class Expectation:
  """The rows of a submission, in their order.

  Attributes:
    rows: in the order in which a file is written. Files with any other order are valid too.
    source: where the IDs come from, for messages.
    small: for a collection, how many of its tile graphs have 1, 2, 3 or 4 configurations, where
      that is known only for the collection as a whole.
  """

  rows: tuple[ExpectedRow, ...]
  source: str
  small: Mapping[str, Mapping[int, int]] = dataclasses.field(default_factory=dict)

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
    return dataclasses.replace(
        self, rows=tuple(row for row in self.rows if row.collection in wanted))

  def count(self, ids: Iterable[str]) -> dict[str, int]:
    """The number of IDs of each collection; unknown IDs are ignored."""
    counts = dict.fromkeys(self.collections, 0)
    for name in ids:
      if name in self.places:
        counts[self.rows[self.places[name]].collection] += 1
    return counts

  def knowledge(self) -> str:
    """Where the numbers of configurations come from, as one line."""
    data = sum(row.path is not None for row in self.rows)
    public = sum(row.path is None and row.num_configs is not None for row in self.rows)
    parts = [f"{count} {text}" for count, text in (
        (data, "from the data"), (public, "from the published facts"),
        (len(self.rows) - data - public, "unknown")) if count]
    return f"numbers of configurations of {len(self.rows)} graphs: {', '.join(parts)}"


def from_data(names: Sequence[str | registry.Collection] = COLLECTIONS, split: str = "test",
              data_root: files.PathLike | None = None, partial: bool = False) -> Expectation:
  """The rows of all graphs of a split, from the headers of their files.

  Within a collection, the rows are sorted by file stem (by code point).

  Args:
    names: the collections, in the order of the file.
    split: the split that is ranked.
    data_root: as for `load_collection`.
    partial: whether to take the graphs that exist if the split is incomplete.

  Raises:
    MissingDataError, UnknownNameError, DataError: as for `load_collection`; or a file is damaged,
      of another kind or without configurations.
  """
  expected: list[ExpectedRow] = []
  for name in names:
    members = collections.load_collection(name, split, data_root, partial=partial)
    for path in sorted(members.paths, key=lambda path: path.stem):
      expected.append(_read_row(members.collection, path))
  return _joined(expected, names, f"the {split} graphs")


def expect(names: Sequence[str | registry.Collection] = COLLECTIONS, split: str = "test",
           data_root: files.PathLike | None = None, partial: bool = False) -> Expectation:
  """The rows of all graphs of a split, even if files of a public test split are missing.

  Then its IDs, and the numbers of configurations as far as possible, are those that are public.

  Args:
    names: the collections, in the order of the file.
    split: the split that is ranked.
    data_root: as for `load_collection`.
    partial: whether to expect only the graphs that exist if the split is incomplete.

  Raises:
    TpuGraphsRankError: as for `from_data`; in particular if the folder `data_root` was given and
      has no graph of a collection.
  """
  expected: list[ExpectedRow] = []
  small = {}
  for collection in map(registry.get_collection, names):
    paths = collections.find_files(collection, split, data_root)[0]
    known = public_graphs.ids(collection, split)
    stems = {f"{collection.name}:{path.stem}" for path in paths}
    if (not known or partial or len(paths) == collection.splits[split]
        or not stems <= set(known) or (data_root and not paths)):
      expected += from_data([collection], split, data_root, partial).rows
    else:
      rows = [_unknown_row(name) for name in known]
      expected += _filled(rows, [collection], split, data_root)
      small.update(_small([collection.name]))
  result = _joined(expected, names, f"the {split} graphs")
  return dataclasses.replace(result, small=small)


def from_sample(path: files.PathLike,
                names: Sequence[str | registry.Collection] = COLLECTIONS, split: str = "test",
                data_root: files.PathLike | None = None) -> Expectation:
  """The rows of a sample submission, in its order.

  A sample determines the IDs and nothing else: the competition's own lists `0;1;2;3;4` for kernels
  with two configurations. The numbers of configurations are those of the data as far as it exists,
  and otherwise those that are public.

  Args:
    path: the sample. Its indices may be wrong, and it may have any line ends.
    names: the collections whose data is read.
    split: the split that the sample describes.
    data_root: as for `load_collection`.

  Raises:
    MissingDataError: there is no such file, or the folder `data_root` was given and has no graph
      of the sample's collections.
    DataError: it is not a submission; the message names line and ID.
  """
  remedy = "download it again, or give --data_root instead"
  parsed = reading.parse(reading.read_bytes(path))
  # Faults that name a row concern its indices, which are not used.
  fault = next((fault for fault in parsed.faults if not fault.id), None)
  if fault is not None:
    raise errors.DataError(f"sample {path}: {fault}; {remedy}")
  expected: dict[str, ExpectedRow] = {}
  for row in parsed.rows:
    problem = "appears twice" if row.id in expected else ""
    if not _PUBLIC_ID.fullmatch(row.id):
      problem = "expected an ID tile:<source>:<stem> or layout:<source>:<search>:<stem>"
    if problem:
      raise errors.DataError(f"sample {path}: line {row.line}: {row.id}: {problem}; {remedy}")
    expected[row.id] = _unknown_row(row.id)
  if not expected:
    raise errors.DataError(f"sample {path} has no rows; {remedy}")
  present = {row.collection for row in expected.values()}
  chosen = [collection for collection in map(registry.get_collection, names)
            if collection.name in present and split in collection.splits]
  if data_root and not any(collections.find_files(collection, split, data_root)[0]
                           for collection in chosen):
    raise errors.MissingDataError(
        f"{data_root} has no {split} graph of {', '.join(sorted(present))}; check that "
        "--data_root is the folder that holds npz/, or leave it out to check against the sample "
        "alone")
  rows = _filled(list(expected.values()), chosen, split, data_root)
  if data_root and not any(row.path for row in rows):
    raise errors.DataError(
        f"no {split} graph in {data_root} is in the sample {path}; check that both are of the same "
        "version, and --split")
  whole = [name for name in present if {row.id for row in rows} >= set(
      _public_ids(name))] if split == public_graphs.SPLIT else []
  return Expectation(tuple(rows), f"sample {path}", _small(whole))


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


def _read_row(collection: registry.Collection, path: pathlib.Path) -> ExpectedRow:
  name = rows_lib.graph_id(collection.name, path.stem)
  return ExpectedRow(name, collection.name, collection.kind, None, None).with_configs(
      num_configs(path, collection.kind), path)


def _unknown_row(name: str) -> ExpectedRow:
  """The row of an ID that matches `_PUBLIC_ID`; nothing is known about its graph."""
  match = _PUBLIC_ID.fullmatch(name)
  assert match is not None
  return ExpectedRow(name, match[1], match[2] or match[3], None, None)


def _filled(rows: Sequence[ExpectedRow], chosen: Sequence[registry.Collection], split: str,
            data_root: files.PathLike | None) -> list[ExpectedRow]:
  """The rows with the numbers of configurations in the existing files, or else the public ones."""
  paths = {rows_lib.graph_id(collection.name, path.stem): path for collection in chosen
           for path in collections.find_files(collection, split, data_root)[0]}
  public = public_graphs.configurations() if split == public_graphs.SPLIT else {}
  filled = []
  for row in rows:
    count = public.get(row.id)
    if row.id in paths:
      row = row.with_configs(num_configs(paths[row.id], row.kind), paths[row.id])
    elif count is not None:
      row = row.with_configs(count)
    filled.append(row)
  return filled


def _public_ids(name: str) -> list[str]:
  return public_graphs.ids(registry.get_collection(name), public_graphs.SPLIT) if (
      name in COLLECTIONS) else []


def _small(names: Iterable[str]) -> dict[str, Mapping[int, int]]:
  return {name: public_graphs.SMALL_KERNELS[name] for name in names
          if name in public_graphs.SMALL_KERNELS}


def _joined(rows: Sequence[ExpectedRow], names: Sequence[str | registry.Collection], what: str
            ) -> Expectation:
  of = f"{len(names)} collections" if len(names) > 1 else "".join(
      {row.collection for row in rows})
  result = Expectation(tuple(rows), f"{what} of {of}")
  if len(result.places) != len(rows):
    raise errors.DataError(
        "two graphs have the same ID; name each collection once, and give its files different "
        "stems")
  return result
