//! The one engine that moves content from a Source to a Sink.
