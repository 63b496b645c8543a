//! Where discovery finds what no registry has: update graphs and signatures of releases. From the network, or from what an archive
//! kept of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use airlock_client::Client;
use airlock_content::signature::{KeyRing, Store, Verifier};
use airlock_oci::{Digest, Error, ErrorKind, Reference};
use airlock_updates::{GraphClient, Graphs, Kept};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;

use super::{Cache, Release};
use crate::clock;

/// Answers of update services, by name.
pub const GRAPHS: &str = "graphs/";
/// Signatures of releases, by name: `<tag>-sha256-<hex>`, as oc-mirror names them (oc-mirror 3.6).
pub const SIGNATURES: &str = "signatures/";
/// The topic of signatures in the cache.
const SIGNATURE_NOTES: &str = "signatures";

/// Small files that discovery read and that loading needs again, by name.
pub type Documents = BTreeMap<String, Bytes>;

/// Which services are asked. The environment is read by the command line.
#[derive(Clone, Debug, Default)]
pub struct Services {
    /// `UPDATE_URL_OVERRIDE`.
    pub update_url: Option<String>,
    /// `OCP_SIGNATURE_URL`.
    pub signature_url: Option<String>,
    /// `OCP_SIGNATURE_VERIFICATION_PK`.
    pub signature_keys: Option<PathBuf>,
}

/// Where discovery finds what no registry has.
#[derive(Clone)]
pub struct Origins {
    /// Update graphs.
    pub graphs: Arc<dyn Graphs>,
    /// Signatures of releases.
    pub signatures: Signatures,
    /// The update service itself, where there is a network.
    pub service: Option<GraphClient>,
}

/// Where signatures of releases come from.
#[derive(Clone)]
pub enum Signatures {
    /// From a store, judged by keys.
    Judged(Arc<Judge>),
    /// From archives, where they were judged when they were written. What a cluster trusts, it judges itself.
    Kept(Arc<BTreeMap<Digest, Signature>>),
}

/// Judges signatures of stores.
pub struct Judge {
    verifier: Verifier,
    stores: Vec<Store>,
    cache: Arc<Cache>,
}

/// A signature that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Where the payload is published, by tag.
    pub reference: Reference,
    /// The file.
    pub bytes: Bytes,
}

impl Origins {
    /// The services of the network.
    pub fn network(
        client: &Client,
        services: &Services,
        graph_data: Option<&str>,
        cache: Arc<Cache>,
    ) -> Result<Self, Error> {
        let options = airlock_updates::Options {
            url: services.update_url.clone(),
            graph_data: graph_data.map(str::to_owned),
            ..Default::default()
        };
        let service = GraphClient::new(client.clone(), &options)?;
        let keys = match &services.signature_keys {
            Some(path) => KeyRing::file(path)?,
            None => KeyRing::red_hat()?,
        };
        let stores = Store::chosen(client, services.signature_url.as_deref())?;
        let verifier = Verifier::new(keys, clock::now().0);
        Ok(Self {
            graphs: Arc::new(service.clone()),
            signatures: Signatures::Judged(Arc::new(Judge { verifier, stores, cache })),
            service: Some(service),
        })
    }

    /// What archives kept: `releases` and `documents` of their plans.
    pub fn kept(place: &str, releases: &[Release], documents: &Documents) -> Self {
        let graphs = documents
            .iter()
            .filter_map(|(name, bytes)| Some((name.strip_prefix(GRAPHS)?.to_owned(), bytes.clone())))
            .collect();
        let signatures = releases
            .iter()
            .filter_map(|release| {
                let bytes = documents.get(release.signature.as_ref()?)?.clone();
                Some((release.digest.clone(), Signature { reference: release.source.clone(), bytes }))
            })
            .collect();
        Self {
            graphs: Arc::new(Kept::new(place, graphs)),
            signatures: Signatures::Kept(Arc::new(signatures)),
            service: None,
        }
    }
}

impl Signatures {
    /// The signature of a payload, which holds.
    pub(super) async fn find(&self, digest: &Digest) -> Result<Signature, Error> {
        match self {
            Self::Judged(judge) => judge.find(digest).await,
            Self::Kept(kept) => kept.get(digest).cloned().ok_or_else(|| {
                Error::new(
                    ErrorKind::NotFound,
                    format!("find the signature of release `{digest}`"),
                    "the archive has none: it was written with --ignore-release-signature",
                )
                .hint("give --ignore-release-signature here too, or write the archive again without it")
            }),
        }
    }
}

impl Judge {
    async fn find(&self, digest: &Digest) -> Result<Signature, Error> {
        let key = digest.to_string();
        // What was kept is judged again: keys and time may have changed since.
        let kept = self.cache.note::<String>(SIGNATURE_NOTES, &key, None).and_then(|text| BASE64.decode(text).ok());
        if let Some(signed) = kept.and_then(|bytes| self.verifier.verify(digest, bytes.into()).ok()) {
            return Ok(Signature { reference: signed.reference, bytes: signed.bytes });
        }
        let signed = self.verifier.find(digest, &self.stores).await?;
        self.cache.set_note(SIGNATURE_NOTES, &key, &BASE64.encode(&signed.bytes));
        Ok(Signature { reference: signed.reference, bytes: signed.bytes })
    }
}
