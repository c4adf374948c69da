"""Downloads: verifying, unpacking, records, interruption at any step, parallel downloads."""

import collections
import dataclasses
import hashlib
import io
import logging
import pathlib
import shutil
import socket
import subprocess
import sys
import tarfile
import threading

import numpy as np
import pytest

from tests.data import killed_download
from tests.helpers import file_server
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.data import archives
from tpugraphs_rank.data import download
from tpugraphs_rank.data import download_records
from tpugraphs_rank.data import registry
from tpugraphs_rank.data import transfer

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAME = "npz_layout_xla_random_valid.tar"
FOLDER = "npz/layout/xla/random/valid"
Fault = file_server.Fault


def archive(contents):
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode="w") as tar:
    for name, content in contents.items():
      member = tarfile.TarInfo(name)
      member.size = len(content)
      tar.addfile(member, io.BytesIO(content))
  return buffer.getvalue()


def contents(folder=FOLDER, count=7, size=60_000, seed=0):
  rng = np.random.default_rng(seed)
  return {f"{folder}/g{index}.npz": rng.bytes(size + index) for index in range(count)}


GOOD = contents()


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
  monkeypatch.setattr(transfer, "_FIRST_WAIT", 0.0)
  monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server():
  with file_server.FileServer({NAME: archive(GOOD)}) as served:
    yield served


def remotes(server, splits=("valid",), **arguments):
  return archives.collection_archives(
      ["layout:xla:random"], splits, base_url=server.address, **arguments)


def data(root):
  return {path: content for path, content in killed_download.tree(root).items()
          if not path.startswith("downloads/")}


def left(root):
  return sorted(path.name for path in (root / "downloads").iterdir())


def _digest(content):
  return hashlib.sha256(content).hexdigest()


# ---- available downloads -------------------------------------------------------------------------


def test_the_addresses_are_the_registered_ones():
  actual = archives.collection_archives(archives.downloadable_collections())
  assert len(actual) == 15 and {remote.address for remote in actual} == {
      address for name in archives.downloadable_collections()
      for address in registry.get_collection(name).addresses.values()}
  remote = archives.collection_archives(["tile:xla"], ["test"])[0]
  assert remote == archives.Remote(
      "npz_tile_xla_test.tar",
      "http://download.tensorflow.org/data/tpu_graphs/v0/npz_tile_xla_test.tar",
      pathlib.PurePosixPath("npz/tile/xla/test"), graphs=844)
  assert archives.downloadable_collections() == (
      "layout:nlp:default", "layout:nlp:random", "layout:xla:default", "layout:xla:random",
      "tile:xla")


def test_raw_archives_mirror_the_tree():
  remote, = archives.collection_archives(["layout:nlp:random"], ["train"], raw=True)
  assert remote.name == "pb_layout_nlp_random_train.tar"
  assert remote.address.endswith("/v0/pb_layout_nlp_random_train.tar")
  assert remote.place == pathlib.PurePosixPath("pb/layout/nlp/random/train")


def test_each_archive_once_and_from_the_mirror():
  actual = archives.collection_archives(
      ["tile:xla", "tile:xla"], ["test", "valid", "test"], base_url="https://mirror/tpu")
  assert [remote.address for remote in actual] == [
      "https://mirror/tpu/npz_tile_xla_test.tar", "https://mirror/tpu/npz_tile_xla_valid.tar"]
  extra = archives.extra_files("http://mirror/tpu/")[0]
  assert extra.address == ("http://mirror/tpu/tpu_graphs/process_data/tensorflow_ops/testdata/"
                           "module_tuning_data_layout.pb")


def test_the_extra_files_are_downloaded_to_where_they_are_read():
  actual = {str(remote.place): remote for remote in archives.extra_files()}
  assert set(actual) == {
      "tpu_raw/module_tuning_data_layout.pb", "tpu_raw/op_tuning_data.pb",
      *(f"eval_indices/{source}_{search}.json" for source in ("nlp", "xla")
        for search in ("default", "random"))}
  for remote in actual.values():
    assert remote.address.startswith("https://raw.githubusercontent.com/google-research-datasets/"
                                     "tpu_graphs/ddd187c583cd3b0c72fb5adada905ad7b7532794/")
    assert len(remote.sha256) == 64 and not remote.is_archive


