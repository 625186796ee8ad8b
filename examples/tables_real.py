"""
Tables: two real ones
=====================

Two tables of patients that scikit-learn ships. The first has numbers of different scales and a category that is written
as a number; what is predicted is how a disease went on. The second has measurements of cells, and classes whose
mistakes are not equally bad.

Both are small. On a few hundred rows a linear model is often as good as anything, so it stands beside: look before you
choose.
"""

import sys

import matplotlib.pyplot as plt
import numpy as np
from sklearn.calibration import calibration_curve
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.inspection import PartialDependenceDisplay
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import log_loss, recall_score
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastmlp import TabularClassifier, TabularRegressor

plt.switch_backend("Agg")

# %%
# Diabetes: a number
# ------------------
# ``sex`` holds 1 and 2. Nothing but its name tells that these are categories, so it is declared.

X, y = load_diabetes(return_X_y=True, as_frame=True, scaled=False)
print(X.head(3).to_string(), "\n")

folds = KFold(5, shuffle=True, random_state=0)
regressor = TabularRegressor(categorical_features=["sex"], random_state=0)
models = {
    "ridge regression": make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 3, 20))),
    "HistGradientBoostingRegressor": HistGradientBoostingRegressor(random_state=0),
    "TabularRegressor": regressor,
}
for name, model in models.items():
    errors = -cross_val_score(model, X, y, cv=folds, scoring="neg_root_mean_squared_error")
    print(f"{name:<30} RMSE {errors.mean():5.1f} ± {errors.std():.1f}")

# %%
# What was done to each column, and which of them count: how far the score falls, on rows that a network has not been
# trained on, when a column's values are permuted.

regressor.set_params(n_permutations=5, validation_metric="neg_root_mean_squared_error").fit(X, y)
print(f"\n{regressor.columns_}\n")
for index in np.argsort(-regressor.feature_importances_)[:4]:
    print(
        f"{X.columns[index]:<4} {regressor.feature_importances_[index]:5.1f} ± "
        f"{regressor.feature_importances_std_[index]:.1f}"
    )

# %%
# Cells: classes
# --------------
# Each row of the training data was predicted by a network that had not seen it. So probabilities can be judged, and a
# threshold chosen, without another cross-validation.

cells, benign = load_breast_cancer(return_X_y=True, as_frame=True)
classifier = TabularClassifier(max_iter=400, random_state=0).fit(cells, benign)
probability = {"TabularClassifier": classifier.oof_prediction_[:, 1]}
linear = make_pipeline(StandardScaler(), LogisticRegression())
parts = StratifiedKFold(5, shuffle=True, random_state=0)
probability["logistic regression"] = cross_val_predict(linear, cells, benign, cv=parts, method="predict_proba")[:, 1]
for name, each in probability.items():
    print(f"{name:<20} log-loss {log_loss(benign, each):.3f}, error rate {np.mean((each > 0.5) != benign):.3f}")

# %%
# To miss a malignant tumour is worse than to look twice. The largest threshold for malignant that finds 99 % of them:

malignant = 1 - probability["TabularClassifier"]
threshold = np.quantile(malignant[benign == 0], 0.01, method="lower")
found = malignant >= threshold
print(
    f"\nthreshold {threshold:.2f}: {recall_score(benign == 0, found):.1%} of the malignant found, "
    f"{np.mean(found[benign == 1]):.1%} of the benign looked at twice"
)

# %%
# What the networks made of two columns, and whether the probabilities can be taken at their word.

figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
PartialDependenceDisplay.from_estimator(regressor, X, ["bmi", "bp"], ax=axes[:2], grid_resolution=30)
for name, each in probability.items():
    share, mean = calibration_curve(benign, each, n_bins=6, strategy="quantile")
    axes[2].plot(mean, share, "o-", label=name)
axes[2].plot([0, 1], [0, 1], color="black", linewidth=1)
axes[2].set(xlabel="predicted probability", ylabel="share of benign cells")
axes[2].legend(fontsize=7)
figure.savefig(sys.argv[1] if len(sys.argv) > 1 else "tables_real.png", dpi=100)
