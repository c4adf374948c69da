"""Transfers of one file over HTTP, with servers and connections that fail in every way."""

import base64
import hashlib
import json
import logging
import pathlib
import shutil
import tempfile
import threading

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from tests.helpers import file_server
from tpugraphs_rank import errors
from tpugraphs_rank.data import transfer

Fault = file_server.Fault


def _bytes(size, seed=0):
  return np.random.default_rng(seed).bytes(size)


CONTENT = _bytes(500_000)
OTHER = _bytes(450_000, 1)


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
  monkeypatch.setattr(transfer, "_FIRST_WAIT", 0.0)
  monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server():
  with file_server.FileServer({"a.tar": CONTENT}) as served:
    yield served


def _fetch(server, path, **arguments):
  transfer.fetch(server.address + "a.tar", path, **arguments)
  assert sorted(p.name for p in path.parent.iterdir()) == [path.name]
  return path.read_bytes()


def _ranges(server):
  return [request.headers.get("Range") for request in server.gets()]


def test_a_whole_file(server, tmp_path):
  seen = []
  assert _fetch(server, tmp_path / "a", progress=lambda *at: seen.append(at)) == CONTENT
  assert seen[0] == (0, len(CONTENT)) and seen[-1] == (len(CONTENT), len(CONTENT))
  assert seen == sorted(seen) and _ranges(server) == [None]
  assert server.gets()[0].headers["Accept-Encoding"] == "identity"


def test_an_empty_file(server, tmp_path):
  server.files["a.tar"] = b""
  assert _fetch(server, tmp_path / "a") == b""


def test_a_broken_connection_is_resumed(server, tmp_path):
  server.faults["a.tar"] = [Fault(cut=200_000), Fault(cut=150_000)]
  assert _fetch(server, tmp_path / "a") == CONTENT
  first, second, third = _ranges(server)
  starts = [int(header.removeprefix("bytes=").rstrip("-")) for header in (second, third)]
  # Data that the client had not read when the connection broke is sent again: less than a chunk.
  assert first is None and 200_000 - transfer._CHUNK <= starts[0] <= 200_000
  assert starts[0] + 150_000 - transfer._CHUNK <= starts[1] <= starts[0] + 150_000
  tag = f'"{hashlib.sha256(CONTENT).hexdigest()}"'
  assert [request.headers.get("If-Range") for request in server.gets()] == [None, tag, tag]


def test_a_later_call_resumes(server, tmp_path):
  server.faults["a.tar"] = [Fault(cut=200_000), *[Fault(cut=0)] * 6]
  with pytest.raises(errors.MissingDataError):
    transfer.fetch(server.address + "a.tar", tmp_path / "a")
  assert not (tmp_path / "a").exists()
  have = transfer.partial_path(tmp_path / "a").read_bytes()
  assert have == CONTENT[:len(have)] and len(have) > 100_000
  server.faults.clear()
  server.requests.clear()
  assert _fetch(server, tmp_path / "a") == CONTENT
  assert _ranges(server) == [f"bytes={len(have)}-"]


def test_a_complete_partial_file_needs_no_server(server, tmp_path):
  stop = threading.Event()
  with pytest.raises(transfer.Stopped):
    transfer.fetch(server.address + "a.tar", tmp_path / "a", stop=stop,
                   progress=lambda at, size: at == size and stop.set())
  server.requests.clear()
  assert _fetch(server, tmp_path / "a") == CONTENT
  assert not server.requests


@pytest.mark.parametrize("validator, second", [
    ("etag", "resumed"), ("date", "resumed"), ("weak", "resumed"), ("", "anew")])
def test_only_a_known_version_is_resumed(server, tmp_path, validator, second):
  server.validator = validator
  server.faults["a.tar"] = [Fault(cut=300_000)]
  assert _fetch(server, tmp_path / "a") == CONTENT
  assert (_ranges(server)[1] is None) == (second == "anew")
  if validator == "weak":  # The request has the modification time, not the weak tag.
    assert server.gets()[1].headers["If-Range"].endswith("GMT")