@pytest.mark.parametrize("arguments, error, detail", [
    ({"collections": ["tile:xls"]}, errors.UnknownNameError, "did you mean 'tile:xla'"),
    ({"collections": ["tile:xla_cpu"]}, errors.ConfigError,
     "tile:xla_cpu has no public archives; collections with public archives: layout:nlp:default, "),
    ({"collections": ["tile:xla"], "splits": ["vaild"]}, errors.UnknownNameError, "no split"),
    ({"collections": ["tile:xla"], "base_url": "mirror/x"}, errors.ConfigError,
     "base_url 'mirror/x' is not an address; expected http"),
    ({"collections": ["tile:xla"], "base_url": "file:///x"}, errors.ConfigError, "not an address"),
])
def test_invalid_arguments(arguments, error, detail):
  with pytest.raises(error, match=detail):
    archives.collection_archives(**arguments)


# ---- downloading and verifying -------------------------------------------------------------------


def test_downloaded_then_verified(server, tmp_path, caplog):
  caplog.set_level(logging.INFO)
  brought, = download.download(remotes(server), tmp_path)
  content = server.files[NAME]
  assert (brought.was_complete, brought.size, brought.sha256, brought.files) == (
      False, len(content), _digest(content), 7)
  assert data(tmp_path) == GOOD
  assert left(tmp_path) == [f"{NAME}.json", f"{NAME}.lock"]
  record = files.read_json(tmp_path / "downloads" / f"{NAME}.json")
  assert record["sha256"] == _digest(content) and record["size"] == len(content)
  assert record["address"] == server.address + NAME
  assert record["members"] == {
      name: [len(member), _digest(member)] for name, member in GOOD.items()}
  assert "expected" not in caplog.text
  server.requests.clear()
  again, = download.download(remotes(server), tmp_path)
  assert again.was_complete and again.files == 7 and again.sha256 == brought.sha256
  assert not server.requests  # No network is needed.
  assert data(tmp_path) == GOOD


def test_an_archive_that_is_kept_is_verified_too(server, tmp_path):
  download.download(remotes(server), tmp_path, keep_archives=True)
  path = tmp_path / "downloads" / NAME
  assert path.read_bytes() == server.files[NAME]
  assert download.download(remotes(server), tmp_path, keep_archives=True)[0].was_complete
  path.write_bytes(path.read_bytes()[:-1] + b"!")
  with pytest.raises(errors.DataError, match="recorded at the first download.*renamed to .*tar."):
    download.download(remotes(server), tmp_path, keep_archives=True)
  assert not path.exists()
  # Without the archive, only the tree is verified.
  assert download.download(remotes(server), tmp_path, keep_archives=True)[0].was_complete


def test_an_archive_placed_by_hand_is_used(server, tmp_path):
  (tmp_path / "downloads").mkdir()
  (tmp_path / "downloads" / NAME).write_bytes(server.files[NAME])
  server.files.clear()
  assert not download.download(remotes(server), tmp_path)[0].was_complete
  assert data(tmp_path) == GOOD and not server.requests


@pytest.mark.parametrize("change", [
    lambda path: path.write_bytes(path.read_bytes()[:-1] + b"!"),
    lambda path: path.write_bytes(b"")])
def test_a_changed_graph_is_reported_and_stays(server, tmp_path, change):
  download.download(remotes(server), tmp_path)
  path = tmp_path / FOLDER / "g3.npz"
  change(path)
  before = path.read_bytes()
  with pytest.raises(errors.DataError) as caught:
    download.download(remotes(server), tmp_path)
  assert f"{path} has SHA-256 {_digest(before)} and {len(before)} bytes; expected " in (
      str(caught.value))
  assert f"{_digest(GOOD[f'{FOLDER}/g3.npz'])} and 60003 bytes" in str(caught.value)
  assert path.read_bytes() == before
  path.unlink()  # As the message says.
  download.download(remotes(server), tmp_path)
  assert data(tmp_path) == GOOD


