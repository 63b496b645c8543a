//! What a node really has: its registries.conf with drop-ins, its certificates, its pull secret, against the rules that it is
//! meant to follow (R-040, R-260; mirror-rules 5.3, 5.4).
//!
//! Input: the [`Files`] of a node, read by the caller from a dump such as the `/host` of `oc debug node/…`. Output: [`Report`].

use std::collections::{BTreeMap, BTreeSet};

use airlock_oci::registries_conf::{Config, Table};
use serde::Serialize;

use crate::audit::Rules;
use crate::problem::{Problem, Problems, Severity};
use crate::pull_secret::PullSecret;
use crate::scope;

/// The main file, from the root of the node.
pub const REGISTRIES_CONF: &str = "etc/containers/registries.conf";
/// The folder of drop-ins.
pub const DROPINS: &str = "etc/containers/registries.conf.d";
/// What kubelet and CRI-O log in with.
pub const PULL_SECRET: &str = "var/lib/kubelet/config.json";
/// Folders with one folder a host; the first that has one for a host counts alone.
pub const CERTS_D: [&str; 3] = ["root/.config/containers/certs.d", "etc/containers/certs.d", "etc/docker/certs.d"];

/// What was found on a node.
#[derive(Clone, Default)]
pub struct Files {
    /// [`REGISTRIES_CONF`].
    pub conf: Option<String>,
    /// The files of [`DROPINS`]: name and text.
    pub dropins: Vec<(String, String)>,
    /// [`PULL_SECRET`].
    pub pull_secret: Option<String>,
    /// For each folder of a host: its position in [`CERTS_D`], the host, the names of the files in it.
    pub certificates: Vec<(usize, String, Vec<String>)>,
}

/// What is said of a node.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Where it was read from.
    pub root: String,
    /// What is there.
    pub items: Vec<Item>,
    /// The hosts of mirrors.
    pub mirrors: Vec<MirrorHost>,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

/// One of the three things that a node needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Item {
    /// `mirrors`, `drop-ins`, `certificates` or `credentials`.
    pub item: &'static str,
    /// Where it belongs.
    pub path: &'static str,
    /// It is there.
    pub present: bool,
    /// What it holds, in words.
    pub holds: String,
}

/// What the node has for a mirror.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MirrorHost {
    /// `host[:port]`.
    pub host: String,
    /// The key of the pull secret under which it logs in.
    pub credential: Option<String>,
    /// The folder with its certificates.
    pub certificates: Option<String>,
    /// It is spoken to without checking certificates.
    pub insecure: bool,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// A code of the catalogue (mirror-rules 7), of pull secrets, or of nodes (`ND…`).
    pub code: &'static str,
    /// How bad.
    pub severity: Severity,
    /// Which file or folder.
    pub path: String,
    /// What.
    pub message: String,
    /// What helps.
    pub hint: String,
}

/// The stable codes that only nodes have.
pub mod code {
    /// A file that every node must have is not there.
    pub const MISSING: &str = "ND001";
    /// A rule has not come to the node.
    pub const NOT_ROLLED_OUT: &str = "ND002";
    /// The node does something that no rule says.
    pub const NOT_IN_RULES: &str = "ND003";
    /// The node does something else than the rule says.
    pub const DIFFERENT: &str = "ND004";
    /// A folder of certificates without any hides one that has some.
    pub const HIDDEN: &str = "ND005";
    /// A client certificate without its key.
    pub const NO_KEY: &str = "ND006";
}

impl Report {
    /// Whether a pull on this node goes wrong.
    pub fn has_error(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }
}

/// Looks at a node. `rules`: what it is meant to follow, where that is known. The configuration that it really has comes back
/// too, where it can be loaded.
pub fn examine(root: &str, files: &Files, rules: Option<&Rules>) -> (Report, Option<Config>) {
    let mut node = Node { files, findings: Vec::new() };
    let config = node.config();
    if let (Some(config), Some(rules)) = (&config, rules) {
        node.compare(config, rules.config());
    }
    let secret = node.secret();
    let mirrors = config.as_ref().map(|config| node.mirrors(config, secret.as_ref())).unwrap_or_default();
    let items = node.items(config.as_ref(), secret.as_ref());
    let mut findings = node.findings;
    findings.sort_by(|a, b| (b.severity, &a.path, a.code).cmp(&(a.severity, &b.path, b.code)));
    (Report { root: root.to_owned(), items, mirrors, findings }, config)
}

struct Node<'f> {
    files: &'f Files,
    findings: Vec<Finding>,
}

