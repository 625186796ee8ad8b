"""
Tables: search under a time limit
=================================

``TabularRegressor(time_limit=8)`` trains as many configurations as there is time for, each a network for each fold, and
weighs them by how they predict the rows that their networks have not been trained on. The table is small, 442 patients,
so that eight seconds are enough to show it; an hour is well spent on a large one.
"""

import sys

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.metrics import root_mean_squared_error
from sklearn.model_selection import train_test_split

from fastmlp import TabularRegressor

plt.switch_backend("Agg")

X, y = load_diabetes(return_X_y=True, as_frame=True, scaled=False)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)

default = TabularRegressor(categorical_features=["sex"], random_state=0).fit(X_train, y_train)
searched = TabularRegressor(categorical_features=["sex"], time_limit=8, random_state=0).fit(X_train, y_train)

# %%
# What was tried: the first is the default; the others are drawn, eight at a time, and the smaller ones come first.
# How many there are depends on the machine; ``n_configurations=`` that number gives the same model anywhere.

for number, tried in enumerate(searched.configurations_):
    parameters = tried["parameters"]
    print(
        f"{number:>3}  score {tried['score']:.4f}  weight {tried['weight']:.2f}  {tried['seconds']:4.1f} s  "
        f"{parameters['method']:<5} {parameters['n_members']:>2} x {parameters['hidden_layer_sizes']}, rate "
        f"{parameters['learning_rate_init']:.4f}"
    )

# %%
# The ensemble beside the default, on rows that neither has seen. On a table this small, noise hides what a search
# gains.

for name, model in {"default": default, "search": searched}.items():
    error = root_mean_squared_error(y_test, model.predict(X_test))
    print(f"{name:<8} RMSE {error:.1f}, {len(model.networks_)} networks")

# %%
# Each configuration, and what it counts.

figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
seconds = [tried["seconds"] for tried in searched.configurations_]
scores = [tried["score"] for tried in searched.configurations_]
weights = np.array([tried["weight"] for tried in searched.configurations_])
axis.scatter(seconds, scores, s=20 + 600 * weights, c=np.where(weights > 0, "tab:blue", "lightgrey"), alpha=0.7)
axis.annotate("default", (seconds[0], scores[0]), xytext=(6, 6), textcoords="offset points")
axis.set(xlabel="seconds of its networks", ylabel="score on held-out rows", title="Area: weight in the ensemble")
figure.savefig(sys.argv[1] if len(sys.argv) > 1 else "tables_search.png", dpi=100)
