//! `mapping.txt` and `missing.txt` of a dry run (oc-mirror 11).

use airlock_oci::{Error, media_type};

use crate::plan::naming::is_local;
use crate::plan::{Image, Plan, Target, jobs};

/// The reference by which an image is pulled, with transport.
pub fn source_of(image: &Image) -> String {
    if is_local(&image.source) {
        return image.name.clone();
    }
    format!("docker://{}", image.source)
}

/// The reference by which it is pushed, with transport; an archive has no host.
pub fn destination_of(image: &Image, target: Option<&Target>, archive: &str) -> Result<String, Error> {
    let repository = jobs::destination(image, target)?;
    Ok(match target {
        Some(target) => format!("docker://{}/{repository}:{}", target.registry, image.tag),
        None => format!("{archive}/{repository}:{}", image.tag),
    })
}

/// One `source=destination` a line, sorted; with `instances`, each platform of an index as well.
pub fn mapping(plan: &Plan, target: Option<&Target>, archive: &str, instances: bool) -> Result<String, Error> {
    let mut lines = String::new();
    for image in &plan.images {
        let (source, destination) = (source_of(image), destination_of(image, target, archive)?);
        lines.push_str(&format!("{source}={destination}\n"));
        let is_index = plan.manifests.get(&image.digest).is_some_and(|m| media_type::is_index(&m.media_type));
        if instances && is_index {
            let from = source.split('@').next().unwrap_or(&source);
            let to = destination.strip_suffix(&format!(":{}", image.tag)).unwrap_or(&destination);
            for child in &plan.manifests[&image.digest].children {
                lines.push_str(&format!("{from}@{child}={to}@{child}\n"));
            }
        }
    }
    Ok(lines)
}
