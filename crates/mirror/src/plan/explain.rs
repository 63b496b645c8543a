//! Why is this image, manifest or blob in the plan?

use airlock_oci::Digest;
use serde::Serialize;

use super::model::{AttachmentKind, Plan, Reason};

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The image of the plan.
    pub image: String,
    /// What it stands for.
    pub digest: Digest,
    /// How what was asked about belongs to it.
    pub role: String,
    /// Who asked for the image.
    pub reasons: Vec<Reason>,
    /// Where it goes.
    pub destination: String,
    /// Bytes of the image, shared ones included.
    pub bytes: u64,
}

/// Every image that `what` (a part of a name, or a digest) belongs to.
pub fn explain(plan: &Plan, what: &str) -> Vec<Explanation> {
    let what = what.trim_start_matches("docker://");
    let digest = what.rsplit_once('@').map_or(what, |(_, d)| d).parse::<Digest>().ok();
    let mut found = Vec::new();
    for image in &plan.images {
        let role = match &digest {
            Some(digest) if image.digest == *digest => Some("the image itself".to_owned()),
            Some(digest) if image.nodes.contains(digest) => Some("one of its manifests".to_owned()),
            Some(digest) => image
                .attachments
                .iter()
                .find(|a| a.nodes.contains(digest))
                .map(|a| {
                    let kind = match a.kind {
                        AttachmentKind::Signature => "a signature",
                        AttachmentKind::Attestation => "an attestation",
                        AttachmentKind::Sbom => "an SBOM",
                        AttachmentKind::Referrer => "a referrer",
                    };
                    format!("{kind} of its manifest {}", a.subject)
                })
                .or_else(|| plan.blobs_of(image).contains(digest).then(|| "one of its blobs".to_owned())),
            // Components of a release are pulled by digest: it is the name at the destination that says what they are.
            None => [&image.name, &image.source.to_string(), &format!("{}:{}", image.repository, image.tag)]
                .iter()
                .any(|name| name.contains(what))
                .then(|| "the image itself".to_owned()),
        };
        if let Some(role) = role {
            found.push(Explanation {
                image: image.name.clone(),
                digest: image.digest.clone(),
                role,
                reasons: image.reasons.clone(),
                destination: format!("{}:{}", image.repository, image.tag),
                bytes: plan.bytes_of(image).total(),
            });
        }
    }
    found
}
