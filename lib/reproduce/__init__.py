"""The laboratory: data, models, experiments, runs, report, pictures, notebooks. It works in its checkout only."""