@pytest.mark.parametrize("ignores", ["ranges", "once"])
def test_a_server_that_ignores_the_range_sends_the_whole_file(server, tmp_path, ignores):
  server.ranges = ignores == "once"
  server.faults["a.tar"] = [Fault(cut=300_000), Fault(ignore_range=True)]
  assert _fetch(server, tmp_path / "a") == CONTENT
  assert len(server.gets()) == 2


@pytest.mark.parametrize("validator", ["etag", "date", "weak", ""])
def test_a_file_that_changes_between_attempts_is_never_mixed(server, tmp_path, validator):
  server.validator = validator
  server.faults["a.tar"] = [Fault(cut=300_000)]

  def change(sent):
    if sent >= 300_000:
      server.files["a.tar"] = OTHER

  server.on_sent = change
  assert _fetch(server, tmp_path / "a") == OTHER


def test_interrupted_between_two_versions(server, tmp_path, monkeypatch):
  server.faults["a.tar"] = [Fault(cut=300_000), *[Fault(cut=0)] * 6]
  with pytest.raises(errors.MissingDataError):
    transfer.fetch(server.address + "a.tar", tmp_path / "a")
  server.faults.clear()
  server.files["a.tar"] = OTHER

  def end(*_):
    raise transfer.Stopped()

  with monkeypatch.context() as patched:
    patched.setattr(transfer, "_append", end)  # The new version is recorded, but none of its bytes.
    with pytest.raises(transfer.Stopped):
      transfer.fetch(server.address + "a.tar", tmp_path / "a")
  assert _fetch(server, tmp_path / "a") == OTHER


@pytest.mark.parametrize("headers", [
    {"Content-Range": "bytes 5-499999/500000"}, {"Content-Range": "bytes 0-499999/500000"},
    {"Content-Range": "bytes 5"}, {"Content-Range": ""}, {"ETag": '"another"'}])
def test_an_unrequested_part_is_discarded(server, tmp_path, headers):
  server.faults["a.tar"] = [Fault(cut=300_000), Fault(headers=headers)]
  assert _fetch(server, tmp_path / "a") == CONTENT
  assert _ranges(server)[-1] is None


def test_a_part_of_a_file_of_another_size_is_discarded(server, tmp_path):
  server.faults["a.tar"] = [Fault(cut=327_680), Fault(
      headers={"Content-Range": "bytes 327680-499999/600000"})]
  assert _fetch(server, tmp_path / "a") == CONTENT


def test_an_unavailable_range_starts_again(server, tmp_path):
  server.faults["a.tar"] = [Fault(cut=300_000), Fault(status=416)]
  assert _fetch(server, tmp_path / "a") == CONTENT
  assert _ranges(server)[-1] is None


def test_leftovers_of_another_file_are_not_used(server, tmp_path):
  partial = transfer.partial_path(tmp_path / "a")
  version = partial.with_name(f"{partial.name}.json")
  tag = f'"{hashlib.sha256(CONTENT).hexdigest()}"'
  good = {"address": server.address + "a.tar", "validator": tag, "size": 500_000, "md5": None}
  for stored in (None, "{", "[]", json.dumps({**good, "address": "http://127.0.0.1/b"}),
                 json.dumps({**good, "validator": None}), json.dumps({**good, "size": 10}),
                 json.dumps({**good, "more": 1})):
    partial.write_bytes(b"something else")
    if stored is not None:
      version.write_text(stored)
    assert _fetch(server, tmp_path / "a") == CONTENT, stored
    assert _ranges(server)[-1] is None
  # Valid leftovers are used in the same situation, so the test above can fail.
  partial.write_bytes(CONTENT[:14])
  version.write_text(json.dumps(good))
  assert _fetch(server, tmp_path / "a") == CONTENT
  assert _ranges(server)[-1] == "bytes=14-"


@hypothesis.given(
    cuts=st.lists(st.integers(0, 500_000), max_size=4), validator=st.sampled_from(
        ["etag", "date", "weak", ""]), ranges=st.booleans(), lengths=st.booleans())
