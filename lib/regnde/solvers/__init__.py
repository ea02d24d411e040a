"""Steps, their error estimates, step-size control, and the solve that records them."""
