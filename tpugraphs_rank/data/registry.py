"""The table of collections: where each is stored, what it holds, how it is split and evaluated."""

from collections.abc import Callable, Mapping
import dataclasses
import os
import pathlib
import shlex
from typing import Any

import platformdirs

from tpugraphs_rank import commands
from tpugraphs_rank import config
from tpugraphs_rank import errors
from tpugraphs_rank import escaping
from tpugraphs_rank import files as files_lib
from tpugraphs_rank.costs import targets
from tpugraphs_rank.data import graphs
from tpugraphs_rank.data import patterns

DATA_ROOT_VARIABLE = "TPUGRAPHS_RANK_DATA"
SPLITS = ("train", "valid", "test")
HLO_STAGES = ("before_optimization", "after_optimization")
# The only split of a collection that is not divided by program.
WHOLE = "all"
# Of collections, files and families, in characters.
LONGEST_NAME = 255
_LONGEST_ADDRESS = 2048

_BUNDLED = pathlib.Path(__file__).resolve().parent.parent / "bundled"
_PUBLIC_ADDRESS = "http://download.tensorflow.org/data/tpu_graphs/v0/"


@dataclasses.dataclass(frozen=True)
class Collection:
  """A set of programs and its description. A JSON descriptor has the same keys except `folder`.

  Attributes:
    name: `tile:<source>` or `layout:<source>:<search>`.
    kind: "tile" or "layout".
    target: the hardware that was measured, for instance "tpu_v3".
    splits: number of graphs of each split, or None if unknown. A collection that is not divided by
      program has the single split "all".
    folder: base folder of `path`, for bundled collections and your own; None: the data root.
    path: folder of the graphs, relative to `folder` or the data root; `<path>/<split>/*.npz`.
    files: the files of each split, relative to `path`, instead of `<path>/<split>/*.npz`.
    hlo_stage: "before_optimization" or "after_optimization".
    family_regex: matches a file's stem; its group `family` is the family of the graph. See
      `data.patterns` for its syntax.
    groups: the families of each group of sibling families. Groups with no family in training are
      reported separately.
    has_runtimes: whether the runtimes of each split were measured.
    padding: 0 or -1, the padding of feature lists.
    metric: the competition's metric.
    addresses: address of the archive of each split.
    description: one sentence.
    citation: the paper or report that introduced the collection.
    target_facts: sizes of caches and registers of the target; None: those of its kind. See `facts`.
  """

  name: str
  kind: str
  target: str
  splits: Mapping[str, int | None]
  folder: pathlib.Path | None = None
  path: str = "."
  files: Mapping[str, tuple[str, ...]] | None = None
  hlo_stage: str = "after_optimization"
  family_regex: str = r"^(?P<family>.*)$"
  groups: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
  has_runtimes: Mapping[str, bool] = dataclasses.field(default_factory=dict)
  padding: int = 0
  metric: str = "kendall_tau"
  addresses: Mapping[str, str] = dataclasses.field(default_factory=dict)
  description: str = ""
  citation: str = ""
  target_facts: targets.TargetFacts | None = None

  def __repr__(self) -> str:
    splits = ", ".join(f"{split} {'?' if count is None else count}"
                       for split, count in self.splits.items())
    return f"<Collection {self.name}: {splits}>"

  @property
  def slowdown_ks(self) -> tuple[int, ...]:
    """The K of the top-K slowdowns that are reported for this kind of collection."""
    return (1, 5, 10) if self.kind == "tile" else (1, 10, 100)

  @property
  def facts(self) -> targets.TargetFacts:
    """Sizes of caches and registers of the target, which the analytic costs depend on."""
    return self.target_facts or targets.default(self.target)

  @property
  def dimensions(self) -> Mapping[str, int]:
    """Number of columns of each feature array."""
    configs = ({"config_feat": graphs.NUM_TILE_FEATURES} if self.kind == "tile"
               else {"node_config_feat": graphs.NUM_LAYOUT_FEATURES})
    return {"node_feat": graphs.NUM_NODE_FEATURES, **configs}

  def family(self, stem: str) -> str:
    """The family of the graph in `<stem>.npz`; the stem itself where the pattern does not match."""
    family = patterns.compiled(self.family_regex, "family").search(stem)
    return stem if family is None else family

  def group(self, stem: str) -> str:
    """The group of sibling families that the graph belongs to, or its family if it has no group."""
    family = self.family(stem)
    return next((group for group, families in self.groups.items() if family in families), family)

  def location(self, data_root: files_lib.PathLike | None = None) -> pathlib.Path:
    """The folder of the graphs."""
    base = self.folder if self.folder is not None else resolve_data_root(data_root)
    return base / self.path

  def check_split(self, split: str) -> None:
    """Raises UnknownNameError, which lists the valid names, if there is no such split."""
    if split not in self.splits:
      raise errors.UnknownNameError(
          f"collection {self.name} has no split {split!r}"
          f"{config.nearest(str(split), self.splits)}; "
          f"it has: {', '.join(self.splits)}")

  @property
  def is_public(self) -> bool:
    """Whether the `download` command can download it to the data root."""
    return self.folder is None and all(split in self.addresses for split in self.splits)

  def fetch_hint(self, split: str, data_root: files_lib.PathLike | None = None) -> str:
    """How to get the missing data of a split, or of several splits joined by commas."""
    if self.is_public:
      # Without the flag, the command uses the same root as the caller.
      words = ["download", "--collections", self.name, "--splits", split]
      if data_root:
        words += ["--data_root", shlex.quote(str(data_root))]
      return (f"download it with {commands.command(*words)}, or point --data_root or "
              f"{DATA_ROOT_VARIABLE} to the folder that holds npz/")
    addresses = [self.addresses[name] for name in split.split(",") if name in self.addresses]
    archive = f"; its archive is {', '.join(addresses)}" if addresses else ""
    return (f"the descriptor of collection {self.name} is in {self.folder or 'its own file'}; "
            f"check the path and files that it lists{archive}")


