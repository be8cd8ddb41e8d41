"""How a job runs, not what it computes: devices, warm workers, progress. Excluded from every code digest."""
