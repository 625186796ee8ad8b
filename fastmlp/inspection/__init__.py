"""Looking at a model: plots, and the learning-rate range test."""
