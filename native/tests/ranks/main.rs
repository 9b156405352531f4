//! Several processes on this machine as ranks: each test starts processes of this test program on the loopback interface and waits for their end.
//! `child::rank` is what they run.

mod alone;
mod child;
mod cluster;
mod collectives;
mod failure;
mod host;
mod joining;
mod model;
mod reducer;
mod shared_norm;
mod torchrun;
