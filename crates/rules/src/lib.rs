//! Mirror rules of a cluster: what they do to every pull, what is wrong with them, and what applying them costs.
