"""The available downloads: archives of the public collections, and small public files."""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib

from tpugraphs_rank import errors
from tpugraphs_rank.data import registry

# Prefixes of the public archives' names, which are also the folders that they unpack to.
_GRAPHS, _RAW = "npz", "pb"
_REPOSITORY = ("https://raw.githubusercontent.com/google-research-datasets/tpu_graphs/"
               "ddd187c583cd3b0c72fb5adada905ad7b7532794/")
_RAW_FILES = "tpu_graphs/process_data/tensorflow_ops/testdata"
_EVAL_INDICES = "tpu_graphs/baselines/layout/eval_indices"
# Each public file of the repository: its folder there, its folder under the data root, its SHA-256.
_EXTRAS: Mapping[str, tuple[str, str, str]] = {
    "module_tuning_data_layout.pb": (
        _RAW_FILES, "tpu_raw", "cdfd4b169a2078fcc5333c11d8d9868ca5f18e59877d6b92dc5683589785e9b6"),
    "op_tuning_data.pb": (
        _RAW_FILES, "tpu_raw", "a412941b90c036aa51a73e9e3c7872624a66d972a650b1f3507651226a4d7088"),
    "nlp_default.json": (
        _EVAL_INDICES, "eval_indices",
        "f8aa14f161cbb5f040c410d80e4cc5ed36921c54a8fc26fd581fc8a30b8566e2"),
    "nlp_random.json": (
        _EVAL_INDICES, "eval_indices",
        "ddff5ace8cf6137ba9a1f7c02cbaa4bb22dbd57a56b740adeab37a9a84b39b1c"),
    "xla_default.json": (
        _EVAL_INDICES, "eval_indices",
        "3ff4f7c4ec498a3e788852742b960d1d332d9025c76d010b613bed8705ed3687"),
    "xla_random.json": (
        _EVAL_INDICES, "eval_indices",
        "418f8a2fe24e53f17a3a55b33019391a1dc549fc57c999dfd5015f3b2c962b81"),
}


@dataclasses.dataclass(frozen=True)
class Remote:
  """A file on a server, and its place under the data root.

  Attributes:
    name: the file's name, unique among all remotes. Its record and its partial file are named after
      it.
    address: http:// or https://.
    place: the folder that an archive's graphs unpack to, or otherwise the file itself; relative to
      the data root.
    is_archive: whether it is a tar archive to unpack under the data root.
    graphs: number of graphs that an archive unpacks to `place`; None if unknown.
    sha256: the SHA-256 that the file must have, in hexadecimal; None if the publisher lists none.
    is_raw: whether an archive holds raw protobufs. Their number is probably the number of graphs,
      but the publisher does not state it.
  """

  name: str
  address: str
  place: pathlib.PurePosixPath
  is_archive: bool = True
  graphs: int | None = None
  sha256: str | None = None
  is_raw: bool = False


def downloadable_collections() -> tuple[str, ...]:
  """Names of the registered collections whose archives are public."""
  return tuple(name for name in registry.collection_names()
               if registry.get_collection(name).is_public)


def collection_archives(
    collections: Sequence[str], splits: Sequence[str] = registry.SPLITS, raw: bool = False,
    base_url: str | None = None) -> list[Remote]:
  """The archives of some splits of some public collections.

  Args:
    collections: names of public collections.
    splits: any of "train", "valid" and "test".
    raw: whether to get the raw protobufs (`pb/`) instead of the processed graphs (`npz/`).
    base_url: address of a mirror that holds the archives; None: the publisher's.

  Returns:
    One archive per collection and split, in the order of the arguments, without duplicates.

  Raises:
    UnknownNameError: no such collection or split.
    ConfigError: a collection has no public archives, or the address is invalid.
  """
  base = _base(base_url)
  remotes = []
  for name in dict.fromkeys(collections):
    collection = registry.get_collection(name)
    if not collection.is_public:
      raise errors.ConfigError(
          f"collection {name} has no public archives; collections with public archives: "
          f"{', '.join(downloadable_collections())}")
    for split in dict.fromkeys(splits):
      collection.check_split(split)
      address, place = collection.addresses[split], f"{collection.path}/{split}"
      folder, _, file = address.rpartition("/")
      if raw:
        file = _RAW + file.removeprefix(_GRAPHS)
        place = _RAW + place.removeprefix(_GRAPHS)
      remotes.append(Remote(
          name=file, address=f"{base or folder + '/'}{file}", place=pathlib.PurePosixPath(place),
          graphs=collection.splits[split], is_raw=raw))
  return remotes


def extra_files(base_url: str | None = None) -> list[Remote]:
  """The two public raw measurements and the evaluation indices of the layout collections.

  They come from one commit of the publisher's repository, and have known checksums.

  Args:
    base_url: address of a mirror that holds them under their paths in that repository; None: the
      publisher's.

  Raises:
    ConfigError: the address is invalid.
  """
  base = _base(base_url) or _REPOSITORY
  return [
      Remote(name=name, address=f"{base}{folder}/{name}",
             place=pathlib.PurePosixPath(place, name), is_archive=False, sha256=sha256)
      for name, (folder, place, sha256) in _EXTRAS.items()]


def _base(base_url: str | None) -> str | None:
  if base_url is None:
    return None
  if not base_url.startswith(("http://", "https://")):
    raise errors.ConfigError(
        f"base_url {base_url!r} is not an address; expected http://... or https://...")
  return base_url.rstrip("/") + "/"
