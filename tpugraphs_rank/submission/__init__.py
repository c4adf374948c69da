"""Submissions to the TpuGraphs competition: write, read, validate, merge and score them.

Validation reads a file byte by byte and lists every fault with its line and ID. What other readers
of CSV files accept, such as CR LF or another order of rows, is no fault. No TensorFlow.
"""

from tpugraphs_rank.submission.expectation import expect
from tpugraphs_rank.submission.expectation import Expectation
from tpugraphs_rank.submission.expectation import ExpectedRow
from tpugraphs_rank.submission.expectation import from_data
from tpugraphs_rank.submission.expectation import from_sample
from tpugraphs_rank.submission.faults import Fault
from tpugraphs_rank.submission.faults import Findings
from tpugraphs_rank.submission.merging import merge
from tpugraphs_rank.submission.merging import Merged
from tpugraphs_rank.submission.reading import parse
from tpugraphs_rank.submission.reading import read
from tpugraphs_rank.submission.rows import graph_id
from tpugraphs_rank.submission.rows import render
from tpugraphs_rank.submission.rows import Row
from tpugraphs_rank.submission.rows import row_from_scores
from tpugraphs_rank.submission.rows import write
from tpugraphs_rank.submission.scoring import score
from tpugraphs_rank.submission.scoring import SubmissionScore
from tpugraphs_rank.submission.validation import check
from tpugraphs_rank.submission.validation import validate

__all__ = [
    "Expectation",
    "ExpectedRow",
    "Fault",
    "Findings",
    "Merged",
    "Row",
    "SubmissionScore",
    "check",
    "expect",
    "from_data",
    "from_sample",
    "graph_id",
    "merge",
    "parse",
    "read",
    "render",
    "row_from_scores",
    "score",
    "validate",
    "write",
]