def test_missing_graphs_are_downloaded_again(server, tmp_path, caplog):
  download.download(remotes(server), tmp_path)
  (tmp_path / FOLDER / "g1.npz").unlink()
  (tmp_path / FOLDER / "mine.npz").write_bytes(b"mine")
  assert not download.download(remotes(server), tmp_path)[0].was_complete
  assert data(tmp_path) == {**GOOD, f"{FOLDER}/mine.npz": b"mine"}
  assert f"{NAME}: 1 of its 7 files are missing" in caplog.text


def test_a_file_that_the_publisher_changed_is_not_used(server, tmp_path):
  download.download(remotes(server), tmp_path)
  record = tmp_path / "downloads" / f"{NAME}.json"
  before = record.read_bytes()
  shutil.rmtree(tmp_path / "npz")
  server.files[NAME] = archive(contents(seed=1))
  with pytest.raises(errors.DataError) as caught:
    download.download(remotes(server), tmp_path)
  message = str(caught.value)
  assert f"has SHA-256 {_digest(server.files[NAME])}; expected {_digest(archive(GOOD))}" in message
  assert "recorded at the first download, 20" in message and str(record) in message
  assert not data(tmp_path) and record.read_bytes() == before
  assert (tmp_path / "downloads" / f"{NAME}.rejected").read_bytes() == server.files[NAME]
  server.files[NAME] = archive(GOOD)
  download.download(remotes(server), tmp_path)
  assert data(tmp_path) == GOOD
  # The remedy that the message names.
  server.files[NAME] = archive(contents(seed=1))
  shutil.rmtree(tmp_path / "npz")
  record.unlink()
  download.download(remotes(server), tmp_path)
  assert data(tmp_path) == contents(seed=1)


def test_a_file_with_a_published_digest(server, tmp_path):
  server.files["small.json"] = b"{}"
  remote = archives.Remote("small.json", f"{server.address}small.json", pathlib.PurePosixPath(
      "eval_indices/small.json"), is_archive=False, sha256=_digest(b"{}"))
  server.files["small.json"] = b"[]"
  with pytest.raises(errors.DataError, match=rf"{_digest(b'[]')}; expected {_digest(b'{}')} "
                     r"\(published with the data\)"):
    download.download([remote], tmp_path)
  assert not data(tmp_path)
  server.files["small.json"] = b"{}"
  brought, = download.download([remote], tmp_path)
  assert not brought.was_complete and data(tmp_path) == {"eval_indices/small.json": b"{}"}
  server.requests.clear()
  assert download.download([remote], tmp_path)[0].was_complete and not server.requests
  (tmp_path / "eval_indices" / "small.json").write_bytes(b"[]")
  with pytest.raises(errors.DataError, match="small.json has SHA-256 .*; expected .* move it away"):
    download.download([remote], tmp_path)
  assert data(tmp_path) == {"eval_indices/small.json": b"[]"}


def test_a_file_without_a_published_checksum_is_compared_with_its_first_download(server, tmp_path):
  server.files["small.json"] = b"{}"
  remote = archives.Remote("small.json", f"{server.address}small.json", pathlib.PurePosixPath(
      "eval_indices/small.json"), is_archive=False)
  download.download([remote], tmp_path)
  (tmp_path / "eval_indices" / "small.json").write_bytes(b"[]")
  with pytest.raises(errors.DataError, match="small.json has SHA-256"):
    download.download([remote], tmp_path)
  (tmp_path / "eval_indices" / "small.json").unlink()
  server.files["small.json"] = b"[]"
  with pytest.raises(errors.DataError, match="recorded at the first download"):
    download.download([remote], tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"members": null}', '{"members": 3}', "null"])
