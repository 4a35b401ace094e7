"""Experiments that measure running estimators on common streams."""
