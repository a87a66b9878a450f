"""The faults that `tests.simulation.mutants` plants: where, what instead, and what it breaks."""

from tests.simulation.planted import between, confirming, deciding, following, sending
from tests.simulation.planted.mutant import Mutant

__all__ = ["MUTANTS", "Mutant"]

MUTANTS = (
    *sending.FAULTS,
    *confirming.FAULTS,
    *deciding.FAULTS,
    *following.FAULTS,
    *between.FAULTS,
)
