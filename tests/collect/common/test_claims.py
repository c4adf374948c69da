"""Machines that share a folder: who measures what, and what becomes of a dead machine's work."""

import errno
import os
import pathlib
import time

from hypothesis import given
from hypothesis import strategies as st
import pytest

from tests.helpers import commands
from tpugraphs_rank import errors
from tpugraphs_rank import files
from tpugraphs_rank.collect.common import claims as claims_lib

STEMS = ["matmul.64x64x64.f32", "softmax.8x8.f32", "b"]


def _grow_old(folder: pathlib.Path, seconds: float) -> None:
  for path in folder.glob("*.json"):
    os.utime(path, (time.time() - seconds, time.time() - seconds))


def test_a_program_is_measured_by_one_machine(tmp_path: pathlib.Path) -> None:
  with claims_lib.Claims(tmp_path, "one") as one, claims_lib.Claims(tmp_path, "two") as two:
    assert one.take(STEMS) == STEMS[:1]
    assert two.take(STEMS, most=1) == STEMS[1:2] and two.take(STEMS, most=5) == STEMS[2:]
    assert one.take(STEMS) == [] and two.take(STEMS) == []
    assert one.measured_elsewhere(STEMS) == STEMS[1:]
    one.finish(STEMS[0])
    assert two.take(STEMS) == [] and two.measured_elsewhere(STEMS) == []
    two.finish(STEMS[1])
    assert two.measured_elsewhere(STEMS) == []
  # What a machine has not finished is free when it leaves.
  with claims_lib.Claims(tmp_path, "three") as three:
    assert three.take(STEMS, most=3) == ["b"]


def test_a_dead_machine_loses_its_claims_and_its_return_harms_nobody(
    tmp_path: pathlib.Path) -> None:
  dead = claims_lib.Claims(tmp_path, "dead", 100.0)
  assert dead.take(["a"]) == ["a"]  # Without `with`, nothing renews the claim.
  with claims_lib.Claims(tmp_path, "other", 100.0) as other:
    _grow_old(tmp_path, 90)
    assert other.take(["a"]) == [] and other.measured_elsewhere(["a"]) == ["a"]
    _grow_old(tmp_path, 110)
    assert other.take(["a"]) == ["a"]
    dead.finish("a")  # It was asleep. Its claim is not the latest one.
    assert claims_lib.Claims(tmp_path, "third", 100.0).take(["a"]) == []
    other.finish("a")
  assert files.read_json(tmp_path / "a.2.json") == {"machine": "other", "state": "done"}


def test_a_machine_that_was_killed_takes_its_own_work_again_at_once(tmp_path: pathlib.Path) -> None:
  assert claims_lib.Claims(tmp_path, "one").take(["a"]) == ["a"]
  with claims_lib.Claims(tmp_path, "one") as again:
    assert again.take(["a"]) == ["a"]


@pytest.mark.parametrize("most, machines, taken", [
    (8, 1, 8), (8, 2, 5), (8, 3, 3), (8, 50, 1), (1, 1, 1)])
def test_a_machine_leaves_work_for_the_others(
    most: int, machines: int, taken: int, tmp_path: pathlib.Path) -> None:
  stems = [f"program{number}" for number in range(20)]
  with claims_lib.Claims(tmp_path, "one") as one:
    assert one.take(stems, most, machines) == stems[:taken]


def test_claims_are_renewed_while_a_machine_lives(tmp_path: pathlib.Path) -> None:
  with claims_lib.Claims(tmp_path, "one", 0.5) as one:
    one.take(["a"])
    _grow_old(tmp_path, 10)
    deadline = time.monotonic() + 20
    while time.time() - (tmp_path / "a.1.json").stat().st_mtime > 5:
      assert time.monotonic() < deadline
      time.sleep(0.02)


def test_a_claim_that_was_cut_off_counts_by_its_age(tmp_path: pathlib.Path) -> None:
  (tmp_path / "a.1.json").write_text("")  # Its machine died between two system calls.
  with claims_lib.Claims(tmp_path, "one", 100.0) as one:
    assert one.take(["a"]) == []
    _grow_old(tmp_path, 110)
    assert one.take(["a"]) == ["a"]


_RACE = """
import pathlib, sys
from tpugraphs_rank.collect.common import claims
folder, machine, stems = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3].split()
with claims.Claims(folder, machine) as held:
  print("ready", flush=True)
  sys.stdin.readline()
  while taken := held.take(stems):
    print(*taken, flush=True)
    held.finish(*taken)
"""


def test_a_claim_is_complete_when_it_exists(tmp_path: pathlib.Path,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
  contents = []
  link = os.link

  def watched(source: str, target: pathlib.Path) -> None:
    contents.append((pathlib.Path(source).read_bytes(), target.exists()))
    link(source, target)

  monkeypatch.setattr(os, "link", watched)
  with claims_lib.Claims(tmp_path, "one") as one:
    assert one.take(STEMS) == STEMS[:1]
    assert contents == [((tmp_path / f"{STEMS[0]}.1.json").read_bytes(), False)]
    assert not list(tmp_path.glob(".*.partial"))

  def unsupported(source: str, target: pathlib.Path) -> None:
    raise PermissionError(errno.EPERM, "no hard links")

  monkeypatch.setattr(os, "link", unsupported)
  with claims_lib.Claims(tmp_path, "two") as two:
    assert two.take(STEMS[1:]) == STEMS[1:2] and two.take(STEMS[1:2]) == []
    assert two._create("x", 1) and not two._create("x", 1)


def test_two_processes_on_one_folder_never_take_the_same_program(tmp_path: pathlib.Path) -> None:
  stems = [f"program{number}" for number in range(60)]
  workers = [commands.started(_RACE, tmp_path, name, " ".join(stems)) for name in ("one", "two")]
  outputs = []
  for worker in workers:
    worker.stdin.write("\n")
    worker.stdin.flush()
  for worker in workers:
    outputs.append(worker.communicate(timeout=60)[0].split())
    assert worker.returncode == 0
  assert sorted(outputs[0] + outputs[1]) == sorted(stems)


@given(count=st.integers(0, 8), programs=st.integers(0, 30))
def test_common_programs_are_spread_over_the_plan(count: int, programs: int) -> None:
  stems = [f"program{number}" for number in range(programs)]
  common = claims_lib.common(stems, count)
  assert len(set(common)) == len(common) == min(count, programs)
  places = [stems.index(stem) for stem in common]
  assert places == sorted(places)
  assert all(abs((place + 0.5) / programs - (k + 0.5) / len(common)) <= 1 / programs
             for k, place in enumerate(places))


@pytest.mark.parametrize("name", ["", "..", "a/b", "x" * 65, "a b"])
def test_names_of_machines(name: str) -> None:
  with pytest.raises(errors.ConfigError, match="--machine="):
    claims_lib.check_machine(name)


def test_a_folder_that_cannot_be_written(tmp_path: pathlib.Path) -> None:
  claims = claims_lib.Claims(tmp_path / "missing", "one")
  with pytest.raises(errors.OutputError):
    claims.take(["a"])


def test_every_error_of_the_shared_folder_is_typed(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
  claims = claims_lib.Claims(tmp_path, "one")

  def fail(self: pathlib.Path, text: str, encoding: str) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(pathlib.Path, "write_text", fail)
  for ask in (claims.take, claims.free, claims.measured_elsewhere):
    with pytest.raises(errors.OutputError, match="No space left"):
      ask(["a"])
  (tmp_path / "file").write_bytes(b"")
  with pytest.raises(errors.OutputError), claims_lib.Claims(tmp_path / "file" / "claims", "one"):
    pass
