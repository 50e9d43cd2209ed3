//! The face of the timer service: four POST operations under `/api/v1`.