impl Node<'_> {
    fn tell(&mut self, severity: Severity, code: &'static str, path: impl Into<String>, message: String, hint: &str) {
        self.findings.push(Finding { code, severity, path: path.into(), message, hint: hint.to_owned() });
    }

    /// Everything together, and what the drop-ins change in it.
    fn config(&mut self) -> Option<Config> {
        let main = self.files.conf.as_deref();
        if main.is_none() {
            let hint = "copy the folder /etc/containers of the node with everything in it";
            self.tell(
                Severity::Error,
                code::MISSING,
                REGISTRIES_CONF,
                "the node has no registries.conf".to_owned(),
                hint,
            );
        }
        let config = match Config::parse(main, &self.files.dropins) {
            Ok(config) => config,
            Err(error) => {
                let message = format!("it cannot be loaded, so that no image can be pulled on this node: {error}");
                self.tell(
                    Severity::Error,
                    "MR050",
                    DROPINS.trim_end_matches(".d"),
                    message,
                    "correct or remove the file",
                );
                return None;
            }
        };
        let managed = Config::parse(main, &[]).unwrap_or_default();
        for (name, text) in &self.files.dropins {
            let Ok(own) = Config::parse(None, &[(name.clone(), text.clone())]) else { continue };
            for table in own.registries() {
                let path = format!("{DROPINS}/{name}");
                if managed.registries().iter().any(|known| known.prefix == table.prefix) {
                    let message = format!(
                        "`{}` is replaced as a whole, mirrors included, whatever the cluster's rules say",
                        table.prefix
                    );
                    self.tell(
                        Severity::Warning,
                        "MR053",
                        path,
                        message,
                        "move it into IDMS or ITMS, and remove the drop-in",
                    );
                } else {
                    let message = format!("`{}` is set here, where no IDMS or ITMS shows it", table.prefix);
                    self.tell(
                        Severity::Information,
                        "MR053",
                        path,
                        message,
                        "the Machine Config Operator writes only registries.conf itself",
                    );
                }
            }
        }
        Some(config)
    }

    /// What the node does against what the rules say, prefix by prefix.
    fn compare(&mut self, node: &Config, rules: &Config) {
        let by_prefix = |config: &Config| -> BTreeMap<String, Table> {
            config.registries().iter().map(|table| (table.prefix.clone(), table.clone())).collect()
        };
        let (has, wanted) = (by_prefix(node), by_prefix(rules));
        for (prefix, table) in &wanted {
            match has.get(prefix) {
                None => {
                    let message = format!("the rule for `{prefix}` has not come to this node");
                    self.tell(Severity::Error, code::NOT_ROLLED_OUT, REGISTRIES_CONF, message, "look at the machine config pool, and at the log of the machine-config-controller: rules that it refuses leave no other trace");
                }
                Some(own) if own != table => {
                    let message = format!("`{prefix}`: {}", difference(own, table));
                    self.tell(
                        Severity::Error,
                        code::DIFFERENT,
                        REGISTRIES_CONF,
                        message,
                        "wait for the roll-out to end, or look for a file that overrides it",
                    );
                }
                Some(_) => {}
            }
        }
        for prefix in has.keys().filter(|prefix| !wanted.contains_key(*prefix)) {
            let message = format!("`{prefix}` is set on the node, and no rule says so");
            self.tell(
                Severity::Warning,
                code::NOT_IN_RULES,
                REGISTRIES_CONF,
                message,
                "it comes from a machine config, from a drop-in, or from a rule that is not among those given",
            );
        }
    }

    fn secret(&mut self) -> Option<PullSecret> {
        let Some(text) = &self.files.pull_secret else {
            let message = "the node has no credentials: mirrors are asked anonymously".to_owned();
            self.tell(
                Severity::Warning,
                code::MISSING,
                PULL_SECRET,
                message,
                "copy /var/lib/kubelet/config.json of the node",
            );
            return None;
        };
        match PullSecret::parse(PULL_SECRET, text) {
            Ok(secret) => {
                for problem in secret.check(None) {
                    self.adopt(problem);
                }
                Some(secret)
            }
            Err(Problems(problems)) => {
                for problem in problems {
                    self.adopt(problem);
                }
                None
            }
        }
    }

    fn adopt(&mut self, problem: Problem) {
        let path = format!("{}:{}:{}", problem.file, problem.line, problem.column);
        let hint = problem.hint.as_deref().unwrap_or_default().to_owned();
        self.tell(problem.severity, problem.code, path, problem.message.clone(), &hint);
    }

    fn mirrors(&mut self, config: &Config, secret: Option<&PullSecret>) -> Vec<MirrorHost> {
        let mut hosts: BTreeMap<&str, (BTreeSet<&str>, bool)> = BTreeMap::new();
        for mirror in config.registries().iter().flat_map(|table| &table.mirrors) {
            let entry = hosts.entry(scope::host(&mirror.location)).or_default();
            entry.0.insert(&mirror.location);
            entry.1 |= mirror.insecure;
        }
        let mut found = Vec::new();
        for (host, (locations, insecure)) in hosts {
            let missing = locations.iter().find(|location| secret.is_some_and(|s| s.key_for(location).is_none()));
            if let Some(location) = missing {
                let mut message = format!("there is no credential for the mirror `{location}`");
                if secret.is_some_and(|s| s.key_for(scope::host_name(host)).is_some()) {
                    message.push_str(": the key without port is that of another registry");
                }
                self.tell(Severity::Warning, "MR043", PULL_SECRET, message, "add it to the global pull secret, unless the mirror is open to everybody; secrets of projects are not used for mirrors");
            }
            let certificates = self.certificates(host, insecure);
            let credential = locations.first().and_then(|location| secret.and_then(|s| s.key_for(location)));
            found.push(MirrorHost { host: host.to_owned(), credential, certificates, insecure });
        }
        found
    }

    /// The folder that counts for a host.
    fn certificates(&mut self, host: &str, insecure: bool) -> Option<String> {
        let mut folders: Vec<_> = self.files.certificates.iter().filter(|(_, name, _)| name == host).collect();
        folders.sort_by_key(|(root, ..)| *root);
        let path = |root: usize| format!("{}/{host}", CERTS_D[root]);
        let has_authority = |files: &[String]| files.iter().any(|name| name.ends_with(".crt"));
        let first = folders.first().copied();
        if let Some((root, _, files)) = first {
            for cert in files.iter().filter_map(|name| name.strip_suffix(".cert")) {
                if !files.contains(&format!("{cert}.key")) {
                    let message = format!(
                        "`{cert}.cert` is a client certificate and has no `{cert}.key` beside it: every pull from `{host}` fails"
                    );
                    self.tell(
                        Severity::Error,
                        code::NO_KEY,
                        path(*root),
                        message,
                        "a certificate of an authority ends in `.crt`",
                    );
                }
            }
            if has_authority(files) {
                return Some(path(*root));
            }
            if let Some((hidden, ..)) = folders.iter().skip(1).find(|(_, _, files)| has_authority(files)) {
                let message = format!("it has no certificate, and hides `{}`, which has", path(*hidden));
                self.tell(
                    Severity::Error,
                    code::HIDDEN,
                    path(*root),
                    message,
                    "remove the empty folder: the first that exists counts alone",
                );
                return None;
            }
        }
        if !insecure {
            let mut message = format!("there is no certificate for the mirror `{host}`");
            if self.files.certificates.iter().any(|(_, name, _)| name == scope::host_name(host) && name != host) {
                message.push_str(": the folder without port serves only the default port");
            }
            let hint = "add a key to the ConfigMap of additionalTrustedCA (`airlock cluster ca`), unless the certificate is publicly trusted";
            self.tell(Severity::Warning, "MR044", CERTS_D[2], message, hint);
        }
        None
    }

    fn items(&self, config: Option<&Config>, secret: Option<&PullSecret>) -> Vec<Item> {
        let tables = config.map_or(0, |c| c.registries().len());
        let mirrors = config.map_or(0, |c| c.registries().iter().filter(|t| !t.mirrors.is_empty()).count());
        let with_authority =
            self.files.certificates.iter().filter(|(_, _, files)| files.iter().any(|f| f.ends_with(".crt")));
        let hosts: BTreeSet<&str> = with_authority.map(|(_, host, _)| host.as_str()).collect();
        let names: Vec<&str> = self.files.dropins.iter().map(|(name, _)| name.as_str()).collect();
        let registries: Vec<String> =
            secret.map(|s| s.listings().into_iter().map(|l| l.registry).collect()).unwrap_or_default();
        vec![
            Item {
                item: "mirrors",
                path: REGISTRIES_CONF,
                present: self.files.conf.is_some(),
                holds: format!("{tables} tables, {mirrors} with mirrors"),
            },
            Item { item: "drop-ins", path: DROPINS, present: !names.is_empty(), holds: names.join(", ") },
            Item {
                item: "certificates",
                path: CERTS_D[2],
                present: !hosts.is_empty(),
                holds: hosts.into_iter().collect::<Vec<_>>().join(", "),
            },
            Item {
                item: "credentials",
                path: PULL_SECRET,
                present: self.files.pull_secret.is_some(),
                holds: registries.join(", "),
            },
        ]
    }
}

