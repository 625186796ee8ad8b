"""
Tables: from a data frame to a model
====================================

A table from scikit-learn's collection of small ones would be all numbers. This one is generated, and is what tables are
like: ages, incomes over several powers of ten, towns, dates, truth values, and gaps that mean something. Two questions:
what does a customer spend (a number with heavy tails), and who leaves?

``TabularRegressor`` and ``TabularClassifier`` take the data frame as it is. Beside them stands gradient boosting, which
takes it as it is too, and an MLP in the pipeline that one would write for it.
"""

import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.compose import TransformedTargetRegressor, make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from fastmlp import MLPRegressor, TabularClassifier, TabularRegressor

plt.switch_backend("Agg")

# %%
# The table
# ---------


def customers(n, rng):
    """n customers: what is known of them, what they spend, and whether they leave."""
    frame = pd.DataFrame(
        {
            "age": rng.randint(18, 90, n),
            "income": rng.lognormal(10, 0.7, n).round(-2),
            "town": pd.Categorical(rng.choice(["Bonn", "Kiel", "Trier", "Ulm"], n, p=[0.4, 0.3, 0.2, 0.1])),
            "since": pd.Timestamp("2015-01-01") + pd.to_timedelta(rng.randint(3000, size=n), unit="D"),
            "newsletter": rng.uniform(size=n) < 0.3,
            "rating": rng.choice([1.0, 2.0, 3.0, 4.0, 5.0], n),
        }
    )
    years = (pd.Timestamp("2024-01-01") - frame["since"]).dt.days / 365
    interest = np.sin(frame["age"] / 9) + np.log(frame["income"] / 20_000) * (frame["town"] != "Ulm")
    spent = np.exp(3 + 0.7 * interest + 0.08 * years + 0.3 * rng.standard_normal(n))
    silent = rng.uniform(size=n) < 0.3  # no rating, and more likely to leave
    leaves = rng.uniform(size=n) < 1 / (1 + np.exp(1 + 0.8 * frame["rating"] - 4 * silent - years / 4))
    frame.loc[silent, "rating"] = np.nan
    return frame, spent.to_numpy(), np.where(leaves, "leaves", "stays")


X, spent, status = customers(3000, np.random.RandomState(0))
train, test = np.arange(2400), np.arange(2400, 3000)
print(X.head(3).to_string(), "\n")

# %%
# What a customer spends
# ----------------------
# The pipeline for the MLP has a line for each thing that the estimators for tables do by themselves.

numbers = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
columns = make_column_transformer(
    (numbers, ["age", "income", "rating", "days"]),
    (OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_exclude="number")),
)
network = MLPRegressor(early_stopping=True, learning_rate_init=0.005, random_state=0)
with_days = X.assign(days=(X["since"] - pd.Timestamp("2015-01-01")).dt.days.astype(float)).drop(columns="since")
models = {
    "an MLP in a pipeline": (
        TransformedTargetRegressor(make_pipeline(columns, network), transformer=StandardScaler()),
        with_days,
    ),
    "HistGradientBoostingRegressor": (HistGradientBoostingRegressor(random_state=0), with_days),
    "TabularRegressor": (TabularRegressor(random_state=0), X),
}
for name, (model, table) in models.items():
    error = np.sqrt(np.mean((model.fit(table.iloc[train], spent[train]).predict(table.iloc[test]) - spent[test]) ** 2))
    print(f"{name:<32} RMSE {error:6.2f}")
model = models["TabularRegressor"][0]
print(f"\n{model.columns_}\n")

# %%
# Who leaves
# ----------
# Each row of the training data was predicted by a network that had not seen it: the estimate of the error costs no
# rows.

classifier = TabularClassifier(random_state=0).fit(X.iloc[train], status[train])
known = roc_auc_score(status[train] == "leaves", classifier.oof_prediction_[:, 0])
later = roc_auc_score(status[test] == "leaves", classifier.predict_proba(X.iloc[test])[:, 0])
print(f"AUC, out of fold: {known:.3f}; of later rows: {later:.3f}")

# %%
# How sure is a prediction?
# -------------------------
# The networks agree where there were many customers, and less where there were few. The spread is no interval for what
# a customer will spend, as it does not contain the noise.

mean, spread = model.predict(X.iloc[test], return_std=True)
figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
axes[0].errorbar(spent[test], mean, spread, fmt=".", alpha=0.5)
axes[0].set(xlabel="spent", ylabel="predicted", xscale="log", yscale="log")
axes[0].axline((10, 10), (100, 100), color="black", linewidth=1)
income = np.linspace(2_000, 150_000, 60)
one = pd.concat([X.iloc[test[:1]]] * len(income)).assign(income=income)
mean, spread = model.predict(one, return_std=True)
axes[1].plot(income / 1000, mean)
axes[1].fill_between(income / 1000, mean - 2 * spread, mean + 2 * spread, alpha=0.3)
axes[1].set(xlabel="income of one customer, in thousands", ylabel="predicted, and twice the networks' spread")
figure.savefig(sys.argv[1] if len(sys.argv) > 1 else "tables.png", dpi=100)
