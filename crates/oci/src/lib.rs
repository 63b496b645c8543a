//! Names and content: what every other crate speaks of, without any input or output of its own.
//!
//! * names: [`Digest`], [`Reference`], [`Repository`], [`Platform`]
//! * content: [`Descriptor`], [`Manifest`] (the bytes as received plus a parsed view), [`media_type`]
//! * where content lies: the traits [`Source`] (with [`Forward`] for those that stand on others) and [`Sink`], answered in [`Error`]s that say what failed, where,
//!   why and what helps
//! * [`registries_conf`]: the pure resolver (text in, ordered endpoints out)

pub mod descriptor;
pub mod digest;
pub mod error;
pub mod forward;
pub mod manifest;
pub mod media_type;
pub mod platform;
pub mod reference;
pub mod registries_conf;
pub mod sink;
pub mod source;

pub use descriptor::Descriptor;
pub use digest::{Algorithm, Digest, Hasher, Hex};
pub use error::{Attempt, Error, ErrorKind};
pub use forward::Forward;
pub use manifest::{MAX_MANIFEST_BYTES, Manifest, Shape};
pub use media_type::MediaType;
pub use platform::Platform;
pub use reference::{Reference, Registry, Repository, Tag};
pub use sink::{Abilities, Content, Sink};
pub use source::{BlobStream, Found, Place, Source};
