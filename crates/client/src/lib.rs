//! Source and Sink for a remote registry.
//!
//! [`Client`] holds connections, credentials, tokens, limits. On it stand [`RegistrySource`], which answers any logical reference from
//! the endpoints that `registries.conf` names, and [`RegistrySink`], which writes to one registry. Nothing prints: what should not be
//! silent goes to [`Options::notices`].

mod answer;
pub mod auth;
mod blob;
mod client;
mod connect;
mod endpoint;
mod exchange;
mod failure;
mod feed;
mod host;
mod limits;
mod listing;
mod options;
mod plain;
mod probe;
mod referrers;
mod retry;
mod secret;
mod sink;
mod source;
mod surroundings;
mod tls;
mod trust;
mod upload;

pub use client::Client;
pub use options::{HostCredentials, Notice, Options, RegistriesConf, Timeouts};
pub use plain::{Get, Url};
pub use probe::{Check, Probe};
pub use secret::Secret;
pub use sink::RegistrySink;
pub use source::RegistrySource;
