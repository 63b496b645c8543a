//! What a registry needs to stay: settings that are remembered, a certificate, users, a unit for systemd, and proof that it works.
//!
//! Everything of an installed registry lies below one root:
//!
//! ```text
//! registry.json     what it was installed with
//! bin/airlock       the program, unless systemd as root keeps it in /usr/local/bin
//! htpasswd          users (0600)
//! rights            who may do what where, when it was given
//! tls/              the CA, the certificate, their keys (`tls::own`)
//! pull-secret.json  the first user's credentials as clusters and tools want them (0600)
//! cluster/          what a cluster must be told
//! storage/          content, unless it lies elsewhere
//! ```
//!
//! * [`settings`] are those of `registry.json`, and the flags of `registry serve` that follow from them
//! * [`names`]: what a certificate has to be for
//! * [`unit`] writes the unit, [`undo`] takes back what a failed step leaves, [`probe`] asks the registry as a client would,
//!   [`trial`] starts it to see whether it can be started

pub mod names;
pub mod probe;
pub mod settings;
pub mod trial;
pub mod undo;
pub mod unit;

pub use names::Host;
pub use probe::Probe;
pub use settings::{Root, Scope, Service, Settings};
pub use undo::Undo;

/// Bytes that are free where a path lies, for users without privileges; of the nearest folder above it that is there.
pub fn free_bytes(path: &std::path::Path) -> Option<u64> {
    let place = path.ancestors().find(|above| above.exists())?;
    let about = rustix::fs::statvfs(place).ok()?;
    Some(about.f_bavail.saturating_mul(about.f_frsize))
}
