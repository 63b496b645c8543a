//! registries.conf version 2: text in, ordered endpoints out.
