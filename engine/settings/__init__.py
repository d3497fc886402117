"""The settings of callers: servers, budgets, limits, retries, turns' options."""
