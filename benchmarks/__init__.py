"""Measurements: kernels and training steps against NumPy (`table`), and fastmlp beside other libraries (`peers`).

Nothing here is installed with the package, and nothing here asserts a time: a slow machine is no defect.
"""
