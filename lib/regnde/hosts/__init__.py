"""Around torchdiffeq and torchsde, left untouched: the same Solution, and the local penalty for your own call."""