@hypothesis.settings(max_examples=20)
def test_any_breaks_end_in_the_file(cuts, validator, ranges, lengths):
  folder = pathlib.Path(tempfile.mkdtemp())
  try:
    with file_server.FileServer({"a.tar": CONTENT}) as server:
      server.validator, server.ranges, server.lengths = validator, ranges, lengths
      server.faults["a.tar"] = [Fault(cut=cut) for cut in cuts]
      assert _fetch(server, folder / "a") == CONTENT
  finally:
    shutil.rmtree(folder)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_refusal_is_final(server, tmp_path, status):
  server.faults["a.tar"] = [Fault(status=status)]
  with pytest.raises(errors.MissingDataError) as caught:
    transfer.fetch(server.address + "a.tar", tmp_path / "a")
  assert f"cannot fetch {server.address}a.tar: the server answers {status}" in str(caught.value)
  assert "--base_url" in str(caught.value)
  assert len(server.gets()) == 1 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_temporary_failure_is_retried(server, tmp_path, status):
  server.faults["a.tar"] = [Fault(status=status)] * 5
  assert _fetch(server, tmp_path / "a") == CONTENT
  server.faults["a.tar"] = [Fault(status=status)] * 6
  with pytest.raises(errors.MissingDataError, match=rf"{status} .*\(attempts in a row: 6\)"):
    transfer.fetch(server.address + "a.tar", tmp_path / "b")


def test_progress_resets_the_attempts(server, tmp_path):
  # Eight breaks, each one chunk further.
  server.faults["a.tar"] = [Fault(cut=2 * transfer._CHUNK)] + [Fault(cut=70_000)] * 5 + [
      Fault(status=500)] * 4
  assert _fetch(server, tmp_path / "a") == CONTENT


def test_waits_grow_and_follow_the_server(server, tmp_path, monkeypatch):
  waits = []

  class Event(threading.Event):
    def wait(self, timeout=None):
      waits.append(timeout)
      return False

  monkeypatch.setattr(transfer, "_FIRST_WAIT", 20.0)
  server.faults["a.tar"] = [Fault(status=500)] * 3 + [
      Fault(status=503, headers={"Retry-After": "7"}),
      Fault(status=503, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})]
  assert _fetch(server, tmp_path / "a", stop=Event()) == CONTENT
  assert waits == [20.0, 40.0, 60.0, 7.0, 60.0]


def test_a_stalled_connection_is_dropped_and_resumed(server, tmp_path, monkeypatch):
  monkeypatch.setattr(transfer, "_TIMEOUT", (1, 0.2))
  server.faults["a.tar"] = [Fault(cut=200_000), Fault(stall=1.0)]
  assert _fetch(server, tmp_path / "a") == CONTENT
  assert len(server.gets()) == 3


def test_no_server(tmp_path):
  with file_server.FileServer({}) as server:
    address = server.address + "a.tar"
  with pytest.raises(errors.MissingDataError) as caught:
    transfer.fetch(address, tmp_path / "a")
  # The reason appears once, without the exceptions that wrap it.
  assert str(caught.value).startswith(
      f"cannot fetch {address}: no connection: Connection refused (attempts in a row: 6); ")
  assert "\n" not in str(caught.value) and "HTTPConnectionPool" not in str(caught.value)
  assert "run the same command again, which resumes from there" in str(caught.value)
  assert str(transfer.partial_path(tmp_path / "a")) in str(caught.value)
  with pytest.raises(errors.MissingDataError, match="no connection"):
    transfer.remote_size(address)


def test_no_such_host(tmp_path):
  with pytest.raises(errors.MissingDataError) as caught:
    transfer.fetch("http://nowhere.invalid/a.tar", tmp_path / "a")
  message = str(caught.value).removeprefix(
      "cannot fetch http://nowhere.invalid/a.tar: no connection: ")
  assert message != str(caught.value)
  assert "HTTPConnection" not in message and "object at" not in message
  assert isinstance(caught.value, transfer.HostError)
  assert "; the name nowhere.invalid cannot be resolved: check the network, " in message


def test_no_such_proxy(tmp_path, monkeypatch):
  monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:3128")
  with pytest.raises(transfer.HostError, match="the name of the proxy cannot be resolved"):
    transfer.remote_size("http://192.0.2.1/a.tar", attempts=1)


