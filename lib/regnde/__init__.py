"""Regularized neural differential equations: make them cheap with what their solver knows of its own error."""
