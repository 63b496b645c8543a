//! What a cluster must be told of a registry: credentials, the CA, and where it is named.

use std::path::PathBuf;

use airlock_oci::{Error, ErrorKind};
use airlock_registry::install::{Root, Settings};
use airlock_rules::ca::{self, Authorities};
use airlock_rules::pull_secret::PullSecret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The texts, each with the file below the root that it goes into.
#[derive(Clone, Debug, Default)]
pub(super) struct Cluster {
    /// `ConfigMap` with the CA.
    pub(super) config_map: Option<String>,
    /// The image configuration that points to it.
    pub(super) image: Option<String>,
    /// What a new cluster's `install-config.yaml` gets.
    pub(super) install_config: Option<String>,
}

impl Cluster {
    /// For a registry under this name whose certificate is from this CA (PEM).
    pub(super) fn of(settings: &Settings, authority: Option<&str>) -> Result<Self, Error> {
        let Some(pem) = authority else { return Ok(Self::default()) };
        let wrong = |problem: airlock_rules::Problem| {
            Error::new(ErrorKind::Invalid, "write what a cluster must be told", &problem.message)
        };
        let indented: String = pem.lines().map(|line| format!("  {line}\n")).collect();
        let install_config = Some(format!("additionalTrustBundlePolicy: Always\nadditionalTrustBundle: |\n{indented}"));
        // A key of a ConfigMap cannot name an IPv6 address; the bundle of a new cluster needs no name.
        if settings.hostname.contains(':') {
            return Ok(Self { install_config, ..Self::default() });
        }
        let mut authorities = Authorities::default();
        authorities.add(&settings.authority(), pem).map_err(wrong)?;
        Ok(Self {
            config_map: Some(authorities.config_map(ca::DEFAULT_NAME)),
            image: Some(ca::image_object(ca::DEFAULT_NAME)),
            install_config,
        })
    }

    /// The files, with their texts; those that say nothing are not there.
    pub(super) fn files(&self, root: &Root) -> Vec<(PathBuf, Option<&str>)> {
        let folder = root.cluster();
        vec![
            (folder.join("registry-ca.yaml"), self.config_map.as_deref()),
            (folder.join("image-config.yaml"), self.image.as_deref()),
            (folder.join("install-config.yaml"), self.install_config.as_deref()),
        ]
    }
}

/// The pull secret of one user, as a credential file.
pub(super) fn pull_secret(settings: &Settings, password: &str) -> Result<String, Error> {
    let mut secret = PullSecret::empty();
    secret
        .add(&settings.authority(), &settings.init_user, password, None)
        .map_err(|problem| Error::new(ErrorKind::Invalid, "write the pull secret", &problem.message))?;
    Ok(secret.to_json())
}

/// The first user's password as it was kept in the pull secret; `None` where there is none.
pub(super) fn kept_password(root: &Root, settings: &Settings) -> Option<String> {
    let text = std::fs::read_to_string(root.pull_secret()).ok()?;
    let value: serde_json::Value = serde_json::from_str(&text).ok()?;
    let auth = value["auths"][settings.authority()]["auth"].as_str()?;
    let pair = String::from_utf8(STANDARD.decode(auth).ok()?).ok()?;
    let (user, password) = pair.split_once(':')?;
    (user == settings.init_user).then(|| password.to_owned())
}
