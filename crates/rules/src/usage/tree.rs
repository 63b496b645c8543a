//! One object, cut down to what may name an image or its user.
//!
//! A pod has hundreds of values of which a dozen matter. What is kept is decided by the keys alone, while reading, so that the
//! rest costs neither memory nor time. Unknown mappings are kept (a pod template may stand anywhere), unknown scalars are not.

/// Deepest nesting of what is kept; the pod template of a cron job is at 6, and a tree is walked by recursion.
pub(super) const MAX_DEPTH: usize = 64;

/// Most values that are kept of one object; a ClusterServiceVersion with 500 related images keeps 2,000.
pub(super) const MAX_NODES: usize = 200_000;

/// A value that was kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// Any scalar, as text.
    Text(Box<str>),
    List(Vec<Node>),
    Map(Vec<(Box<str>, Node)>),
    /// Not kept.
    Nothing,
}

/// What happens to the value of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// It is skipped, whatever it is.
    Skip,
    /// Mappings and lists are kept, a scalar is not.
    Shape,
    /// A scalar is kept too, and so are the scalars of a list or mapping that it is.
    All,
}

impl Keep {
    /// By the key.
    pub(super) fn of(key: &str) -> Self {
        match key {
            "apiVersion"
            | "kind"
            | "name"
            | "namespace"
            | "image"
            | "imageID"
            | "reference"
            | "continue"
            | "names"
            | "images"
            | "releaseImage"
            | "helm.sh/hook"
            | "olm.copiedFrom"
            | "replicas"
            | "ref"
            | "baseOSContainerImage" => Self::All,
            // Large, frequent, and never with an image to be pulled inside.
            "managedFields"
            | "data"
            | "binaryData"
            | "stringData"
            | "env"
            | "envFrom"
            | "args"
            | "command"
            | "ports"
            | "resources"
            | "volumeMounts"
            | "volumeDevices"
            | "livenessProbe"
            | "readinessProbe"
            | "startupProbe"
            | "securityContext"
            | "lifecycle"
            | "matchLabels"
            | "conditions"
            | "tolerations"
            | "affinity"
            | "nodeSelector"
            | "selector"
            | "openAPIV3Schema"
            | "podIPs"
            | "hostIPs"
            | "state"
            | "lastState"
            | "finalizers"
            | "topologySpreadConstraints"
            | "strategy"
            | "updateStrategy"
            | "capacity"
            | "allocatable"
            | "nodeInfo"
            | "icon"
            | "customresourcedefinitions"
            | "webhookdefinitions"
            | "volumesAttached"
            | "rules" => Self::Skip,
            _ => Self::Shape,
        }
    }

    /// For the values of a list or mapping that stands under the key.
    pub(super) fn scalars(self) -> bool {
        self == Self::All
    }
}

impl Node {
    /// The value of a key.
    pub(super) fn get(&self, key: &str) -> &Node {
        const NOTHING: &Node = &Node::Nothing;
        match self {
            Self::Map(entries) => entries.iter().find(|(k, _)| &**k == key).map_or(NOTHING, |(_, v)| v),
            _ => NOTHING,
        }
    }

    /// The value at the end of a path of keys.
    pub(super) fn at(&self, path: &[&str]) -> &Node {
        path.iter().fold(self, |node, key| node.get(key))
    }

    /// The scalar; empty where there is none.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            _ => "",
        }
    }

    /// The items of a list.
    pub(super) fn items(&self) -> &[Node] {
        match self {
            Self::List(items) => items,
            _ => &[],
        }
    }

    /// The entries of a mapping.
    pub(super) fn entries(&self) -> &[(Box<str>, Node)] {
        match self {
            Self::Map(entries) => entries,
            _ => &[],
        }
    }

    /// A copy, as long as fewer than [`MAX_NODES`] values were counted; beyond, nothing.
    pub(super) fn copy(&self, nodes: &mut usize) -> Node {
        *nodes += 1;
        if *nodes > MAX_NODES {
            return Self::Nothing;
        }
        match self {
            Self::Text(text) => Self::Text(text.clone()),
            Self::List(items) => Self::List(items.iter().map(|item| item.copy(nodes)).collect()),
            Self::Map(entries) => Self::Map(entries.iter().map(|(k, v)| (k.clone(), v.copy(nodes))).collect()),
            Self::Nothing => Self::Nothing,
        }
    }

    /// Without what holds nothing.
    pub(super) fn is_nothing(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::List(items) => items.is_empty(),
            Self::Map(entries) => entries.is_empty(),
            Self::Text(_) => false,
        }
    }
}
