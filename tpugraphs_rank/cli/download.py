"""Download the public data, verify it and unpack it.

  tpugraphs-rank download                                          # all five collections
  tpugraphs-rank download --collections tile:xla,layout:xla:random --splits valid,test
  tpugraphs-rank download --collections= --extras --data_root data
  tpugraphs-rank download --list

After an interruption, run the same command again: it resumes. Run it again later, and it verifies
every byte on disk. It also uses archives that you put into `downloads/` under the data root. It
never replaces an existing file.
"""

from collections.abc import Sequence
import pathlib
from typing import Any

from absl import flags
import tqdm

from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank import tables
from tpugraphs_rank.data import archives
from tpugraphs_rank.data import download as download_lib
from tpugraphs_rank.data import download_records
from tpugraphs_rank.data import registry


def chosen(collections: Sequence[str], splits: Sequence[str], raw: bool = False,
           extras: bool = False, base_url: str | None = None) -> list[archives.Remote]:
  """The files that the flags select.

  Raises:
    UnknownNameError: no such collection or split.
    ConfigError: a collection has no public archives, the address is invalid, or nothing is
      selected.
  """
  remotes = archives.collection_archives(collections, splits, raw, base_url)
  if extras:
    remotes += archives.extra_files(base_url)
  if not remotes:
    raise errors.ConfigError(
        "nothing to download: give --collections and --splits, or --extras")
  return remotes


def listing(remotes: Sequence[archives.Remote], data_root: files.PathLike, parallel: int
            ) -> list[str]:
  """A table of the remote files (name, size, place, local state), then a line with the total."""
  sizes, failures = download_lib.remote_sizes(remotes, parallel)
  header, rows = ("file", "size", "place", "local"), []
  for remote, size in zip(remotes, sizes):
    state = download_records.look(remote, data_root)
    rows.append((remote.name, _amount(size), str(remote.place), _local(state, size)))
  lines = tables.text(header, rows, tables.LEFT * len(header), rule=False).splitlines()
  known = [size for size in sizes if size is not None]
  total = f"{_files(len(remotes))}, {_amount(sum(known))}" if known else _files(len(remotes))
  lines.append(f"{total}; data root {data_root}")
  if failures:
    lines.append(f"{sizes.count(None)} of unknown size: {failures[0]}")
  return lines


def _local(state: download_records.State, size: int | None) -> str:
  if state.status == "complete":
    return f"complete, {_files(state.files)}" if state.remote.is_archive else "complete"
  if state.status == "incomplete":
    return f"incomplete, {_files(state.files)}"
  if state.status == "partial" and size:
    return f"partial, {100 * state.received / size:.0f} %"
  return state.status


def _files(number: int) -> str:
  return f"{number} file{'' if number == 1 else 's'}"


def _amount(size: int | None) -> str:
  return "?" if size is None else tqdm.tqdm.format_sizeof(size, "B")


def kept() -> str:
  """What an interruption leaves."""
  values: Any = flags.FLAGS
  root = pathlib.Path(registry.resolve_data_root(values.data_root))
  states = [download_records.look(remote, root) for remote in chosen(
      values.collections, values.splits, values.raw, values.extras, values.base_url)]
  complete = sum(state.status == "complete" for state in states)
  received = sum(state.received for state in states if state.status != "complete")
  others = f", and {_amount(received)} of others received" if received else ""
  return f"{complete} of {len(states)} files complete{others}, in {root}"


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_list("collections", list(archives.downloadable_collections()),
                    "Public collections. An empty list selects none.")
  flags.DEFINE_list("splits", list(registry.SPLITS), "Splits of the collections.")
  flags.DEFINE_bool("raw", False, "Download the raw protobufs (pb/) instead of the graphs (npz/).")
  flags.DEFINE_bool("extras", False, "Also download two small raw measurements (tpu_raw/) and "
                    "the evaluation indices of the layout collections (eval_indices/).")
  flags.DEFINE_string("data_root", None, "Target folder. By default the environment variable "
                      f"{registry.DATA_ROOT_VARIABLE}, then the data folder of this platform.")
  flags.DEFINE_bool("list", False, "List the files and their local state; download nothing.")
  flags.DEFINE_bool("keep_archives", False, "Keep the archives in downloads/ after unpacking.")
  flags.DEFINE_integer("parallel", 3, "Files to download at the same time.", lower_bound=1)
  flags.DEFINE_string("base_url", None, "Address of a mirror with the archives, and with the "
                      "extras under their paths in the publisher's repository.")


def main(argv: list[str]) -> None:
  """Runs the command."""
  values: Any = flags.FLAGS
  root = pathlib.Path(registry.resolve_data_root(values.data_root))
  remotes = chosen(values.collections, values.splits, values.raw, values.extras, values.base_url)
  if values.list:
    print("\n".join(listing(remotes, root, values.parallel)))
    return
  for result in download_lib.download(remotes, root, values.parallel, values.keep_archives):
    done = "verified" if result.was_complete else "downloaded"
    count = f"{_files(result.files)} in " if result.remote.is_archive else ""
    print(f"{done} {result.remote.name}: {count}{root / result.remote.place}")
