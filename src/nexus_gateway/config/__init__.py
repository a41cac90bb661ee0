"""From `GATEWAY_` variables and the optional file to the frozen `Runtime`, with every problem named at once."""
