//! The registry server: the OCI distribution protocol over content on a local disk or in a bucket.
//!
//! A request passes through [`server`] (connection, TLS, limits), `service` (what is asked, may they, who answers) and one of the
//! `handlers`, which ask the `backend`: a [`Storage`](airlock_store::Storage) and a [`Writer`](airlock_store::distribution::Writer) on
//! a disk, or a [`Bucket`](airlock_store::bucket::Bucket). Without a writer the registry is read-only.
//!
//! * [`Server`] builds and starts one; [`Running`] is its handle
//! * [`route`], [`range`] and [`query`] are the pure parsers of what a client may send
//! * [`admin`]: health, metrics, and work on the storage while it is served
//! * [`install`]: what a registry needs to stay
//! * [`page`] shows people what is mirrored
//! * [`access`] knows who may do what; [`tls`] loads or makes certificates

pub mod access;
pub mod admin;
mod backend;
mod body;
mod crowd;
mod handlers;
mod health;
pub mod install;
mod limits;
mod lingering;
mod metrics;
pub mod page;
mod patience;
pub mod query;
pub mod range;
mod refusal;
pub mod route;
mod sendfile;
pub mod server;
mod service;
pub mod tls;

pub use access::{Anonymous, ExternalUrl, Password, PasswordFile, Rights, Users};
pub use server::{Builder, Running, Server};
pub use tls::Tls;
