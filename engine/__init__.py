"""A Trio structured-concurrency session engine for the OpenAI Responses API."""
