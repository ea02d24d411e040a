"""The local penalty in a program that calls torchdiffeq or torchsde itself: it hears the solve, whatever the field."""
