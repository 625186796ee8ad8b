"""Checks of what a user gives to an estimator, and scores: X and y, weights, labels, rows that are held out."""