/// The first difference between what a node has and what it should have.
fn difference(node: &Table, rule: &Table) -> String {
    let mirrors = |table: &Table| -> String {
        let names = table.mirrors.iter().map(|mirror| match mirror.pull_from_mirror.as_str() {
            "" => mirror.location.clone(),
            kind => format!("{} ({kind})", mirror.location),
        });
        let names: Vec<String> = names.collect();
        if names.is_empty() { "no mirror".to_owned() } else { names.join(", ") }
    };
    let word = |yes: bool, word: &str| if yes { word.to_owned() } else { format!("not {word}") };
    if node.mirrors != rule.mirrors {
        format!("the node has {}, the rules say {}", mirrors(node), mirrors(rule))
    } else if node.blocked != rule.blocked {
        format!(
            "on the node its source is {}, by the rules it is {}",
            word(node.blocked, "blocked"),
            word(rule.blocked, "blocked")
        )
    } else if node.insecure != rule.insecure {
        format!(
            "on the node it is {}, by the rules it is {}",
            word(node.insecure, "insecure"),
            word(rule.insecure, "insecure")
        )
    } else {
        "the node has it in another form than the rules".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::Objects;
    use crate::render::Base;

    const RULES: &str = "apiVersion: config.openshift.io/v1\nkind: ImageDigestMirrorSet\nmetadata: {name: a}\nspec:\n  imageDigestMirrors:\n  - {source: quay.io/acme, mirrors: ['m.lab:5000/acme']}\n";

    fn rules() -> Rules {
        let objects = Objects::load(&[("r.yaml".to_owned(), RULES.to_owned())]).unwrap();
        Rules::of(crate::resolve::Node::of_objects(objects, &Base::of_pools(), None).unwrap())
    }

    fn whole() -> Files {
        let objects = Objects::load(&[("r.yaml".to_owned(), RULES.to_owned())]).unwrap();
        let conf = crate::render::render(&objects, &Base::of_pools()).unwrap().mco();
        Files {
            conf: Some(conf),
            dropins: Vec::new(),
            pull_secret: Some(r#"{"auths":{"m.lab:5000":{"auth":"dTpodW50ZXIy"}}}"#.to_owned()),
            certificates: vec![(2, "m.lab:5000".to_owned(), vec!["ca.crt".to_owned()])],
        }
    }

    fn codes(files: &Files) -> Vec<&'static str> {
        examine("/host", files, Some(&rules())).0.findings.iter().map(|f| f.code).collect()
    }

    #[test]
    fn a_node_with_everything_has_no_findings() {
        let (report, config) = examine("/host", &whole(), Some(&rules()));
        assert!(report.findings.is_empty() && config.is_some(), "{report:?}");
        assert!(report.items.iter().all(|item| item.present || item.item == "drop-ins"));
        assert_eq!(report.mirrors[0].credential.as_deref(), Some("m.lab:5000"));
        assert_eq!(report.mirrors[0].certificates.as_deref(), Some("etc/docker/certs.d/m.lab:5000"));
        assert!(!serde_json::to_string(&report).unwrap().contains("dTpodW50ZXIy"));
    }

    #[test]
    fn each_thing_that_is_missing_is_told() {
        assert_eq!(codes(&Files::default()), [code::MISSING, code::NOT_ROLLED_OUT, code::MISSING]);
        let mut files = whole();
        files.pull_secret = Some(r#"{"auths":{"m.lab":{"auth":"dTpw"}}}"#.to_owned());
        files.certificates[0].1 = "m.lab".to_owned();
        let (report, _) = examine("/host", &files, Some(&rules()));
        assert_eq!(report.findings.iter().map(|f| f.code).collect::<Vec<_>>(), ["MR044", "MR043"]);
        assert!(report.findings.iter().all(|f| f.message.contains("without port")), "{report:?}");
        files.pull_secret = Some("{\"auths\":{\"m.lab\"{}}}".to_owned());
        assert!(codes(&files).contains(&crate::pull_secret::code::SYNTAX));
    }

    #[test]
    fn folders_that_hide_others_and_keys_that_lack_are_told() {
        let mut files = whole();
        files.certificates.push((1, "m.lab:5000".to_owned(), Vec::new()));
        assert_eq!(codes(&files), [code::HIDDEN]);
        files.certificates[1].2 = vec!["client.cert".to_owned(), "ca.crt".to_owned()];
        assert_eq!(codes(&files), [code::NO_KEY]);
    }

    #[test]
    fn what_differs_from_the_rules_is_told() {
        let mut files = whole();
        files.dropins.push(("99.conf".to_owned(), "[[registry]]\nlocation = \"quay.io/acme\"\n".to_owned()));
        assert_eq!(codes(&files), [code::DIFFERENT, "MR053"]);
        files.dropins[0].1 = "[[registry]]\nlocation = \"ghcr.io\"\nblocked = true\n".to_owned();
        assert_eq!(codes(&files), [code::NOT_IN_RULES, "MR053"]);
        files.dropins[0].1 = "[[registry]]\nlocation = 1\n".to_owned();
        assert_eq!(codes(&files), ["MR050"]);
        files.conf = files.conf.map(|c| c.replace("m.lab:5000/acme", "m.lab:5000/other"));
        files.dropins.clear();
        assert_eq!(codes(&files), [code::DIFFERENT]);
    }
}
