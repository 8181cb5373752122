"""Long runs: the figures of docs/reliability.md, each made by one check (`python -m soak`)."""