def test_a_damaged_record(server, tmp_path, text):
  download.download(remotes(server), tmp_path)
  record = tmp_path / "downloads" / f"{NAME}.json"
  for damaged in (text, record.read_text().replace("60000", '"many"'),
                  record.read_text().replace(f'"size": {len(server.files[NAME])}', '"size": "x"')):
    assert damaged != record.read_text()
    good = record.read_text()
    record.write_text(damaged)
    with pytest.raises(errors.DataError, match=f"{record} is damaged .*; remove it"):
      download.download(remotes(server), tmp_path)
    record.write_text(good)
  record.unlink()
  download.download(remotes(server), tmp_path)
  assert data(tmp_path) == GOOD


def test_a_harmful_archive_leaves_nothing(server, tmp_path):
  server.files[NAME] = archive({**GOOD, "../../evil": b"x"})
  with pytest.raises(errors.DataError, match="'../../evil' has a path outside the folder"):
    download.download(remotes(server), tmp_path / "root")
  assert not data(tmp_path / "root") and [path.name for path in tmp_path.iterdir()] == ["root"]


@pytest.mark.parametrize("content", [b"no archive", archive(GOOD)[:300_000], b""])
def test_a_damaged_archive_is_renamed_and_downloaded_again(server, tmp_path, content):
  good = server.files[NAME]
  server.files[NAME] = content
  with pytest.raises(errors.DataError, match=rf"renamed to .*{NAME}.rejected: run the same "):
    download.download(remotes(server), tmp_path)
  assert not data(tmp_path) and left(tmp_path) == [f"{NAME}.lock", f"{NAME}.rejected"]
  server.files[NAME] = good
  download.download(remotes(server), tmp_path)
  assert data(tmp_path) == GOOD


def test_conflicting_files_and_the_archive_are_kept(server, tmp_path):
  (tmp_path / FOLDER).mkdir(parents=True)
  (tmp_path / FOLDER / "g2.npz").write_bytes(b"mine")
  with pytest.raises(errors.DataError, match="g2.npz exists, and .* differs .* move it away"):
    download.download(remotes(server), tmp_path)
  assert data(tmp_path) == {f"{FOLDER}/g2.npz": b"mine"}
  (tmp_path / FOLDER / "g2.npz").unlink()
  server.requests.clear()
  download.download(remotes(server), tmp_path)
  assert data(tmp_path) == GOOD and not server.requests


@pytest.mark.parametrize("held, detail", [
    (contents(count=5), f"holds 5 graphs in {FOLDER}; expected 7"),
    (contents(count=8), f"holds 8 graphs in {FOLDER}; expected 7"),
    # Files elsewhere and files that are not graphs do not count.
    ({**contents(count=6), f"{FOLDER}/more/g6.npz": b"x"}, f"holds 6 graphs in {FOLDER}; expected"),
    ({**contents(count=6), f"{FOLDER}/README": b"x"}, f"holds 6 graphs in {FOLDER}; expected 7"),
    ({}, "holds no files"),
    (contents(FOLDER.replace("valid", "test")),
     f"'{FOLDER.replace('valid', 'test')}/g0.npz' is not in {FOLDER}/"),
    ({**GOOD, "npz/tile/xla/train/g.npz": b"x"}, f"'npz/tile/xla/train/g.npz' is not in {FOLDER}/"),
])
def test_an_archive_of_other_graphs_is_renamed_and_can_be_replaced(server, tmp_path, held, detail):
  server.files[NAME] = archive(held)
  with pytest.raises(errors.DataError) as caught:
    download.download(remotes(server), tmp_path)
  path = tmp_path / "downloads" / NAME
  assert str(path) in str(caught.value) and detail in str(caught.value)
  assert f"renamed to {path}.rejected: run the same command again" in str(caught.value)
  assert not data(tmp_path) and left(tmp_path) == [f"{NAME}.lock", f"{NAME}.rejected"]
  # There is no record, so a valid archive may come from anywhere.
  server.files.clear()
  path.write_bytes(archive(GOOD))
  assert not download.download(remotes(server), tmp_path)[0].was_complete
  assert data(tmp_path) == GOOD


