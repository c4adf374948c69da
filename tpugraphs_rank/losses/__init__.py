"""Ranking losses over lists of configurations."""

from tpugraphs_rank.losses.ranking import combined_loss
from tpugraphs_rank.losses.ranking import LOSSES
