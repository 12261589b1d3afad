"""The parts of a layer: norms, attention, feed-forward, positions and the timestep modulation."""