def test_a_record_of_an_incomplete_archive_is_removed(server, tmp_path, caplog):
  short = {name: GOOD[name] for name in list(GOOD)[:5]}
  server.files[NAME] = archive(short)
  whole, = remotes(server)
  download.download([dataclasses.replace(whole, graphs=5)], tmp_path)
  assert data(tmp_path) == short
  path = tmp_path / "downloads" / NAME
  path.write_bytes(archive(GOOD))  # By hand.
  assert not download.download([whole], tmp_path)[0].was_complete
  assert f"holds 5 graphs in {FOLDER}; expected 7; removing its record" in caplog.text
  assert data(tmp_path) == GOOD
  assert download.download([whole], tmp_path)[0].was_complete


def test_the_place_may_contain_other_files(server, tmp_path):
  server.files[NAME] = archive({**GOOD, f"{FOLDER}/README": b"x"})
  assert download.download(remotes(server), tmp_path)[0].files == 8


def test_a_different_number_of_raw_files_is_logged(server, tmp_path, caplog):
  folder = "pb" + FOLDER.removeprefix("npz")
  name = "pb" + NAME.removeprefix("npz")
  raw = remotes(server, raw=True)
  server.files[name] = archive(contents(folder, count=7))
  download.download(raw, tmp_path / "seven")
  assert not caplog.text
  server.files[name] = archive(contents(folder + "/deeper", count=5))
  download.download(raw, tmp_path / "five")
  assert data(tmp_path / "five") == contents(folder + "/deeper", count=5)
  assert f"{name} has 5 files, but its split has 7 graphs" in caplog.text
  for held in ({}, contents(count=7)):
    server.files[name] = archive(held)
    with pytest.raises(errors.DataError, match=f"holds no files|'{FOLDER}/g0.npz' is not in pb/"):
      download.download(raw, tmp_path / "none")


@pytest.mark.parametrize("keep", [False, True])
def test_an_archive_of_another_digest_is_never_removed(server, tmp_path, keep):
  download.download(remotes(server), tmp_path)
  path = tmp_path / "downloads" / NAME
  other = archive(contents(seed=1))
  path.write_bytes(other)
  with pytest.raises(errors.DataError) as caught:
    download.download(remotes(server), tmp_path, keep_archives=keep)
  detail = str(caught.value)
  assert f"{NAME} from {server.address}{NAME} has SHA-256 {_digest(other)}; expected " in detail
  assert f"renamed to {path}.rejected: run the same command again" in detail
  assert f"remove {path}.json and {tmp_path / FOLDER}, and rename it back to {path}" in detail
  # The existing files are verified, and the user's archive is kept.
  assert download.download(remotes(server), tmp_path, keep_archives=keep)[0].was_complete
  rejected = path.with_name(f"{NAME}.rejected")
  assert rejected.read_bytes() == other
  # The remedy that the message names.
  path.with_name(f"{NAME}.json").unlink()
  shutil.rmtree(tmp_path / FOLDER)
  rejected.rename(path)
  download.download(remotes(server), tmp_path, keep_archives=keep)
  assert data(tmp_path) == contents(seed=1) and path.exists() == keep


def test_a_valid_archive_of_unpacked_files_is_removed(server, tmp_path):
  download.download(remotes(server), tmp_path)
  (tmp_path / "downloads" / NAME).write_bytes(server.files[NAME])
  assert download.download(remotes(server), tmp_path)[0].was_complete
  assert left(tmp_path) == [f"{NAME}.json", f"{NAME}.lock"]


def test_the_next_success_removes_rejected_files(server, tmp_path, caplog):
  caplog.set_level(logging.INFO)
  good = server.files[NAME]
  for content in (b"no archive", b"no archive", b"neither"):
    server.files[NAME] = content
    with pytest.raises(errors.DataError, match="renamed to"):
      download.download(remotes(server), tmp_path)
  folder = tmp_path / "downloads"
  # Equal content is kept once; other content and other files' leftovers are kept.
  assert left(tmp_path) == [f"{NAME}.lock", f"{NAME}.rejected", f"{NAME}.rejected2"]
  assert (folder / f"{NAME}.rejected").read_bytes() == b"no archive"
  assert (folder / f"{NAME}.rejected2").read_bytes() == b"neither"
  (folder / "other.tar.rejected").write_bytes(b"")
  server.files[NAME] = good
  download.download(remotes(server), tmp_path)
  assert left(tmp_path) == [f"{NAME}.json", f"{NAME}.lock", "other.tar.rejected"]
  for suffix in ("", "2"):
    assert f"removed {folder / NAME}.rejected{suffix}, which was rejected earlier" in caplog.text


