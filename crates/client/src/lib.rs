//! Source and Sink for a remote registry.
