"""The laboratory: data, models, experiments, runs, report, pictures, notebooks. It works in its checkout only."""

from reproduce import left_out as left_out
