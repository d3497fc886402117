"""What callers set: servers, budgets, limits, retries, and the options of a turn."""
