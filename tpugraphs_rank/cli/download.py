"""Brings the public data under the data root: resumes, verifies, unpacks.

    python -m tpugraphs_rank.cli.download                                    # all five collections
    python -m tpugraphs_rank.cli.download --collections tile:xla,layout:xla:random --splits valid,test
    python -m tpugraphs_rank.cli.download --collections= --extras --data_root data
    python -m tpugraphs_rank.cli.download --list

Run the same command again after an interruption: it goes on. Run it again later: it verifies
every byte of what is there. Archives that were put into `downloads/` under the data root by hand
are taken, too. Nothing that is there is ever replaced.
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
  """What the flags ask for.

  Raises:
    UnknownNameError: no such collection or split.
    ConfigError: a collection has no public archives, the address is none, or nothing is asked for.
  """
  remotes = archives.collection_archives(collections, splits, raw, base_url)
  if extras:
    remotes += archives.extra_files(base_url)
  if not remotes:
    raise errors.ConfigError(
        "nothing to download: name --collections and --splits, or give --extras")
  return remotes


def listing(remotes: Sequence[archives.Remote], data_root: files.PathLike, parallel: int
            ) -> list[str]:
  """A line on each remote: name, size, place, and what of it is here; then one on them all."""
  sizes, failures = download_lib.remote_sizes(remotes, parallel)
  header, rows = ("file", "size", "place", "here"), []
  for remote, size in zip(remotes, sizes):
    state = download_records.look(remote, data_root)
    rows.append((remote.name, _amount(size), str(remote.place), _here(state, size)))
  lines = tables.text(header, rows, tables.LEFT * len(header), rule=False).splitlines()
  known = [size for size in sizes if size is not None]
  total = f"{_files(len(remotes))}, {_amount(sum(known))}" if known else _files(len(remotes))
  lines.append(f"{total}; data root {data_root}")
  if failures:
    lines.append(f"{len(failures)} of unknown size: {failures[0]}")
  return lines


def _here(state: download_records.State, size: int | None) -> str:
  if state.status == "complete":
    return f"complete, {_files(state.files)}" if state.remote.is_archive else "complete"
  if state.status == "incomplete":
    return f"incomplete, {_files(state.files)}"
  if state.status == "partial" and size:
    return f"partial, {100 * state.arrived / size:.0f} %"
  return state.status


def _files(number: int) -> str:
  return f"{number} file{'' if number == 1 else 's'}"


def _amount(size: int | None) -> str:
  return "?" if size is None else tqdm.tqdm.format_sizeof(size, "B")


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_list("collections", list(archives.downloadable_collections()),
                    "Public collections; --collections= for none.")
  flags.DEFINE_list("splits", list(registry.SPLITS), "Their splits.")
  flags.DEFINE_bool("raw", False, "The raw protobufs (pb/) instead of the graphs (npz/).")
  flags.DEFINE_bool("extras", False, "Also two small raw measurements (tpu_raw/) and the "
                    "evaluation indices of the layout collections (eval_indices/).")
  flags.DEFINE_string("data_root", None, "Where to; default: the environment variable "
                      f"{registry.DATA_ROOT_VARIABLE}, then your platform's folder for user data.")
  flags.DEFINE_bool("list", False, "Say what would be brought, and what is here; bring nothing.")
  flags.DEFINE_bool("keep_archives", False, "Keep archives in downloads/ once they are unpacked.")
  flags.DEFINE_integer("parallel", 3, "Files at a time.", lower_bound=1)
  flags.DEFINE_string("base_url", None, "Address of a mirror that holds the archives, and the "
                      "extras under their paths in the publisher's repository.")


def main(argv: list[str]) -> None:
  """Runs the command."""
  values: Any = flags.FLAGS
  root = pathlib.Path(registry.resolve_data_root(values.data_root))
  remotes = chosen(values.collections, values.splits, values.raw, values.extras, values.base_url)
  if values.list:
    print("\n".join(listing(remotes, root, values.parallel)))
    return
  for brought in download_lib.download(remotes, root, values.parallel, values.keep_archives):
    done = "verified" if brought.was_there else "brought"
    what = f"{_files(brought.files)} in " if brought.remote.is_archive else ""
    print(f"{done} {brought.remote.name}: {what}{root / brought.remote.place}")
