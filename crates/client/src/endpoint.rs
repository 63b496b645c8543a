//! Which physical places a pull of a logical reference may be served from, in order: `registries.conf` decides.


use airlock_oci::{Error, Reference, Registry, Repository};

use crate::RegistriesConf;
use crate::surroundings::Surroundings;

/// One place that a pull is tried at.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// The physical reference.
    pub(crate) reference: Reference,
    /// Skip certificate checks; plain HTTP is a way out.
    pub(crate) insecure: bool,
    /// Must not be contacted, because of this table of registries.conf.
    pub(crate) blocked_by: Option<String>,
}

/// The loaded configuration.
pub(crate) struct Endpoints {}

impl Endpoints {
    pub(crate) fn load(_from: &RegistriesConf, _env: &Surroundings) -> Result<Self, Error> {
        Ok(Self {})
    }

    /// The places for a reference, at least one.
    pub(crate) fn of(&self, reference: &Reference) -> Result<Vec<Endpoint>, Error> {
        Ok(vec![Endpoint { reference: reference.clone(), insecure: false, blocked_by: None }])
    }

    /// Whether a registry that is written to may be spoken to without certificate checks.
    pub(crate) fn insecure_for_push(&self, _registry: &Registry, _namespace: Option<&Repository>) -> Result<bool, Error> {
        Ok(false)
    }
}
