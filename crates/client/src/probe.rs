//! What a registry allows, found before the first push and without leaving anything there.

use airlock_oci::{Digest, Error, ErrorKind, Repository, media_type};
use http::Method;
use http::header::{CONTENT_TYPE, HeaderValue};

use crate::RegistrySink;
use crate::auth::Scope;
use crate::client::{Call, Target};
use crate::failure::Failure;
use crate::source::Spot;
use crate::upload;

/// What was found about one thing.
#[derive(Clone, Debug)]
pub enum Check {
    /// The registry allows it.
    Allowed,
    /// It does not; the error says what it answered and what helps.
    Refused(Error),
    /// It cannot be told without leaving something behind.
    Unknown,
}

/// What a target allows.
#[derive(Clone, Debug)]
pub struct Probe {
    /// An upload can be begun in the repository that was asked for, with all components of its name.
    pub push: Check,
    /// A manifest can be put under its digest, without a tag.
    pub push_by_digest: Check,
    /// OCI indexes are taken.
    pub oci_index: Check,
    /// Docker manifest lists are taken.
    pub docker_list: Check,
    /// The registry keeps track of referrers; `None`: it did not say.
    pub referrers: Option<bool>,
}

impl Check {
    /// The refusal, if it is one.
    pub fn refusal(&self) -> Option<&Error> {
        match self {
            Self::Refused(error) => Some(error),
            Self::Allowed | Self::Unknown => None,
        }
    }
}

impl Probe {
    /// All refusals, the gravest first.
    pub fn refusals(&self) -> Vec<&Error> {
        [&self.push, &self.push_by_digest, &self.oci_index, &self.docker_list]
            .into_iter()
            .filter_map(Check::refusal)
            .collect()
    }
}

impl RegistrySink {
    /// Asks what the registry allows in `repository`, best the most deeply nested one that will be written: begins an upload and cancels it,
    /// and offers manifests whose digest is wrong on purpose, which no registry keeps. An error: the registry cannot be reached, or
    /// does not let this user in.
    pub async fn probe(&self, repository: &Repository) -> Result<Probe, Error> {
        let spot = self.spot(repository)?;
        self.ping().await?;
        let push = self.begin_and_cancel(&spot).await?;
        if push.refusal().is_some() {
            let (push_by_digest, oci_index, docker_list) = (Check::Unknown, Check::Unknown, Check::Unknown);
            return Ok(Probe { push, push_by_digest, oci_index, docker_list, referrers: None });
        }
        let (push_by_digest, oci_index) = self.offer(&spot, media_type::OCI_INDEX).await;
        let (_, docker_list) = self.offer(&spot, media_type::DOCKER_LIST).await;
        let referrers = self.has_referrers_api(&spot).await.unwrap_or(None);
        Ok(Probe { push, push_by_digest, oci_index, docker_list, referrers })
    }

    /// Asks the registry whether it is one and lets this user in.
    pub async fn ping(&self) -> Result<(), Error> {
        let mut call = Call::new(Method::GET, Target::Path("/v2/".into()), Scope::none());
        call.what = Some(format!("GET {} /v2/", self.host().name));
        let Err(failure) = self.client().send(self.host(), &call).await.map(drop) else { return Ok(()) };
        let name = &self.host().name;
        let what = format!("contact registry `{name}`");
        // The words of containers/image, which people search for.
        let cause = match failure.kind {
            ErrorKind::Unauthorized | ErrorKind::Denied => {
                format!("failed to authenticate: pinging container registry {name}: {}", failure.cause)
            }
            _ => format!("pinging container registry {name}: {}", failure.cause),
        };
        let failure = match failure.kind {
            ErrorKind::NotFound => {
                Failure { cause, ..failure }.hint(format!("`{name}` answers, but is no container registry (no /v2/)"))
            }
            _ => Failure { cause, ..failure },
        };
        Err(failure.into_error(what))
    }

    async fn begin_and_cancel(&self, spot: &Spot) -> Result<Check, Error> {
        let call = spot.call(Method::POST, "blobs/uploads/", "pull,push");
        let what = format!("push to `{}`", spot.place());
        match self.client().send(&spot.host, &call).await {
            Ok(answer) => {
                if let Ok(session) = upload::session_of(spot, &answer) {
                    upload::cancel(spot, &session).await;
                }
                Ok(Check::Allowed)
            }
            Err(failure) if failure.transient => Err(failure.into_error(what)),
            Err(mut failure) => {
                let depth = spot.repository.split('/').count();
                let named = failure.has_code("NAME_INVALID") || failure.has_code("NAME_UNKNOWN");
                failure.hint = Some(match failure.kind {
                    ErrorKind::Unauthorized => {
                        format!("log in with `airlock login {}`, as a user who may push", spot.host.name)
                    }
                    ErrorKind::Denied if depth > 2 => format!(
                        "this user may not push to `{}`; some registries also answer so to names of {depth} components: \
                         then --max-nested-paths 2 helps",
                        spot.repository
                    ),
                    ErrorKind::Denied => {
                        format!("this user may not push to `{}`; ask for the right to write", spot.repository)
                    }
                    ErrorKind::NotFound | ErrorKind::Refused if depth > 2 || named => format!(
                        "the registry does not take a name of {depth} components, or the project must be created first; \
                         --max-nested-paths 2 makes names shorter"
                    ),
                    _ if failure.is_status(405) => "the registry is read-only".to_owned(),
                    _ => failure.hint.unwrap_or_else(|| "the registry does not take uploads here".to_owned()),
                });
                if failure.kind == ErrorKind::NotFound {
                    failure.kind = ErrorKind::Refused;
                }
                Ok(Check::Refused(failure.into_error(what)))
            }
        }
    }

    /// Offers an empty index under a digest that is not its own. The answer "wrong digest" means that everything before that was fine.
    async fn offer(&self, spot: &Spot, media_type: &'static str) -> (Check, Check) {
        let wrong = Digest::of(media_type.as_bytes());
        let mut call = spot.call(Method::PUT, &format!("manifests/{wrong}"), "pull,push");
        call.headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        call.body = format!(r#"{{"schemaVersion":2,"mediaType":"{media_type}","manifests":[]}}"#).into();
        let Err(failure) = self.client().send_once(&spot.host, &call).await else {
            return (Check::Unknown, Check::Unknown);
        };
        if failure.has_code("DIGEST_INVALID") {
            return (Check::Allowed, Check::Allowed);
        }
        let refused = |what: String, hint: &str| {
            Check::Refused(Failure { kind: ErrorKind::Refused, ..failure.clone() }.hint(hint).into_error(what))
        };
        if failure.has_code("TAG_INVALID") || failure.is_status(405) || failure.has_code("UNSUPPORTED") {
            let what = format!("push a manifest by digest to `{}`", spot.place());
            return (refused(what, "this registry takes manifests under a tag only"), Check::Unknown);
        }
        if failure.is_status(415) {
            let what = format!("push an index of type `{media_type}` to `{}`", spot.place());
            return (
                Check::Unknown,
                refused(what, "this registry does not take this type; see its compatibility settings"),
            );
        }
        (Check::Unknown, Check::Unknown)
    }
}
