"""Estimators in torch: FilteredAdam, gradient balancing, averaged models, gain reports (kalmean[torch])."""
