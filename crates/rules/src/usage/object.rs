//! Images and their users in one object that was cut down.

use airlock_oci::Digest;

use super::tree::Node;
use super::{Place, Reader, Role};

/// Where the containers of a pod stand, and where their states do.
const CONTAINERS: [(&str, &str, Role); 3] = [
    ("containers", "containerStatuses", Role::Container),
    ("initContainers", "initContainerStatuses", Role::Init),
    ("ephemeralContainers", "ephemeralContainerStatuses", Role::Ephemeral),
];

/// Whether objects of this kind are mirror rules, or the image configuration that goes with them.
pub(super) fn is_rule(kind: &str, api_version: &str) -> bool {
    matches!(kind, "ImageDigestMirrorSet" | "ImageTagMirrorSet" | "ImageContentSourcePolicy")
        || (kind == "Image" && api_version.starts_with("config.openshift.io/"))
}

/// A value of a stream ended: an object, or a list whose items were read while it lasted.
pub(super) fn end_of_value(reader: &mut Reader<'_>, node: &Node, is_list: bool) -> Result<(), String> {
    if is_list {
        reader.name_items(node.get("kind").text(), node.get("apiVersion").text());
        let more = node.at(&["metadata", "continue"]).text();
        reader.more = (!more.is_empty()).then(|| more.to_owned());
        return Ok(());
    }
    read(reader, node)
}

/// One object.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node) -> Result<(), String> {
    if node.is_nothing() {
        return Ok(());
    }
    let kind = node.get("kind").text();
    if kind.ends_with("List") && !node.get("items").items().is_empty() {
        return node.get("items").items().iter().try_for_each(|item| read(reader, item));
    }
    reader.images.objects += 1;
    if is_rule(kind, node.get("apiVersion").text()) {
        reader.note_rules();
        return Ok(());
    }
    let metadata = node.get("metadata");
    let owners = metadata.get("ownerReferences").items();
    let owner = owners.first().map(|o| format!("{}/{}", o.get("kind").text(), o.get("name").text()));
    let superseded = kind == "ReplicaSet" && owner.is_some() && node.at(&["spec", "replicas"]).text() == "0";
    let copied = kind == "ClusterServiceVersion" && !metadata.at(&["labels", "olm.copiedFrom"]).is_nothing();
    if superseded || copied {
        // An old revision runs nowhere; a copy says in each namespace what the original says.
        return Ok(());
    }
    let number = if kind.is_empty() { reader.unknown_kind() } else { reader.images.symbol(kind) };
    let owner = owner.unwrap_or_default();
    let place = Place {
        namespace: metadata.get("namespace").text(),
        name: metadata.get("name").text(),
        owner: &owner,
        hook: metadata.at(&["annotations", "helm.sh/hook"]).text(),
        ..Place::default()
    };
    let mut object = Object { reader, kind: number, place, status: node.get("status") };
    object.of_kind(kind, node)?;
    object.walk(node)
}

struct Object<'r, 'i, 'n> {
    reader: &'r mut Reader<'i>,
    kind: u32,
    place: Place<'n>,
    status: &'n Node,
}

impl<'n> Object<'_, '_, 'n> {
    fn add(&mut self, image: &'n str, role: Role, container: &'n str) -> Result<Option<u32>, String> {
        if image.trim().is_empty() {
            // A deployment whose image is still to be filled in by a trigger.
            return Ok(None);
        }
        let place = Place { container, ..self.place };
        self.reader.images.add(image, role, self.kind, self.reader.source, place).map(Some)
    }

    /// Images outside containers, in kinds that are known to have them.
    fn of_kind(&mut self, kind: &str, node: &'n Node) -> Result<(), String> {
        match kind {
            "CatalogSource" => self.add(node.at(&["spec", "image"]).text(), Role::Catalog, "")?,
            "ClusterCatalog" => self.add(node.at(&["spec", "source", "image", "ref"]).text(), Role::Catalog, "")?,
            "ClusterVersion" => self.add(node.at(&["status", "desired", "image"]).text(), Role::Release, "")?,
            "ControllerConfig" => {
                for key in ["releaseImage", "baseOSContainerImage"] {
                    self.add(node.at(&["spec", key]).text(), Role::Release, key)?;
                }
                for (name, image) in node.at(&["spec", "images"]).entries() {
                    self.add(image.text(), Role::Release, name)?;
                }
                None
            }
            "Node" if self.reader.nodes => {
                for name in node.at(&["status", "images"]).items().iter().flat_map(|i| i.get("names").items()) {
                    self.add(name.text(), Role::Node, "")?;
                }
                None
            }
            _ => None,
        };
        Ok(())
    }

    /// Whatever is a list of containers, or of related images, anywhere in the object.
    fn walk(&mut self, node: &'n Node) -> Result<(), String> {
        match node {
            Node::List(items) => items.iter().try_for_each(|item| self.walk(item)),
            Node::Map(entries) => {
                self.pod(node)?;
                for related in node.get("relatedImages").items() {
                    self.add(related.get("image").text(), Role::Related, related.get("name").text())?;
                }
                let deeper = entries.iter().filter(|(key, _)| {
                    !matches!(&**key, "relatedImages" | "metadata") && !CONTAINERS.iter().any(|(k, ..)| *k == &**key)
                });
                for (key, value) in deeper {
                    // The metadata of a template tells when Helm runs it only for the object itself; a status repeats the specification.
                    if key.as_ref() != "status" {
                        self.walk(value)?;
                    }
                }
                Ok(())
            }
            Node::Text(_) | Node::Nothing => Ok(()),
        }
    }

    /// The containers and volumes of a mapping that is the specification of a pod.
    fn pod(&mut self, node: &'n Node) -> Result<(), String> {
        if CONTAINERS.iter().all(|(key, ..)| node.get(key).items().is_empty()) {
            return Ok(());
        }
        let mut secrets = node.get("imagePullSecrets").items().iter().map(|s| s.get("name").text());
        // The platform makes such secrets for its own registry, for every service account.
        self.place.secret = secrets.find(|name| !name.contains("-dockercfg-")).unwrap_or_default();
        for (key, states, role) in CONTAINERS {
            for container in node.get(key).items() {
                let name = container.get("name").text();
                let Some(image) = self.add(container.get("image").text(), role, name)? else { continue };
                let state = self.status.get(states).items().iter().find(|s| s.get("name").text() == name);
                if let Some((repository, digest)) = state.and_then(|s| running(s.get("imageID").text())) {
                    self.reader.images.runs(image, repository, digest);
                }
            }
        }
        for volume in node.get("volumes").items() {
            self.add(volume.at(&["image", "reference"]).text(), Role::Volume, volume.get("name").text())?;
        }
        self.place.secret = "";
        Ok(())
    }
}

/// Repository and digest of an `imageID`; a bare ID says nothing about a registry.
fn running(image_id: &str) -> Option<(&str, Digest)> {
    let image_id = image_id.split_once("://").map_or(image_id, |(_, rest)| rest);
    let (repository, digest) = image_id.split_once('@')?;
    Some((repository, digest.parse().ok()?))
}
