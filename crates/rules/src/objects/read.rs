//! Trees to objects, strictly: an unknown field is an error with its place, and reading goes on with the rest.

use std::sync::Arc;

use airlock_document::nearest;

use super::{Entry, ImageConfig, Kind, MirrorSet, Objects, Other, Policy, SourceFile, Text};
use crate::problem::{Problem, Problems, Severity, code};
use crate::yaml::{Key, Mark, Node, Value, read};

/// Most problems that are kept of one set of files.
const MAX_PROBLEMS: usize = 500;

/// `metadata` fields that only a cluster writes.
const SERVER_SIDE: [&str; 6] =
    ["uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "selfLink"];
/// The annotation in which `oc apply` keeps what it applied.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What to do with objects of other kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Others {
    /// They are errors: a file of rules holds rules.
    #[default]
    Refuse,
    /// They are passed over: a dump of a cluster holds everything.
    Ignore,
    /// They are kept in [`Objects::others`].
    Keep,
}

impl Objects {
    /// Reads files as (name, text); the first error of any of them refuses all.
    pub fn load(files: &[(String, String)]) -> Result<Self, Problems> {
        Self::load_with(files, Others::Refuse)
    }

    /// The same with a choice about other kinds.
    pub fn load_with(files: &[(String, String)], others: Others) -> Result<Self, Problems> {
        let (objects, problems) = Self::read(files, others);
        if problems.iter().any(|p| p.severity == Severity::Error) {
            return Err(Problems(problems));
        }
        Ok(objects)
    }

    /// Reads what can be read, and says what is wrong with the rest.
    pub fn read(files: &[(String, String)], others: Others) -> (Self, Vec<Problem>) {
        Self::read_each(files.iter().map(|(name, text)| (name.as_str(), text.as_str(), others)))
    }

    /// The same with a choice for each file, as (name, text, choice).
    pub fn read_each<'f>(files: impl IntoIterator<Item = (&'f str, &'f str, Others)>) -> (Self, Vec<Problem>) {
        let mut objects = Self::default();
        let mut problems = Vec::new();
        for (name, text, others) in files {
            let file = SourceFile { name: Arc::from(name), text: Arc::from(text) };
            let mut reader = Reader {
                name,
                text,
                file: objects.files.len(),
                document: 0,
                others,
                objects: &mut objects,
                problems: &mut problems,
            };
            reader.file();
            objects.files.push(file);
        }
        (objects, problems)
    }

    /// The problem that an object of another kind is.
    pub fn other_kind(&self, other: &Other) -> Problem {
        let file = &self.files[other.file];
        let mark = other.node.get("kind").map_or(other.node.mark, |kind| kind.mark);
        let message = format!("`{}` is not a kind of mirror rules", other.kind);
        let problem = Problem::at(code::KIND, &file.name, &file.text, mark, message);
        match other.meant() {
            Some(meant) => problem.hint(format!("did you mean `{meant}`?")),
            None => problem,
        }
    }
}

impl Other {
    /// The kind of mirror rules that was probably meant.
    pub fn meant(&self) -> Option<&'static str> {
        nearest(&self.kind, Kind::ALL.map(Kind::as_str))
    }
}

