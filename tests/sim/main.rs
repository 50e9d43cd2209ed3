//! Simulation: the pure machines under a virtual clock and a seed.
