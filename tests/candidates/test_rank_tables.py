"""The lines that rank prints."""

import numpy as np
import pytest

from tests.candidates import small_programs
from tests.hlo import modules
from tpugraphs_rank.candidates import kernels
from tpugraphs_rank.candidates import programs
from tpugraphs_rank.candidates import rank_tables
from tpugraphs_rank.candidates import ranking
from tpugraphs_rank.metrics import calibration
from tpugraphs_rank.metrics import evidence

TILES = [modules.tile_run(9, output=(2, 2)), modules.tile_run(9, output=(4, 2), kernel=(8,)),
         modules.tile_run(9, is_default=True, output=(1, 3), inputs=(1, 8)),
         modules.tile_run(9, output=(2, 6))]
LAYOUTS = [modules.layout_run([[(0, 1), (), (1, 0)], [(), (1, 0)], [(), ()]]),
           modules.layout_run([[], [], []], is_default=True)]

SLOWER = calibration.Bin(-np.inf, 50, 9, 0.1, (0.05, 0.2), 0.8, (0.7, 0.9), (0.7, 0.9))
UNCLEAR = calibration.Bin(-0.5, 60, 10, 0.5, (0.3, 0.7), 1.0, (0.9, 1.1), (0.8, 1.2))
FASTER = calibration.Bin(1.0, 40, 8, 0.83, (0.6, 0.95), 1.42, (1.3, 1.5), (1.1, 1.75))
EVIDENCE = evidence.Evidence(
    "valid", calibration.Calibration((SLOWER, UNCLEAR, FASTER), 10, 150), "",
    (evidence.Figures("all", 10, 0.61, 0.123, 0.01), evidence.Figures("dot", 6, 0.7, 0.1, 0.0)))
RUN = rank_tables.RunFacts(
    "runs/a", "tile", "tile:mine", "chip", "before_optimization", 2, EVIDENCE, "`evaluate`")


def _ranked(kind="tile", runs=(), scores=(), top_k=4, **known):
  module = small_programs.matmul(4, 6, 8) if kind == "tile" else small_programs.perceptron()
  program = programs.HloProgram("p", "f.pb", small_programs.data_of(
      module, runs, [2, 3, 5] if kind == "layout" else []))
  candidates = programs.find(program, kind, "", "elements", 20, 0)
  return ranking.rank(program, candidates, np.asarray(scores, float), top_k, **known)


def test_the_heading():
  assert rank_tables.heading(RUN).splitlines() == [
      "Predicted, not measured: measure the best before you use one.",
      "runs/a was trained on tile:mine: HLO before optimisation, measured on chip",
      "Its validation: 10 programs, Kendall's tau 0.61; the first choice was 12.3 % slower than "
      "the fastest, the best of five 1.0 %"]


def test_the_heading_says_what_is_missing():
  old = rank_tables.RunFacts("r", "tile", "c", "t", "after_optimization", 1, None, "`evaluate`")
  assert rank_tables.heading(old).splitlines()[-1] == (
      "It has no validation figures and no calibration, so no gains are predicted; `evaluate` "
      "computes them")
  few = evidence.Evidence("valid", None, "2 of 3 programs have one", EVIDENCE.figures)
  facts = rank_tables.RunFacts("r", "tile", "c", "t", "", 1, few, "", ("it is another stage",))
  assert rank_tables.heading(facts).splitlines()[-2:] == [
      "It has no calibration, so no gains are predicted: 2 of 3 programs have one",
      "Warning: it is another stage"]


def test_tiles():
  members = np.array([[1.0, 3, 0, 2], [1, 5, 2, -2]])
  result = _ranked(runs=TILES, scores=members.mean(axis=0), members=members, evidence=EVIDENCE)
  assert rank_tables.table(result).splitlines() == [
      "p: best 4 of 4 candidates; the default has rank 2",
      "  3 instructions, main operation dot",
      "  validation of such programs: 6 with dot, Kendall's tau 0.70; the first choice was 10.0 % "
      "slower than the fastest, the best of five 0.0 %",
      "  tiles of dot.102 f32[4,6]; sides as in the file",
      "rank  faster   speed                 members             candidate  kernel  output  input",
      "   1  8 in 10  1.42x (1.10 to 1.75)  1, 2 of 2 faster            1  8       4x2     -",
      "  2=  unclear                        3, 1 of 2 faster            0  -       2x2     -",
      "  2=  default  1.00x                 2-4                         2  -       1x3     1x8    "
      "the default",
      "   4  1 in 10  0.80x (0.70 to 0.90)  2-4, 1 of 2 faster          3  -       2x6     -"]
  assert rank_tables.legend([result]).splitlines() == [
      "=        equal scores: the model does not distinguish these",
      "faster   of the validation configurations with such a lead over the default, how many were "
      "faster than it;",
      "         unclear: the model cannot tell them from the default",
      "speed    the default's runtime divided by theirs: the median, and the range of half of them "
      "(150 configurations of 10 programs in all)",
      "members  the ranks that the run's 2 networks give it; how many of them place it above the "
      "default"]


