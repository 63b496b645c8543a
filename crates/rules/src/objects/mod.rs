//! The objects of a cluster that decide where images are pulled from, each with its place.
//!
//! Input: texts with names. Output: [`Objects`], which keeps the texts so that findings can show lines and fixes can change
//! them. [`Objects::load`] refuses what the API server would refuse; [`Objects::read`] goes on and tells.

mod read;

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

pub use read::Others;

use crate::yaml::Mark;

/// One file as it was given.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// As the caller named it; `-` for standard input.
    pub name: Arc<str>,
    /// Its whole text.
    pub text: Arc<str>,
}

/// The three kinds of mirror sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// ImageDigestMirrorSet.
    Idms,
    /// ImageTagMirrorSet.
    Itms,
    /// ImageContentSourcePolicy, deprecated since OpenShift 4.13.
    Icsp,
}

/// What a pull names: a digest (with or without a tag) or only a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Pull {
    /// `@sha256:…`.
    Digest,
    /// `:tag`, or neither.
    Tag,
}

/// `mirrorSourcePolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Policy {
    /// The source is tried after the mirrors. What holds where nothing is written.
    #[default]
    AllowContactingSource,
    /// The source is never tried.
    NeverContactSource,
}

/// A text with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// As it reads.
    pub value: String,
    /// Where it stands.
    pub mark: Mark,
}

/// One item of the list of a mirror set.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What pulls must name.
    pub source: Text,
    /// Where they go instead, as written.
    pub mirrors: Vec<Text>,
    /// Whether the source may be contacted.
    pub policy: Policy,
    /// Where the policy is written, if it is.
    pub policy_mark: Option<Mark>,
    /// Where the entry begins.
    pub mark: Mark,
    /// The bytes from its first key to the end of its last value.
    pub bytes: (usize, usize),
}

/// One IDMS, ITMS or ICSP.
#[derive(Clone, Debug)]
pub struct MirrorSet {
    /// Which of the three.
    pub kind: Kind,
    /// `metadata.name`.
    pub name: Text,
    /// Position in [`Objects::files`].
    pub file: usize,
    /// Position of the document in its file, counted from 0.
    pub document: usize,
    /// Where the object stands in its document: empty, or `items[3]` within a `List`.
    pub path: String,
    /// Where the object begins.
    pub mark: Mark,
    /// In the order of the file.
    pub entries: Vec<Entry>,
    /// Metadata that belongs to a cluster that the object was read from: name of the field, its place, its bytes.
    pub server_side: Vec<(String, Mark, (usize, usize))>,
    /// Labels, in the order of the file.
    pub labels: Vec<(String, String)>,
    /// Annotations, without `last-applied-configuration`, in the order of the file.
    pub annotations: Vec<(String, String)>,
}

/// `image.config.openshift.io/cluster`.
#[derive(Clone, Debug, Default)]
pub struct ImageConfig {
    /// Position in [`Objects::files`].
    pub file: usize,
    /// Where the object begins.
    pub mark: Mark,
    /// `spec.registrySources.insecureRegistries`.
    pub insecure: Vec<Text>,
    /// `spec.registrySources.blockedRegistries`.
    pub blocked: Vec<Text>,
    /// `spec.registrySources.allowedRegistries`.
    pub allowed: Vec<Text>,
    /// `spec.registrySources.containerRuntimeSearchRegistries`.
    pub search: Vec<Text>,
    /// `spec.additionalTrustedCA.name`.
    pub trusted_ca: Option<Text>,
}

/// An object that is not a mirror set: read only where the caller wants such.
#[derive(Clone, Debug)]
pub struct Other {
    /// Its `kind`.
    pub kind: String,
    /// `metadata.name`.
    pub name: String,
    /// Position in [`Objects::files`].
    pub file: usize,
    /// The whole object.
    pub node: crate::yaml::Node,
}

/// Everything that a set of files says.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// The files.
    pub files: Vec<SourceFile>,
    /// The mirror sets, in the order of the files.
    pub sets: Vec<MirrorSet>,
    /// The cluster's image configuration, if one is among them.
    pub image: Option<ImageConfig>,
    /// The rest; empty unless [`Others::Keep`] was asked for.
    pub others: Vec<Other>,
}

