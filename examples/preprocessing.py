"""
Preprocessing: scaling, categories, bins and gaps
=================================================

A table often has columns in different units, words, and missing values. The table here is generated, so that we know
what is in it: bicycles rented in one hour, by hour of the day, day of the week, weather, temperature, wind, and the
days since the firm opened. The thermometer fails now and then, more often in frost.

Five pipelines are cross-validated, each with one more step: the columns as they are; scaled; words one-hot; the hour in
bins; a column that marks missing values. Each step helps the network, scaling and binning most. The linear model beside
it does not depend on the scale.
"""

import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, OneHotEncoder, OrdinalEncoder, StandardScaler

from fastmlp import MLPRegressor

plt.switch_backend("Agg")

# %%
# The table
# ---------


def rentals(n, rng):
    """n hours: what was known, and the bicycles rented."""
    weekday, hour = rng.choice(["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"], n), rng.randint(24, size=n)
    weather = rng.choice(["clear", "cloudy", "rain"], n, p=[0.5, 0.3, 0.2])
    temperature, wind, day = rng.normal(12, 9, n), rng.lognormal(2.5, 0.6, n), rng.randint(1500, size=n)
    work = ~np.isin(weekday, ["Sat", "Sun"])
    commute = np.exp(-((hour - 8) ** 2) / 3) + np.exp(-((hour - 17) ** 2) / 5)
    log_rate = (
        2.5
        + np.where(work, 2 * commute, 1.5 * np.exp(-((hour - 14) ** 2) / 18))
        + 1.5 * np.exp(-((temperature - 22) ** 2) / 200)
        - 0.7 * (weather == "rain")
        - 0.01 * wind
        + day / 1500
    )
    frame = pd.DataFrame(
        {"hour": hour, "weekday": weekday, "weather": weather, "temperature": temperature, "wind": wind, "day": day}
    )
    failed = rng.uniform(size=n) < np.where(temperature < 3, 0.5, 0.05)
    frame.loc[failed, "temperature"] = np.nan
    return frame, rng.poisson(np.exp(log_rate))


X, y = rentals(2000, np.random.RandomState(0))
print(X.head(3).to_string(), "\n")

# %%
# Five ways to prepare it
# -----------------------
# Each step is inside the pipeline: means, bins and categories are learnt from the training rows of a fold only.

WORDS, NUMBERS = ["weekday", "weather"], ["hour", "temperature", "wind", "day"]


def scaled(mark=False):
    """Gaps filled with the median, and a mark where one was; then mean 0, variance 1."""
    return make_pipeline(SimpleImputer(strategy="median", add_indicator=mark), StandardScaler())


def one_hot():
    """A column of 0 and 1 for each word."""
    return OneHotEncoder(handle_unknown="ignore")


def hours():
    """The hour of the day in 24 bins, a column each."""
    return KBinsDiscretizer(24, strategy="uniform", subsample=None)


REST = ["temperature", "wind", "day"]
PREPARATIONS = {
    "raw columns, words and gaps as numbers": make_column_transformer(
        (OrdinalEncoder(), WORDS), (SimpleImputer(strategy="constant", fill_value=0), NUMBERS)
    ),
    "+ scaling, gaps filled with the median": make_column_transformer(
        (make_pipeline(OrdinalEncoder(), StandardScaler()), WORDS), (scaled(), NUMBERS)
    ),
    "+ words one-hot": make_column_transformer((one_hot(), WORDS), (scaled(), NUMBERS)),
    "+ hour in bins": make_column_transformer((one_hot(), WORDS), (hours(), ["hour"]), (scaled(), REST)),
    "+ a mark where a value was missing": make_column_transformer(
        (one_hot(), WORDS), (hours(), ["hour"]), (scaled(mark=True), REST)
    ),
}

# %%
# Cross-validated
# ---------------
# The target, the logarithm of the number of bicycles, is scaled like the columns, and predictions are scaled back.

MODELS = {
    "network": MLPRegressor(
        hidden_layer_sizes=(64,), learning_rate_init=0.005, early_stopping=True, max_iter=500, random_state=0
    ),
    "linear model": Ridge(),
}


def scaled_target(model):
    """The model, on a target with mean 0 and variance 1."""
    return TransformedTargetRegressor(model, transformer=StandardScaler())


folds = KFold(5, shuffle=True, random_state=0)
print(f"{'R² on the rows left out, five folds':<42}" + "".join(f"{name:>16}" for name in MODELS))
results = {model: [] for model in MODELS}
for name, preparation in PREPARATIONS.items():
    line = f"{name:<42}"
    for title, model in MODELS.items():
        scores = cross_val_score(make_pipeline(preparation, scaled_target(model)), X, np.log1p(y), cv=folds)
        results[title].append((scores.mean(), scores.std()))
        line += f"{scores.mean():9.2f} ± {scores.std():.2f}"
    print(line)

# %%
# The same as a plot.

figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
for number, (name, values) in enumerate(results.items()):
    mean, spread = np.transpose(values)
    axis.barh(np.arange(len(mean)) + 0.4 * number, mean, height=0.4, xerr=spread, align="edge", label=name)
axis.set(xlabel="R² on the rows left out", yticks=np.arange(len(PREPARATIONS)) + 0.4, yticklabels=PREPARATIONS)
axis.invert_yaxis()
axis.legend(loc="upper right")
figure.savefig(sys.argv[1] if len(sys.argv) > 1 else "preprocessing.png", dpi=100)