struct Reader<'a> {
    name: &'a str,
    text: &'a str,
    file: usize,
    document: usize,
    others: Others,
    objects: &'a mut Objects,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn error(&mut self, code: &'static str, mark: Mark, message: impl Into<String>) {
        self.push(code, mark, message, None);
    }

    fn push(&mut self, code: &'static str, mark: Mark, message: impl Into<String>, hint: Option<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            let problem = Problem::at(code, self.name, self.text, mark, message);
            self.problems.push(Problem { hint, ..problem });
        }
    }

    fn file(&mut self) {
        let (roots, faults) = read(self.text);
        for fault in &faults {
            self.error(fault.code, fault.mark, fault.message.clone());
        }
        if roots.is_empty() && faults.is_empty() && self.others == Others::Refuse {
            let problem = Problem::of_file(code::EMPTY, self.name, "the file holds no object");
            self.problems.push(problem);
        }
        for (at, root) in roots.into_iter().enumerate() {
            self.document = at;
            self.object(root, "");
        }
    }

    fn object(&mut self, node: Node, path: &str) {
        let Some(entries) = node.as_map() else {
            let message = format!("an object must be a mapping with `apiVersion` and `kind`, found {}", node.kind());
            return self.error(code::TYPE, node.mark, message);
        };
        let kind_text = node.get("kind").and_then(Node::as_text).unwrap_or_default().to_owned();
        let list = kind_text.ends_with("List");
        if list && node.get("items").is_some_and(|items| items.as_list().is_some() || items.is_null()) {
            self.check_fields(entries, &["apiVersion", "kind", "metadata", "items"], path);
            if let Value::Map(entries) = node.value {
                let items = entries.into_iter().find(|(k, _)| k.text == "items").map(|(_, n)| n.value);
                if let Some(Value::List(items)) = items {
                    for (at, mut item) in items.into_iter().enumerate() {
                        // Items of a typed list may go without a kind of their own.
                        fill_kind(&mut item, &kind_text);
                        self.object(item, &format!("items[{at}]"));
                    }
                }
            }
            return;
        }
        let kind = Kind::ALL.into_iter().find(|k| k.as_str() == kind_text);
        match (kind, kind_text.as_str()) {
            (Some(kind), _) => self.mirror_set(kind, &node, path),
            (None, "Image") if self.is_image_config(&node) => self.image_config(&node),
            (None, other) => {
                let other = other.to_owned();
                self.other(&other, node, path);
            }
        }
    }

    fn other(&mut self, kind: &str, node: Node, path: &str) {
        match self.others {
            Others::Ignore => {}
            Others::Keep if !kind.is_empty() => {
                let name = node.at(&["metadata", "name"]).and_then(Node::as_scalar).unwrap_or_default().to_owned();
                self.objects.others.push(Other { kind: kind.to_owned(), name, file: self.file, node });
            }
            Others::Refuse | Others::Keep => {
                let mark = node.get("kind").map_or(node.mark, |n| n.mark);
                let place = if path.is_empty() { String::new() } else { format!(" ({path})") };
                let message = match kind {
                    "" if node.get("kind").is_none() => format!("`kind` is missing{place}"),
                    "" => format!("`kind` must be a string{place}"),
                    kind => format!("`{kind}` is not a kind of mirror rules{place}"),
                };
                let known = [Kind::Idms.as_str(), Kind::Itms.as_str(), Kind::Icsp.as_str(), "Image"];
                let hint = match nearest(kind, known) {
                    Some(near) if !kind.is_empty() => format!("did you mean `{near}`?"),
                    _ => "expected ImageDigestMirrorSet, ImageTagMirrorSet, ImageContentSourcePolicy, \
                          Image (config.openshift.io/v1) or a List of them"
                        .to_owned(),
                };
                self.push(code::KIND, mark, message, Some(hint));
            }
        }
    }

    fn check_fields(&mut self, entries: &[(Key, Node)], known: &[&str], path: &str) {
        for (key, _) in entries {
            if known.contains(&key.text.as_str()) {
                continue;
            }
            let place = if path.is_empty() { "at the top".to_owned() } else { format!("in `{path}`") };
            let hint = match nearest(&key.text, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => {
                    let fields: Vec<String> = known.iter().map(|k| format!("`{k}`")).collect();
                    format!("the fields here are {}", fields.join(", "))
                }
            };
            self.push(code::UNKNOWN_FIELD, key.mark, format!("unknown field \"{}\" {place}", key.text), Some(hint));
        }
    }

    /// The entries of a mapping field; nothing where it is missing or empty.
    fn section<'n>(&mut self, node: &'n Node, field: &str, path: &str) -> &'n [(Key, Node)] {
        match node.get(field) {
            None => &[],
            Some(child) if child.is_null() => &[],
            Some(child) => child.as_map().unwrap_or_else(|| {
                self.error(code::TYPE, child.mark, format!("`{path}` must be a mapping, found {}", child.kind()));
                &[]
            }),
        }
    }

    fn list<'n>(&mut self, entries: &'n [(Key, Node)], field: &str, path: &str) -> &'n [Node] {
        match entries.iter().find(|(k, _)| k.text == field) {
            None => &[],
            Some((_, node)) if node.is_null() => &[],
            Some((_, node)) => node.as_list().unwrap_or_else(|| {
                let hint = node.as_text().map(|text| format!("write `- {text}` below `{field}:`"));
                let message = format!("`{path}.{field}` must be a list, found {}", node.kind());
                self.push(code::TYPE, node.mark, message, hint);
                &[]
            }),
        }
    }

    fn text(&mut self, node: &Node, path: &str) -> Option<Text> {
        if let Some(text) = node.as_text() {
            return Some(Text { value: text.to_owned(), mark: node.mark });
        }
        let hint = node.as_scalar().filter(|t| !t.is_empty()).map(|text| format!("quote it: \"{text}\""));
        self.push(code::TYPE, node.mark, format!("`{path}` must be a string, found {}", node.kind()), hint);
        None
    }

    fn texts(&mut self, entries: &[(Key, Node)], field: &str, path: &str) -> Vec<Text> {
        let items = self.list(entries, field, path);
        let mut texts = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            texts.extend(self.text(item, &format!("{path}.{field}[{at}]")));
        }
        texts
    }

    fn api_version(&mut self, node: &Node, kind: &str, expected: &str) {
        let field = node.get("apiVersion");
        match field.and_then(Node::as_text) {
            Some(found) if found == expected => {}
            Some(found) => {
                let message = format!("`{kind}` belongs to `{expected}`, found apiVersion `{found}`");
                let mark = field.map_or(node.mark, |n| n.mark);
                self.push(code::KIND, mark, message, Some(format!("write `apiVersion: {expected}`")));
            }
            None => {
                let message = format!("`apiVersion` of `{kind}` is missing");
                self.push(code::KIND, node.mark, message, Some(format!("write `apiVersion: {expected}`")));
            }
        }
    }

    fn mirror_set(&mut self, kind: Kind, node: &Node, path: &str) {
        self.api_version(node, kind.as_str(), kind.api_version());
        let at = |field: &str| if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") };
        self.check_fields(
            node.as_map().unwrap_or_default(),
            &["apiVersion", "kind", "metadata", "spec", "status"],
            path,
        );
        let mut set = MirrorSet {
            kind,
            name: Text { value: String::new(), mark: node.mark },
            file: self.file,
            document: self.document,
            path: path.to_owned(),
            mark: node.mark,
            entries: Vec::new(),
            server_side: Vec::new(),
            labels: Vec::new(),
            annotations: Vec::new(),
        };
        self.metadata(node, &at("metadata"), &mut set);
        let spec_path = at("spec");
        if node.get("spec").is_none() {
            self.error(code::MISSING, node.mark, format!("`{spec_path}` is missing"));
        }
        let spec = self.section(node, "spec", &spec_path);
        self.check_list_name(spec, kind, &spec_path);
        for (n, item) in self.list(spec, kind.list(), &spec_path).iter().enumerate() {
            let path = format!("{spec_path}.{}[{n}]", kind.list());
            set.entries.extend(self.entry(kind, item, &path));
        }
        self.objects.sets.push(set);
    }

    /// The list of another kind is the commonest slip of all: it is named, rather than called unknown.
    fn check_list_name(&mut self, spec: &[(Key, Node)], kind: Kind, path: &str) {
        for (key, _) in spec {
            if key.text == kind.list() {
                continue;
            }
            if let Some(other) = Kind::ALL.into_iter().find(|k| k.list() == key.text) {
                let message =
                    format!("unknown field \"{}\" in `{path}`: it is the list of {}", key.text, other.as_str());
                let hint = format!("write `{}` in {}, or change `kind`", kind.list(), kind.as_str());
                self.push(code::UNKNOWN_FIELD, key.mark, message, Some(hint));
            } else {
                let key = (key.clone(), Node { mark: key.mark, value: Value::List(Vec::new()) });
                self.check_fields(std::slice::from_ref(&key), &[kind.list()], path);
            }
        }
    }

    fn entry(&mut self, kind: Kind, item: &Node, path: &str) -> Option<Entry> {
        let Some(fields) = item.as_map() else {
            let message = format!("`{path}` must be a mapping with `source` and `mirrors`, found {}", item.kind());
            self.error(code::TYPE, item.mark, message);
            return None;
        };
        let known: &[&str] = match kind {
            Kind::Icsp => &["source", "mirrors"],
            Kind::Idms | Kind::Itms => &["source", "mirrors", "mirrorSourcePolicy"],
        };
        self.check_fields(fields, known, path);
        let mirrors = self.texts(fields, "mirrors", path);
        let (mut policy, mut policy_mark) = (Policy::default(), None);
        if let Some(node) = item.get("mirrorSourcePolicy").filter(|n| !n.is_null() && kind != Kind::Icsp) {
            policy_mark = Some(node.mark);
            match node.as_text() {
                Some("NeverContactSource") => policy = Policy::NeverContactSource,
                Some("AllowContactingSource") => {}
                found => {
                    let words = [Policy::AllowContactingSource.as_str(), Policy::NeverContactSource.as_str()];
                    let found = found.or(node.as_scalar()).unwrap_or_default();
                    let message =
                        format!("`{path}.mirrorSourcePolicy` is `{found}`: expected {} or {}", words[0], words[1]);
                    let hint = nearest(found, words).map(|near| format!("did you mean `{near}`?"));
                    self.push(code::VALUE, node.mark, message, hint);
                }
            }
        }
        let Some(source) = item.get("source") else {
            self.error(code::MISSING, item.mark, format!("`{path}.source` is missing"));
            return None;
        };
        let source = self.text(source, &format!("{path}.source"))?;
        let start = fields.iter().map(|(key, _)| key.mark.start).min().unwrap_or(item.mark.start);
        Some(Entry { source, mirrors, policy, policy_mark, mark: item.mark, bytes: (start, item.last_byte()) })
    }

    fn metadata(&mut self, node: &Node, path: &str, set: &mut MirrorSet) {
        const KNOWN: [&str; 14] = [
            "name",
            "labels",
            "annotations",
            "uid",
            "resourceVersion",
            "creationTimestamp",
            "generation",
            "managedFields",
            "selfLink",
            "namespace",
            "ownerReferences",
            "finalizers",
            "generateName",
            "deletionTimestamp",
        ];
        let metadata = self.section(node, "metadata", path);
        self.check_fields(metadata, &KNOWN, path);
        for (key, value) in metadata {
            match key.text.as_str() {
                "name" => {
                    if let Some(name) = self.text(value, &format!("{path}.name")) {
                        set.name = name;
                    }
                }
                "labels" => set.labels = self.words(value, &format!("{path}.labels")),
                "annotations" => {
                    set.annotations = self.words(value, &format!("{path}.annotations"));
                    set.annotations.retain(|(key, _)| key != LAST_APPLIED);
                    let applied = value.as_map().unwrap_or_default().iter().find(|(k, _)| k.text == LAST_APPLIED);
                    if let Some((key, value)) = applied {
                        let field = format!("annotations.{LAST_APPLIED}");
                        set.server_side.push((field, key.mark, (key.mark.start, value.last_byte())));
                    }
                }
                "namespace" => {
                    let message = format!("`{path}.namespace`: {} belongs to no namespace", set.kind.as_str());
                    let problem = Problem::at(code::NAMESPACE, self.name, self.text, key.mark, message).warning();
                    self.problems.push(problem.hint("remove it"));
                }
                field if SERVER_SIDE.contains(&field) && !value.is_null() => {
                    set.server_side.push((field.to_owned(), key.mark, (key.mark.start, value.last_byte())));
                }
                _ => {}
            }
        }
        if set.name.value.is_empty() && metadata.iter().all(|(k, _)| k.text != "generateName") {
            let mark = node.get("metadata").map_or(node.mark, |n| n.mark);
            self.error(code::MISSING, mark, format!("`{path}.name` is missing or empty"));
        }
    }

    fn words(&mut self, node: &Node, path: &str) -> Vec<(String, String)> {
        let mut words = Vec::new();
        match node.as_map() {
            None if node.is_null() => {}
            None => self.error(code::TYPE, node.mark, format!("`{path}` must be a mapping, found {}", node.kind())),
            Some(entries) => {
                for (key, value) in entries {
                    if let Some(text) = self.text(value, &format!("{path}.{}", key.text)) {
                        words.push((key.text.clone(), text.value));
                    }
                }
            }
        }
        words
    }

    /// `image.openshift.io/v1` has an `Image` too, which is an image of the internal registry.
    fn is_image_config(&self, node: &Node) -> bool {
        let version = node.get("apiVersion").and_then(Node::as_text).unwrap_or_default();
        self.others == Others::Refuse || version.starts_with("config.openshift.io/")
    }

    fn image_config(&mut self, node: &Node) {
        self.api_version(node, "Image", "config.openshift.io/v1");
        self.check_fields(node.as_map().unwrap_or_default(), &["apiVersion", "kind", "metadata", "spec", "status"], "");
        let spec = self.section(node, "spec", "spec");
        self.check_fields(
            spec,
            &[
                "registrySources",
                "additionalTrustedCA",
                "allowedRegistriesForImport",
                "externalRegistryHostnames",
                "imageStreamImportMode",
            ],
            "spec",
        );
        let mut image = ImageConfig { file: self.file, mark: node.mark, ..ImageConfig::default() };
        let spec_node = node.get("spec").cloned().unwrap_or(Node { mark: node.mark, value: Value::Map(Vec::new()) });
        let path = "spec.registrySources";
        let sources = self.section(&spec_node, "registrySources", path);
        let lists =
            ["insecureRegistries", "blockedRegistries", "allowedRegistries", "containerRuntimeSearchRegistries"];
        self.check_fields(sources, &lists, path);
        image.insecure = self.texts(sources, lists[0], path);
        image.blocked = self.texts(sources, lists[1], path);
        image.allowed = self.texts(sources, lists[2], path);
        image.search = self.texts(sources, lists[3], path);
        let ca = self.section(&spec_node, "additionalTrustedCA", "spec.additionalTrustedCA");
        self.check_fields(ca, &["name"], "spec.additionalTrustedCA");
        image.trusted_ca = ca
            .iter()
            .find(|(key, _)| key.text == "name")
            .and_then(|(_, name)| self.text(name, "spec.additionalTrustedCA.name"))
            .filter(|name| !name.value.is_empty());
        if self.objects.image.is_some() {
            self.error(code::VALUE, node.mark, "there is a second image configuration: a cluster has one");
        }
        self.objects.image = Some(image);
    }
}