/// Where something came from: an entry of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// Position in [`Objects::sets`].
    pub set: usize,
    /// Position in [`MirrorSet::entries`].
    pub entry: usize,
}

/// An origin for people and for `-o json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// `ImageDigestMirrorSet/name`.
    pub object: String,
    /// Position in the object's list, counted from 0.
    pub index: usize,
    /// The file.
    pub file: String,
    /// The line of the entry.
    pub line: u32,
    /// The entry's source.
    pub source: String,
}

impl Kind {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Idms, Self::Itms, Self::Icsp];

    /// `kind`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idms => "ImageDigestMirrorSet",
            Self::Itms => "ImageTagMirrorSet",
            Self::Icsp => "ImageContentSourcePolicy",
        }
    }

    /// The three or four letters that people use.
    pub fn short(self) -> &'static str {
        match self {
            Self::Idms => "IDMS",
            Self::Itms => "ITMS",
            Self::Icsp => "ICSP",
        }
    }

    /// `apiVersion`.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::Idms | Self::Itms => "config.openshift.io/v1",
            Self::Icsp => "operator.openshift.io/v1alpha1",
        }
    }

    /// The list below `spec`.
    pub fn list(self) -> &'static str {
        match self {
            Self::Idms => "imageDigestMirrors",
            Self::Itms => "imageTagMirrors",
            Self::Icsp => "repositoryDigestMirrors",
        }
    }

    /// Which pulls its mirrors serve.
    pub fn pull(self) -> Pull {
        match self {
            Self::Idms | Self::Icsp => Pull::Digest,
            Self::Itms => Pull::Tag,
        }
    }
}

impl Pull {
    /// As in registries.conf.
    pub fn pull_from_mirror(self) -> &'static str {
        match self {
            Self::Digest => "digest-only",
            Self::Tag => "tag-only",
        }
    }

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Digest => Self::Tag,
            Self::Tag => Self::Digest,
        }
    }

    /// `digest` or `tag`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Digest => "digest",
            Self::Tag => "tag",
        }
    }
}

impl Policy {
    /// As written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AllowContactingSource => "AllowContactingSource",
            Self::NeverContactSource => "NeverContactSource",
        }
    }
}

impl Entry {
    /// Whether any mirror differs from the source. An entry without one has no effect at all, its policy included.
    pub fn has_real_mirror(&self) -> bool {
        self.mirrors.iter().any(|mirror| mirror.value != self.source.value)
    }
}

impl MirrorSet {
    /// `ImageDigestMirrorSet/name`.
    pub fn title(&self) -> String {
        format!("{}/{}", self.kind.as_str(), self.name.value)
    }

    /// The path of an entry in its document, such as `spec.imageDigestMirrors[2]`.
    pub fn entry_path(&self, entry: usize) -> String {
        let dot = if self.path.is_empty() { "" } else { "." };
        format!("{}{dot}spec.{}[{entry}]", self.path, self.kind.list())
    }
}

impl Objects {
    /// All entries with their origins, in the order of the files.
    pub fn entries(&self) -> impl Iterator<Item = (Origin, &MirrorSet, &Entry)> {
        self.sets.iter().enumerate().flat_map(|(at, set)| {
            set.entries.iter().enumerate().map(move |(entry, e)| (Origin { set: at, entry }, set, e))
        })
    }

    /// The entry an origin means.
    pub fn entry(&self, origin: Origin) -> &Entry {
        &self.sets[origin.set].entries[origin.entry]
    }

    /// An origin for people.
    pub fn place(&self, origin: Origin) -> Place {
        let set = &self.sets[origin.set];
        let entry = self.entry(origin);
        Place {
            object: set.title(),
            index: origin.entry,
            file: self.files[set.file].name.to_string(),
            line: entry.mark.line,
            source: entry.source.value.clone(),
        }
    }

    /// Adds what other files say. A second image configuration replaces the first.
    pub fn join(&mut self, mut other: Self) {
        let shift = self.files.len();
        self.files.append(&mut other.files);
        for set in &mut other.sets {
            set.file += shift;
        }
        for kept in &mut other.others {
            kept.file += shift;
        }
        if let Some(mut image) = other.image {
            image.file += shift;
            self.image = Some(image);
        }
        self.sets.append(&mut other.sets);
        self.others.append(&mut other.others);
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} entry {} ({}:{})", self.object, self.index, self.file, self.line)
    }
}