def resolve_data_root(data_root: files_lib.PathLike | None = None) -> pathlib.Path:
  """The argument, or else the variable TPUGRAPHS_RANK_DATA, or else the user's data folder."""
  chosen = data_root or os.environ.get(DATA_ROOT_VARIABLE)
  if chosen:
    return files_lib.expanded(chosen)
  return pathlib.Path(platformdirs.user_data_dir("tpugraphs_rank", appauthor=False))


def _public(name: str, counts: tuple[int, int, int], description: str) -> Collection:
  kind, *rest = name.split(":")
  return Collection(
      name=name, kind=kind, target="tpu_v3", splits=dict(zip(SPLITS, counts)),
      path="/".join(["npz", kind, *rest]),
      # Public tile kernels are named <program>_<number>.
      family_regex=r"^(?P<family>.+)_[^_]+$" if kind == "tile" else r"^(?P<family>.*)$",
      has_runtimes={"train": True, "valid": True, "test": False},
      metric="slowdown" if kind == "tile" else "kendall_tau",
      addresses={split: f"{_PUBLIC_ADDRESS}npz_{'_'.join([kind, *rest])}_{split}.tar"
                 for split in SPLITS},
      description=description, citation="arXiv 2308.13490")


_COLLECTIONS: dict[str, Collection] = {
    collection.name: collection for collection in (
        _public("tile:xla", (5709, 676, 844), "Tile sizes of fused kernels, 12,870,077 samples."),
        _public("layout:xla:default", (61, 7, 8),
                "Layouts of vision and other models, search from the default, 771,496 samples."),
        _public("layout:xla:random", (69, 7, 8),
                "Layouts of vision and other models, random search, 908,561 samples."),
        _public("layout:nlp:default", (198, 20, 17),
                "Layouts of transformers, search from the default, 13,285,415 samples."),
        _public("layout:nlp:random", (207, 20, 17),
                "Layouts of transformers, random search, 16,125,781 samples."),
    )
}
# ":v1" are the graphs that were measured first, on which earlier results rest.
_BUNDLED_DESCRIPTORS = {
    f"{name}:{version}" if version else name:
        _BUNDLED / name.replace(":", "_") / f"{version or 'collection'}.json"
    for name, versions in (("layout:xla_cpu:mixed", ("v1", "v2")), ("tile:xla_cpu", ("v1",)))
    for version in ("", *versions)}


