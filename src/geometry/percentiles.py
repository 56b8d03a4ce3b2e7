"""The percentiles that all analyses of geometry report."""

# spec A, "P7"
PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