def test_layouts():
  result = _ranked("layout", LAYOUTS, [2, 1], evidence=EVIDENCE)
  lines = rank_tables.table(result).splitlines()
  assert lines[0] == "p: best 2 of 2 candidates; the default has rank 2"
  assert lines[3:6] == [
      "rank  faster   speed                 candidate  changes",
      "   1  8 in 10  1.42x (1.10 to 1.75)          0  dot.102 f32[4,12]: output {0,1}, kernel "
      "f32[6,12]{1,0}; reshape.103 f32[8,6]: input f32[4,12]{1,0}",
      "   2  default  1.00x                         1  none: the default"]


def test_without_a_known_default():
  result = _ranked(runs=TILES[:2], scores=[1, 2], evidence=EVIDENCE)
  text = rank_tables.table(result)
  assert "no gain over the default is predicted: its default configuration is not known" in text
  assert "faster" not in text and "rank  candidate" in text
  assert rank_tables.legend([result]) == ""


def test_a_kernel_of_a_program():
  kernel = kernels.Kernel("fusion.3", "fusion", "f32[4,6]", small_programs.matmul(4, 6, 8),
                          ("fusion.3", "fusion.4", "fusion.9"))
  result = _ranked(runs=TILES, scores=[1, 2, 3, 4], kernel=kernel, top_k=1)
  assert rank_tables.table(result).startswith(
      "fusion.3 f32[4,6] (and 2 equal: fusion.4, fusion.9): best 1 of 4 candidates; the default "
      "has rank 2\n")


def test_what_training_never_saw():
  result = _ranked(runs=TILES, scores=[1, 2, 3, 4], unseen_types=("bf16",),
                   unseen_opcodes=("sort",))
  text = rank_tables.table(result)
  assert "  training never saw these opcodes: sort; the ranking may be no better than" in text
  assert "  training never saw these element types: bf16; the ranking may be" in text
  # Leads of validation programs say nothing about such a program.
  result = _ranked(runs=TILES, scores=[1, 2, 3, 4], unseen_types=("bf16",), evidence=EVIDENCE)
  text = rank_tables.table(result)
  assert ("no gain over the default is predicted: training never saw some of its opcodes or "
          "element types") in text and "faster" not in text


def test_a_ranking_that_leans_on_the_analytic_cost():
  result = _ranked(runs=TILES, scores=[1, 2, 3, 4], evidence=EVIDENCE, prior_weight=0.8)
  text = rank_tables.table(result)
  assert ("  unlike the training programs: the ranking leans on an analytic cost of tiles (80 % of "
          "the score; --prior=none ranks without it)") in text
  assert "no gain over the default is predicted: it is unlike the run's training programs" in text
  assert "faster" not in text
  assert "analytic" not in rank_tables.table(
      _ranked(runs=TILES, scores=[1, 2, 3, 4], evidence=EVIDENCE))


def test_unseen_opcodes_that_compute_nothing_void_no_calibration():
  result = _ranked(runs=TILES, scores=[1, 2, 3, 4], evidence=EVIDENCE,
                   unseen_opcodes=("get-tuple-element", "tuple"))
  text = rank_tables.table(result)
  assert "training never saw these opcodes: get-tuple-element, tuple" in text and "faster" in text


def test_a_program_that_does_not_fit():
  result = _ranked(runs=TILES, scores=[1, 2, 3, 4], evidence=EVIDENCE, misfit="it is for a phone")
  text = rank_tables.table(result)
  assert "no gain over the default is predicted: it is for a phone" in text
  assert "faster" not in text


def test_an_operation_that_was_not_validated():
  other = evidence.Evidence("valid", EVIDENCE.calibration, "", EVIDENCE.figures[:1])
  text = rank_tables.table(_ranked(runs=TILES, scores=[1, 2, 3, 4], evidence=other))
  assert ("no gain over the default is predicted: the run was not validated on programs whose main "
          "operation is dot") in text and "faster" not in text


@pytest.mark.parametrize("share, text", [
    (0.0, "under 1 in 10"), (0.04, "under 1 in 10"), (0.1, "1 in 10"), (0.74, "7 in 10"),
    (0.94, "9 in 10"), (0.97, "over 9 in 10"), (1.0, "over 9 in 10")])
def test_a_share_claims_no_certainty(share, text):
  clear = calibration.Bin(-np.inf, 50, 9, share, (share, share), 1.0, (1.0, 1.0), (1.0, 1.0))
  only = evidence.Evidence(
      "valid", calibration.Calibration((clear,), 9, 50), "", EVIDENCE.figures)
  result = _ranked(runs=TILES, scores=[1, 2, 3, 4], evidence=only, top_k=1)
  assert text in rank_tables.table(result).splitlines()[-1]
