//! For tests: scripted registries, fixtures, real tools.
