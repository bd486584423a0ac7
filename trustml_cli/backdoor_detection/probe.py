"""A supervised linear probe: how much of a backdoor there is to be found in latents, with labels."""

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

FOLDS = 5
FEWEST = 2  # examples of each kind


def probe_scores(latents: Tensor, triggered: Tensor) -> Tensor | None:
    """The log-odds that latents [N, D] are of triggered examples (bool [N]), float64 [N]; None if there are too few.

    A logistic regression on standardised latents gives the scores of each fold after training on the others.
    """
    fewest = min(int(triggered.sum()), int((~triggered).sum()))
    if fewest < FEWEST:
        return None
    folds = StratifiedKFold(min(FOLDS, fewest), shuffle=True, random_state=0)
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    scores = cross_val_predict(probe, latents.numpy(), triggered.numpy(), cv=folds, method="decision_function")
    return torch.from_numpy(scores).double()
