"""Sessions: the actor that owns the connections, the lanes, and the turns that travel on them."""