fn fill_kind(item: &mut Node, list_kind: &str) {
    let Some(kind) = list_kind.strip_suffix("List").filter(|k| !k.is_empty()) else { return };
    let mark = item.mark;
    let Value::Map(entries) = &mut item.value else { return };
    if entries.iter().any(|(key, _)| key.text == "kind") {
        return;
    }
    let mut fill = |key: &str, text: &str| {
        let value = Value::Scalar { text: text.to_owned(), plain: false };
        entries.push((Key { mark, text: key.to_owned() }, Node { mark, value }));
    };
    fill("kind", kind);
    if let Some(known) = Kind::ALL.into_iter().find(|k| k.as_str() == kind) {
        fill("apiVersion", known.api_version());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Objects, Problems> {
        Objects::load(&[("a.yaml".to_owned(), text.to_owned())])
    }

    const IDMS: &str = "apiVersion: config.openshift.io/v1\nkind: ImageDigestMirrorSet\nmetadata:\n  name: a\nspec:\n  imageDigestMirrors:\n  # note\n  - source: quay.io/a\n    mirrors:\n    - m.lab/a\n    mirrorSourcePolicy: NeverContactSource\n";

    #[test]
    fn entries_know_their_places() {
        let objects = load(&format!("{IDMS}---\n{IDMS}")).expect("reads");
        assert_eq!(objects.sets.len(), 2);
        let (origin, set, entry) = objects.entries().nth(1).expect("second");
        assert_eq!((set.document, entry.mark.line, entry.mirrors[0].mark.line), (1, 20, 22));
        assert_eq!(objects.place(origin).to_string(), "ImageDigestMirrorSet/a entry 0 (a.yaml:20)");
        let text = &objects.files[0].text[entry.bytes.0..entry.bytes.1];
        assert!(text.starts_with("source: quay.io/a") && text.ends_with("NeverContactSource"), "{text}");
        assert_eq!(entry.policy, Policy::NeverContactSource);
    }

    #[test]
    fn lists_and_json_are_read() {
        let list = r#"{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"config.openshift.io/v1","kind":"ImageTagMirrorSet",
            "metadata":{"name":"t","uid":"1"},"spec":{"imageTagMirrors":[{"source":"quay.io","mirrors":["m.lab"]}]}}]}"#;
        let objects = load(list).expect("reads");
        assert_eq!(objects.sets[0].entry_path(0), "items[0].spec.imageTagMirrors[0]");
        assert_eq!(objects.sets[0].server_side[0].0, "uid");
        let typed = "apiVersion: config.openshift.io/v1\nkind: ImageTagMirrorSetList\nitems:\n- metadata: {name: t}\n  spec: {}\n";
        assert_eq!(load(typed).expect("reads").sets[0].kind, Kind::Itms);
    }

    #[test]
    fn what_the_api_refuses_is_an_error_with_its_line() {
        for (from, to, code, line) in [
            ("mirrors:", "mirror:", code::UNKNOWN_FIELD, 9),
            ("imageDigestMirrors", "repositoryDigestMirrors", code::UNKNOWN_FIELD, 6),
            ("NeverContactSource", "Never", code::VALUE, 11),
            ("  name: a", "  nam: a", code::UNKNOWN_FIELD, 4),
            ("source: quay.io/a", "sources: quay.io/a", code::UNKNOWN_FIELD, 8),
            ("source: quay.io/a", "source: 12", code::TYPE, 8),
            ("kind: ImageDigestMirrorSet", "kind: ImageDigestMirrorset", code::KIND, 2),
            ("config.openshift.io/v1", "operator.openshift.io/v1alpha1", code::KIND, 1),
            ("    - m.lab/a\n", "      m.lab/a\n", code::TYPE, 10),
            ("spec:", "spec: [", code::SYNTAX, 8),
        ] {
            let problems = load(&IDMS.replacen(from, to, 1)).expect_err(to).0;
            assert_eq!((problems[0].code, problems[0].line), (code, line), "{to}: {}", problems[0]);
        }
        assert_eq!(load("# nothing\n").expect_err("empty").0[0].code, code::EMPTY);
        assert_eq!(load("just words\n").expect_err("words").0[0].code, code::TYPE);
    }

    #[test]
    fn other_kinds_are_refused_ignored_or_kept() {
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n";
        let files = [("a.yaml".to_owned(), text.to_owned())];
        assert_eq!(Objects::load(&files).expect_err("refused").0[0].code, code::KIND);
        assert!(Objects::load_with(&files, Others::Ignore).expect("ignored").others.is_empty());
        assert_eq!(Objects::load_with(&files, Others::Keep).expect("kept").others[0].name, "p");
    }
}
