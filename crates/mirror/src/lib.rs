//! Configuration to plan to transfer to outputs.