# ---- several downloads ---------------------------------------------------------------------------


def _all_splits(server):
  expected = {}
  for split, count in registry.get_collection("layout:xla:random").splits.items():
    held = contents(f"npz/layout/xla/random/{split}", count, size=180_000 // count)
    server.files[f"npz_layout_xla_random_{split}.tar"] = archive(held)
    expected.update(held)
  return remotes(server, registry.SPLITS), expected


@pytest.mark.parametrize("parallel", [1, 2, 8])
def test_several_at_a_time(server, tmp_path, parallel):
  wanted, expected = _all_splits(server)
  brought = download.download(wanted, tmp_path, parallel=parallel)
  assert [item.remote for item in brought] == wanted and data(tmp_path) == expected


def test_downloads_run_in_parallel(server, tmp_path):
  wanted, _ = _all_splits(server)
  together = threading.Barrier(3, timeout=20)  # It breaks, which is an error, unless three meet.
  met = []
  threads = set()

  def meet(_):
    if threading.get_ident() not in threads:
      threads.add(threading.get_ident())
      met.append(together.wait())

  server.on_sent = meet
  download.download(wanted, tmp_path, parallel=3)
  assert sorted(met[:3]) == [0, 1, 2]


def test_a_failure_does_not_stop_the_others(server, tmp_path):
  wanted, expected = _all_splits(server)
  server.files["npz_layout_xla_random_train.tar"] = b"no archive"
  with pytest.raises(errors.DataError, match="random_train.tar is damaged or not a tar archive"):
    download.download(wanted, tmp_path, parallel=1)
  assert data(tmp_path) == _but(expected, "train")
  shutil.rmtree(tmp_path)
  server.files["npz_layout_xla_random_test.tar"] = b"no archive"
  with pytest.raises(errors.DataError) as caught:
    download.download(wanted, tmp_path)
  first, *lines = str(caught.value).splitlines()
  assert first == "2 of 3 failed:"
  assert ["train.tar" in lines[0], "test.tar" in lines[1], len(lines)] == [True, True, 2]


def _but(expected, split):
  return {name: content for name, content in expected.items() if f"/{split}/" not in name}


def test_a_missing_archive_does_not_stop_the_others(server, tmp_path):
  wanted, expected = _all_splits(server)
  del server.files["npz_layout_xla_random_test.tar"]
  with pytest.raises(errors.MissingDataError) as caught:
    download.download(wanted, tmp_path)
  assert str(caught.value).startswith(f"cannot fetch {wanted[2].address}: the server answers 404")
  assert data(tmp_path) == _but(expected, "test")


@pytest.fixture
def asked(monkeypatch):
  """The names that were asked for; only 127.0.0.1 is known."""
  names = []
  resolve = socket.getaddrinfo

  def getaddrinfo(host, *arguments, **options):
    if host == "127.0.0.1":
      return resolve(host, *arguments, **options)
    names.append(host)
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

  monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
  for name in ("http_proxy", "HTTP_PROXY"):
    monkeypatch.delenv(name, raising=False)
  return names


def test_a_host_that_cannot_be_resolved_ends_everything_at_once(tmp_path, asked, caplog):
  caplog.set_level(logging.INFO)
  every = archives.collection_archives(
      archives.downloadable_collections(), registry.SPLITS, base_url="http://nowhere.invalid/")
  with pytest.raises(transfer.HostError, match="the name nowhere.invalid cannot be resolved"):
    download.download(every, tmp_path, parallel=3)
  assert 1 <= len(asked) <= 3 < len(every)
  assert not [message for message in caplog.messages if "next attempt" in message]
  asked.clear()
  sizes, failures = download.remote_sizes(every, parallel=1)
  assert sizes == [None] * len(every) and len(failures) == len(asked) == 1


def test_a_host_that_disappears_stops_the_others(server, tmp_path, asked, monkeypatch):
  (archived,) = remotes(server)
  gone = dataclasses.replace(archived, address="http://nowhere.invalid/a.tar", name="a.tar")
  monkeypatch.setattr(transfer, "remote_size", lambda *_, **__: None)  # As if it were there.
  with pytest.raises(transfer.HostError, match="the name nowhere.invalid cannot"):
    download.download([gone, archived], tmp_path, parallel=1)
  assert asked == ["nowhere.invalid"] * transfer._ATTEMPTS and not server.gets()


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_server_that_does_not_report_sizes(server, tmp_path, status, caplog):
  caplog.set_level(logging.INFO)
  wanted, expected = _all_splits(server)
  server.head_status = status
  download.download(wanted, tmp_path)
  assert data(tmp_path) == expected
  assert "the servers do not report the size of 3 of 3 files" in caplog.text


def test_complete_files_are_verified_without_a_server(tmp_path, caplog):
  caplog.set_level(logging.INFO)
  with file_server.FileServer({}) as server:
    wanted, expected = _all_splits(server)
    download.download(wanted, tmp_path)
  shutil.rmtree(tmp_path / "npz/layout/xla/random/valid")
  changed = tmp_path / "npz/layout/xla/random/test/g0.npz"
  changed.write_bytes(b"changed")
  caplog.clear()
  with pytest.raises(errors.TpuGraphsRankError) as caught:
    download.download(wanted, tmp_path)
  first, *lines = str(caught.value).splitlines()
  assert first == "2 of 3 failed:" and len(lines) == 2
  assert lines[0].startswith(f"  cannot fetch {wanted[1].address}: no connection: Connection refu")
  assert lines[1].startswith(f"  {changed} has SHA-256 {_digest(b'changed')} ")
  assert "random_train.tar: verified, 69 files" in caplog.text


def test_a_damaged_record_does_not_stop_the_others(server, tmp_path):
  wanted, expected = _all_splits(server)
  (tmp_path / "downloads").mkdir()
  record = tmp_path / "downloads" / "npz_layout_xla_random_train.tar.json"
  record.write_text("{")
  with pytest.raises(errors.DataError, match=f"{record} is damaged"):
    download.download(wanted, tmp_path)
  assert data(tmp_path) == _but(expected, "train")


def test_threads_share_the_work(server, tmp_path):
  server.pace = 0.005
  results = []
  threads = [threading.Thread(target=lambda: results.append(
      download.download(remotes(server), tmp_path)[0])) for _ in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert sorted(result.was_complete for result in results) == [False, True, True, True]
  assert len(server.gets()) == 1 and data(tmp_path) == GOOD


# ---- space ---------------------------------------------------------------------------------------


def _free(monkeypatch, free):
  usage = collections.namedtuple("usage", "total used free")
  monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 0, free))