def collection_names() -> tuple[str, ...]:
  """Names of all registered collections."""
  return tuple(sorted({*_COLLECTIONS, *_BUNDLED_DESCRIPTORS}))


def get_collection(name: str | os.PathLike[str] | Collection) -> Collection:
  """The collection with this name, or the one that the JSON descriptor at this path describes.

  The path of a folder means the file collection.json in it.

  Raises:
    UnknownNameError: no such name is registered; the message lists the registered names.
    DataError: a descriptor violates the format.
  """
  if isinstance(name, Collection):
    return name
  name = os.fspath(name)
  if name in _COLLECTIONS:
    return _COLLECTIONS[name]
  if name in _BUNDLED_DESCRIPTORS:
    return read_descriptor(_BUNDLED_DESCRIPTORS[name])
  problem = files_lib.why_no_path(name)
  if problem:
    raise errors.UnknownNameError(f"no collection {escaping.quoted(name)}: it {problem}")
  in_folder = os.path.join(name, "collection.json")
  if name and os.path.isfile(in_folder):
    return read_descriptor(in_folder)
  if name.endswith(".json") or os.path.isfile(name):
    return read_descriptor(name)
  raise errors.UnknownNameError(
      f"no collection {name!r}{config.nearest(name, collection_names())}; registered: "
      f"{', '.join(collection_names())}; or pass the path of a JSON descriptor "
      f"({commands.command('make-collection')} writes one for a folder of .npz files)")


def register_collection(descriptor: files_lib.PathLike | Collection) -> Collection:
  """Registers a collection by its name, for this process.

  Args:
    descriptor: a `Collection`, or the path of a JSON descriptor with its keys.

  Returns:
    The collection.

  Raises:
    DataError: the descriptor violates the format, or another collection has the same name.
  """
  collection = descriptor if isinstance(descriptor, Collection) else read_descriptor(descriptor)
  if collection.name in _BUNDLED_DESCRIPTORS or _COLLECTIONS.get(
      collection.name, collection) != collection:
    raise errors.DataError(
        f"another collection is registered as {collection.name}; choose another name")
  _COLLECTIONS[collection.name] = collection
  return collection


def read_descriptor(path: files_lib.PathLike) -> Collection:
  """Reads a JSON descriptor; its `path` is relative to the descriptor's own folder.

  Raises:
    MissingDataError: there is no such file.
    DataError: a key is unknown, missing or wrong; the message names file and key.
  """
  path = pathlib.Path(path)
  if not path.exists() and not path.is_absolute():
    raise errors.MissingDataError(
        f"no file {path} in {pathlib.Path.cwd()}; a run stores the path of its collection as it "
        "was written, so work in the folder where the run was trained, or check the path")
  values = files_lib.read_json(path)
  try:
    return collection_from_dict(values, path.resolve().parent)
  except errors.DataError as error:
    raise type(error)(f"{path}: {error}") from None


def is_name(text: str) -> bool:
  """Whether a descriptor may hold this name, of a file for instance."""
  return len(text) <= LONGEST_NAME and text.isprintable()


