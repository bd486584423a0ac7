"""What scipy finds where ours has a closed form: it knows nothing of that form."""

import numpy as np
from scipy.optimize import linprog, minimize
from torch import Tensor

from trustml_cli.attacks.attack import Norm


def solved(x: Tensor, normal: Tensor, gap: Tensor, norm: Norm) -> float:
    """The smallest size that scipy finds for one problem."""
    x_, w, g = x.numpy(), normal.numpy(), gap.item()
    values = len(x_)
    if norm is Norm.l2:
        start = np.where(w > 0, 1 - x_, -x_)
        answer = minimize(
            lambda d: d @ d, start, jac=lambda d: 2 * d, method="SLSQP", bounds=list(zip(-x_, 1 - x_, strict=True)),
            constraints={"type": "ineq", "fun": lambda d: w @ d - g, "jac": lambda d: w},
            options={"ftol": 1e-14, "maxiter": 1000},
        )  # fmt: skip
        assert answer.success
        return float(np.sqrt(answer.fun))
    if norm is Norm.l1:  # d = up − down
        bounds = [*zip(np.zeros(values), 1 - x_, strict=True), *zip(np.zeros(values), x_, strict=True)]
        return linprog(np.ones(2 * values), A_ub=[np.concatenate([-w, w])], b_ub=[-g], bounds=bounds).fun
    ones = np.ones((values, 1))  # the last variable is the largest change
    rows = np.block([[np.eye(values), -ones], [-np.eye(values), -ones], [-w[None], np.zeros((1, 1))]])
    limits = np.concatenate([np.zeros(2 * values), [-g]])
    bounds = [*zip(-x_, 1 - x_, strict=True), (0, None)]
    return linprog(np.append(np.zeros(values), 1), A_ub=rows, b_ub=limits, bounds=bounds).fun
