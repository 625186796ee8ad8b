"""Plots of fitted estimators, and the learning-rate range test."""