def collection_from_dict(values: Any, folder: pathlib.Path) -> Collection:
  """Builds a collection from the values of a descriptor in `folder`.

  Raises:
    DataError: a key is unknown, missing or wrong; the message names the key.
  """
  if not isinstance(values, dict):
    raise errors.DataError(f"holds {type(values).__name__}; expected an object")
  known = {field.name for field in dataclasses.fields(Collection)} - {"folder"}
  for key in values:
    if key not in known:
      raise errors.DataError(
          f"unknown key {escaping.value(key)}{config.nearest(key, known)}; known: "
          f"{', '.join(sorted(known))}")
  for key in ("name", "kind", "target", "splits"):
    if key not in values:
      raise errors.DataError(f"key {key!r} is missing")
  # The checks of other keys need the names of the splits.
  splits = values["splits"] if isinstance(values["splits"], dict) else {}

  def text(value: Any) -> bool:
    return isinstance(value, str)

  def name(value: Any) -> bool:
    return text(value) and is_name(value)

  def address(value: Any) -> bool:
    return text(value) and len(value) <= _LONGEST_ADDRESS and value.isprintable()

  def place(value: Any) -> bool:
    return text(value) and value.isprintable() and not files_lib.why_no_path(value)

  def count(value: Any) -> bool:
    return value is None or (type(value) is int and value >= 0)

  def names(value: Any) -> bool:
    return isinstance(value, list) and all(map(name, value))

  def table(value: Any, good: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and all(map(good, value.values()))

  def by_split(key: str, good: Callable[[Any], bool]) -> bool:
    return table(values.get(key, {}), good) and set(values.get(key, {})) <= set(splits)

  checks = (
      ("kind", values["kind"] in ("tile", "layout"), "'tile' or 'layout'"),
      ("name", name(values["name"]) and values["name"].startswith(f"{values['kind']}:"),
       f"{escaping.shown(str(values['kind']))}:<source> of at most {LONGEST_NAME} characters"),
      ("splits", table(values["splits"], count) and splits and
       (set(splits) <= set(SPLITS) or set(splits) == {WHOLE}),
       "an object from train, valid, test (or all alone) to a number of graphs or null"),
      ("files", "files" not in values or
       (by_split("files", names) and set(values["files"]) == set(splits)),
       "an object from splits to lists of file names, with every split"),
      ("groups", table(values.get("groups", {}), names),
       "an object from groups to lists of families"),
      ("has_runtimes", by_split("has_runtimes", lambda value: isinstance(value, bool)),
       "an object from splits to true or false"),
      ("addresses", by_split("addresses", address),
       f"an object from splits to addresses of at most {_LONGEST_ADDRESS:,} printed characters"),
      ("path", place(values.get("path", "")),
       "the path of a folder: printed characters, names of at most 255 bytes"),
      ("padding", type(values.get("padding", 0)) is int and values.get("padding", 0) in (0, -1),
       "0 or -1"),
      ("hlo_stage", values.get("hlo_stage", HLO_STAGES[0]) in HLO_STAGES,
       " or ".join(map(repr, HLO_STAGES))),
      *((key, name(values.get(key, "")), f"a string of at most {LONGEST_NAME} printed characters")
        for key in ("target", "metric")),
      *((key, text(values.get(key, "")), "a string")
        for key in ("description", "citation")),
  )
  for key, good, expected in checks:
    if not good:
      raise errors.DataError(f"{key} is {escaping.value(values.get(key))}; expected {expected}")
  try:
    patterns.compiled(values.get("family_regex", "(?P<family>)"), "family")
  except TypeError:
    raise errors.DataError(
        "family_regex is not a regular expression: expected a string") from None
  except errors.DataError as error:
    raise type(error)(f"family_regex {error}") from None
  values = dict(values)
  for key in ("files", "groups"):
    if key in values:
      values[key] = {name: tuple(entries) for name, entries in values[key].items()}
  if "target_facts" in values:
    values["target_facts"] = targets.from_dict(values["target_facts"], values["target"])
  return Collection(folder=folder, **values)
