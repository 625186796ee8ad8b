"""Training runs: data, settings, schedules, the loop of epochs, L-BFGS. No scikit-learn."""