def test_the_reason_of_a_broken_connection_is_short(server, tmp_path, monkeypatch, caplog):
  caplog.set_level(logging.INFO)
  monkeypatch.setattr(transfer, "_TIMEOUT", (1, 0.2))
  server.faults["a.tar"] = [Fault(stall=1.0), Fault(cut=200_000)]
  assert _fetch(server, tmp_path / "a") == CONTENT
  stalled, cut = [record.getMessage() for record in caplog.records
                  if "next attempt" in record.getMessage()]
  assert "a.tar: the connection broke: timed out; next attempt" in stalled
  assert cut.count("IncompleteRead") == 1 and "ProtocolError" not in cut


def test_an_unrequested_encoding_is_rejected(server, tmp_path):
  server.faults["a.tar"] = [Fault(headers={"Content-Encoding": "gzip"})]
  with pytest.raises(errors.MissingDataError, match="encoding 'gzip', which was not requested"):
    transfer.fetch(server.address + "a.tar", tmp_path / "a")


def _md5(content):
  return {"x-goog-hash": "crc32c=AAAAAA==, md5=" + base64.b64encode(
      hashlib.md5(content, usedforsecurity=False).digest()).decode()}


def test_the_checksum_that_a_server_states_is_verified(server, tmp_path):
  server.faults["a.tar"] = [Fault(headers=_md5(CONTENT), cut=300_000)]
  assert _fetch(server, tmp_path / "a") == CONTENT
  server.faults["a.tar"] = [Fault(headers=_md5(OTHER), cut=300_000)]
  with pytest.raises(errors.DataError, match="MD5 .* the server states .*rejected"):
    transfer.fetch(server.address + "a.tar", tmp_path / "b")
  assert not (tmp_path / "b").exists()
  assert (tmp_path / "b.rejected").read_bytes() == CONTENT
  (tmp_path / "b.rejected").unlink()
  (tmp_path / "a").unlink()
  # A new download reuses nothing of the rejected file.
  assert _fetch(server, tmp_path / "b") == CONTENT
  assert _ranges(server)[-1] is None


def test_a_full_disk(server, tmp_path, monkeypatch):
  class Full:
    def __enter__(self):
      return self

    def __exit__(self, *_):
      pass

    def write(self, _):
      raise OSError(28, "No space left on device")

  monkeypatch.setattr(transfer, "open", lambda *_: Full(), raising=False)
  with pytest.raises(errors.OutputError, match="cannot write .*a.partial: No space left on device"):
    transfer.fetch(server.address + "a.tar", tmp_path / "a")


def test_stopping_keeps_the_received_data(server, tmp_path):
  stop = threading.Event()
  with pytest.raises(transfer.Stopped):
    transfer.fetch(server.address + "a.tar", tmp_path / "a", stop=stop,
                   progress=lambda at, size: at > 200_000 and stop.set())
  partial = transfer.partial_path(tmp_path / "a").read_bytes()
  assert 200_000 < len(partial) < 500_000 and CONTENT.startswith(partial)


def test_the_size_of_a_remote_file(server):
  address = server.address + "a.tar"
  assert transfer.remote_size(address) == len(CONTENT)
  for status in (405, 501):
    server.head_status = status
    assert transfer.remote_size(address) is None
  server.head_status, server.lengths = 200, False
  assert transfer.remote_size(address) is None
  with pytest.raises(errors.MissingDataError, match="b.tar: the server answers 404"):
    transfer.remote_size(server.address + "b.tar")
  server.head_status = 503
  with pytest.raises(errors.MissingDataError, match="503 .*attempts in a row: 1"):
    transfer.remote_size(address, attempts=1)
  assert not server.gets()


def test_digests(tmp_path):
  (tmp_path / "f").write_bytes(CONTENT * 5)
  seen = []
  actual = transfer.digest(tmp_path / "f", lambda *at: seen.append(at))
  assert actual == hashlib.sha256(CONTENT * 5).hexdigest()
  assert seen == [(1 << 20, 2_500_000), (2 << 20, 2_500_000), (2_500_000, 2_500_000)]
  with pytest.raises(errors.MissingDataError, match="cannot read .*gone: No such file"):
    transfer.digest(tmp_path / "gone")
