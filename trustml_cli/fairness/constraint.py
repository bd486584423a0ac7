"""The goals of debiasing: which rates are to be equal in all groups."""

from enum import Enum


class Constraint(Enum):
    """What is to be equal in all groups (Hardt, Price and Srebro 2016, arXiv 1610.02413)."""

    demographic_parity = "demographic_parity"
    """The selection rate."""
    equalized_odds = "equalized_odds"
    """The true- and the false-positive rate."""
    equal_opportunity = "equal_opportunity"
    """The true-positive rate."""

    @property
    def labels(self) -> tuple[int, ...]:
        """The labels within which selection rates are to be equal; empty if they are over rows of any label."""
        return {Constraint.equalized_odds: (0, 1), Constraint.equal_opportunity: (1,)}.get(self, ())

    @property
    def measure(self) -> str:
        """The name of the metric that says how far decisions are from the goal."""
        return "p_rule" if self is Constraint.demographic_parity else f"{self.value}_difference"
