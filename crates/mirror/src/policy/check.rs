//! The judgement: an image's name and digest against the requirements that apply, with the signatures that lie where the image does.

use airlock_oci::{Descriptor, Digest, Error, ErrorKind, Place, Reference, Shape, Source, Tag};
use futures_util::TryStreamExt;

use super::file::{Requirement, Signed};
use super::scope::Applicable;
use super::signature::{Expected, PAYLOAD_TYPE};
use super::{Gate, Policy};
use crate::plan::naming::{GENERATED_REGISTRY, LAYOUT_REGISTRY};

/// The largest payload that is read (bytes). They have a few hundred.
const MAX_PAYLOAD_BYTES: u64 = 1024 * 1024;
/// Signatures of one image that are looked at, in the order of their manifest.
const MAX_SIGNATURES: usize = 128;

/// What the policy says of a manifest. Whatever else is wrong (`reject`, a registry that does not answer) is an error.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// All requirements hold.
    Accepted,
    /// A signature was required and none holds; the error says so. What an index names may be signed where it is not.
    Unsigned(Error),
}

impl Gate {
    /// Judges the manifest `digest` of the image `name`, which `place` has served.
    pub(crate) async fn judge(
        &self,
        source: &dyn Source,
        name: &Reference,
        place: &Place,
        digest: &Digest,
    ) -> Result<Verdict, Error> {
        if name.registry().as_str() == GENERATED_REGISTRY {
            // Nobody published it: it was built here, while planning.
            return Ok(Verdict::Accepted);
        }
        if name.registry().as_str() == LAYOUT_REGISTRY {
            return self.judge_layout(name);
        }
        let shown = format!("docker://{}", name.clone().pulled());
        let applicable = self.policy.for_image(name);
        for requirement in applicable.requirements {
            let Some(signed) = self.policy.settled(requirement, &applicable, &shown)? else { continue };
            let keys = signed.keys().map_err(|e| e.context(format!("check the signatures of `{shown}`")))?;
            let expected = Expected { keys, identity: &signed.identity, name, digest };
            if let Err(reason) = any_holds(source, place, &expected).await? {
                let hint = format!(
                    "sign `{}@{digest}` with the key of the policy (`cosign sign --key …`), or mirror without it",
                    name.name()
                );
                return Ok(Verdict::Unsigned(self.policy.denied(&applicable, &shown, Some(&reason)).hint(hint)));
            }
        }
        Ok(Verdict::Accepted)
    }

    /// A layout is known by its directory; what is in it bears no name that a signature could be for.
    fn judge_layout(&self, name: &Reference) -> Result<Verdict, Error> {
        let directory = self.layouts.get(name.repository()).ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("open OCI layout `{name}`"),
                "the configuration names no such layout",
            )
        })?;
        let shown = format!("oci:{}", directory.display());
        let applicable = self.policy.for_layout(directory);
        for requirement in applicable.requirements {
            if self.policy.settled(requirement, &applicable, &shown)?.is_some() {
                let reason = "A signature was required, but images in an OCI layout have none";
                return Err(self.policy.denied(&applicable, &shown, Some(reason)).hint(
                    "take the image from its registry, or allow the directory under `transports.oci` of the policy",
                ));
            }
        }
        Ok(Verdict::Accepted)
    }
}

impl Policy {
    /// Decides what can be decided without looking at signatures; `Some` is left to be checked.
    fn settled<'a>(
        &self,
        requirement: &'a Requirement,
        applicable: &Applicable<'_>,
        shown: &str,
    ) -> Result<Option<&'a Signed>, Error> {
        match requirement {
            Requirement::Accept => Ok(None),
            Requirement::Signed(signed) => Ok(Some(signed)),
            Requirement::Reject => Err(self
                .denied(applicable, shown, None)
                .hint("the policy names what may be mirrored; take the image out of the configuration, or allow it there")),
            Requirement::Unsupported(what) => Err(Error::new(
                ErrorKind::Unsupported,
                "Source image rejected",
                format!(
                    "`{what}` is required for {shown} ({}), and is not supported; use `sigstoreSigned` with `keyPath`",
                    self.place(applicable)
                ),
            )
            .hint("cosign signatures by key are checked: `sigstoreSigned` with `keyPath`, `keyPaths`, `keyData` or `keyDatas`")),
        }
    }

    /// The refusal of an image. The words are those of containers/image, which scripts look for.
    fn denied(&self, applicable: &Applicable<'_>, shown: &str, reason: Option<&str>) -> Error {
        let reason = reason.map(|r| format!(": {r}")).unwrap_or_default();
        Error::new(
            ErrorKind::Denied,
            "Source image rejected",
            format!("Running image {shown} is rejected by policy{reason} ({})", self.place(applicable)),
        )
    }

    fn place(&self, applicable: &Applicable<'_>) -> String {
        format!("{} of {}", applicable.place, self.file.display())
    }
}

/// Whether one of the signatures at the place holds; if not, why none does. What cannot be read is an error: it is no answer.
async fn any_holds(source: &dyn Source, place: &Place, expected: &Expected<'_>) -> Result<Result<(), String>, Error> {
    const NONE: &str = "A signature was required, but no signature exists";
    let name = expected.name;
    let failed = |e: Error| e.context(format!("look for signatures of `{name}`"));
    let Ok(tag) = Tag::new(&format!("{}.sig", expected.digest.fallback_tag())) else { return Ok(Err(NONE.into())) };
    let at = name.with_tag(tag);
    let Some(manifest) = source.manifest_at(&at, place).await.map_err(failed)? else {
        return Ok(Err(format!("{NONE} (there is no `{at}`)")));
    };
    if manifest.shape() != Shape::Image {
        return Ok(Err(format!("`{at}` is no manifest of signatures")));
    }
    let mut reasons = Vec::new();
    for layer in manifest.layers().iter().filter(|l| l.media_type == PAYLOAD_TYPE).take(MAX_SIGNATURES) {
        let outcome = match payload(source, name, layer, place).await.map_err(failed)? {
            Ok(payload) => expected.check(layer, &payload),
            Err(reason) => Err(reason),
        };
        match outcome {
            Ok(()) => return Ok(Ok(())),
            Err(reason) => reasons.push(reason),
        }
    }
    Ok(Err(match &reasons[..] {
        [] => format!("{NONE} (`{at}` has no layer of the type `{PAYLOAD_TYPE}`)"),
        [one] => one.clone(),
        _ => format!("None of the signatures were accepted, reasons: {}", reasons.join("; ")),
    }))
}

/// The bytes of a payload, or why this signature cannot count.
async fn payload(
    source: &dyn Source,
    name: &Reference,
    layer: &Descriptor,
    place: &Place,
) -> Result<Result<Vec<u8>, String>, Error> {
    if layer.size > MAX_PAYLOAD_BYTES {
        return Ok(Err(format!("the payload has {} bytes; at most {MAX_PAYLOAD_BYTES} are read", layer.size)));
    }
    let mut stream = match source.blob(name, layer, 0, Some(place)).await {
        Ok(stream) => stream,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Err("the payload is missing".into())),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    while let Some(piece) = stream.try_next().await? {
        bytes.extend_from_slice(&piece);
        if bytes.len() as u64 > layer.size {
            break;
        }
    }
    if bytes.len() as u64 != layer.size || Digest::of_with(layer.digest.algorithm(), &bytes) != layer.digest {
        return Ok(Err(format!("the bytes of the payload do not have the digest `{}`", layer.digest)));
    }
    Ok(Ok(bytes))
}