@pytest.mark.parametrize("keep, parallel, archives_at_once", [
    (False, 1, 1), (False, 2, 2), (False, 9, 3), (True, 1, 3)])
def test_archives_in_progress_and_all_trees_must_fit(
    server, tmp_path, monkeypatch, keep, parallel, archives_at_once):
  wanted, expected = _all_splits(server)
  sizes = sorted(len(server.files[remote.name]) for remote in wanted)
  needed = sum(sizes) + sum(sizes[-archives_at_once:])
  _free(monkeypatch, needed - 1)
  with pytest.raises(errors.OutputError, match="of free space, but .* are needed .* --data_root"):
    download.download(wanted, tmp_path, parallel, keep)
  assert not server.gets()
  _free(monkeypatch, needed)
  download.download(wanted, tmp_path, parallel, keep)
  assert data(tmp_path) == expected


def test_received_data_needs_no_more_space(server, tmp_path, monkeypatch):
  size = len(server.files[NAME])
  server.faults[NAME] = [Fault(cut=300_000), *[Fault(cut=0)] * 6]
  with pytest.raises(errors.MissingDataError):
    download.download(remotes(server), tmp_path)
  server.faults.clear()
  arrived = (tmp_path / "downloads" / f"{NAME}.partial").stat().st_size
  _free(monkeypatch, 2 * size - arrived - 1)
  with pytest.raises(errors.OutputError, match="of free space"):
    download.download(remotes(server), tmp_path)
  _free(monkeypatch, 2 * size - arrived)
  download.download(remotes(server), tmp_path)
  assert data(tmp_path) == GOOD


