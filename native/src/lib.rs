//! The few libtorch calls that tch lacks.
