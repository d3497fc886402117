"""Links to the server: one attempt is carried over one of them, by WebSocket or by HTTP."""