def test_space_is_checked_again_before_unpacking(server, tmp_path, monkeypatch, caplog):
  caplog.set_level(logging.INFO)
  server.head_status = 405  # No size is known in advance.
  _free(monkeypatch, sum(map(len, GOOD.values())) - 1)
  with pytest.raises(errors.OutputError, match=f"are needed .to unpack {NAME}"):
    download.download(remotes(server), tmp_path)
  assert "the servers do not report the size of 1 of 1 files" in caplog.text
  assert not data(tmp_path)
  _free(monkeypatch, 10**9)
  server.requests.clear()
  download.download(remotes(server), tmp_path)
  assert data(tmp_path) == GOOD and not server.gets()  # It had arrived.


def test_an_impossible_data_root(server, tmp_path):
  (tmp_path / "file").write_bytes(b"")
  with pytest.raises(errors.OutputError, match="cannot create the folder .*--data_root"):
    download.download(remotes(server), tmp_path / "file")


# ---- states --------------------------------------------------------------------------------------


def test_states(server, tmp_path):
  remote, = remotes(server)
  look = lambda: (lambda state: (state.status, state.received, state.files))(
      download_records.look(remote, tmp_path))
  size = len(server.files[NAME])
  assert look() == ("absent", 0, 0)
  server.faults[NAME] = [Fault(cut=300_000), *[Fault(cut=0)] * 6]
  with pytest.raises(errors.MissingDataError):
    download.download([remote], tmp_path)
  status, arrived, _ = look()
  assert status == "partial" and 300_000 - transfer._CHUNK <= arrived <= 300_000
  server.faults.clear()
  download.download([remote], tmp_path, keep_archives=True)
  assert look() == ("complete", 0, 7)
  (tmp_path / FOLDER / "g0.npz").unlink()
  (tmp_path / FOLDER / "g1.npz").write_bytes(b"")
  assert look() == ("incomplete", size, 5)
  (tmp_path / "downloads" / f"{NAME}.json").unlink()
  assert look() == ("downloaded", size, 0)


def test_a_repeated_remote_is_downloaded_once(server, tmp_path):
  assert len(download.download(remotes(server) * 2, tmp_path)) == 2
  assert len(server.gets()) == 1


# ---- killed downloads ----------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path):
  """A server with a small archive and a file, and the expected tree in `expected`."""
  held = contents(count=killed_download.GRAPHS, size=30_000)
  with file_server.FileServer({NAME: archive(held), "small.json": b"{}" * 500}) as served:
    for name, content in {**held, "eval_indices/small.json": b"{}" * 500}.items():
      path = tmp_path / "expected" / name
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(content)
    yield served


def _killed(server, tmp_path, runs):
  done = subprocess.run(
      [sys.executable, "-m", "tests.data.killed_download", server.address, str(tmp_path),
       str(tmp_path / "expected"), runs],
      cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
  assert done.returncode == 0, done.stderr
  return int(done.stdout)


@pytest.mark.slow
def test_killed_at_every_step_and_run_again(small, tmp_path):
  assert _killed(small, tmp_path, "all") > 50


def test_killed_repeatedly(small, tmp_path):
  rng = np.random.default_rng(0)
  plans = [",".join(map(str, rng.integers(1, 80, 3))) for _ in range(12)]
  assert _killed(small, tmp_path, " ".join(plans)) > 8
