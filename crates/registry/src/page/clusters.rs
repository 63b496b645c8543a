//! `/clusters`: what a cluster must be told to pull from here, ready to be taken over.
//!
//! Mirror rules are derived from the releases and catalogs that were read: they name what their images are published as, and the digest
//! says in which repository here each lies. Images that nothing here speaks of get no rule; whoever mirrored them has their rules.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::sync::Arc;

use maud::{Markup, html};

use super::description::{Asked, Description, Needed, State};
use super::frame::{Page, snippet};
use super::inventory::{Entry, Facts, Snapshot};
use super::kind::Kind;
use super::overview::unfinished;
use super::repository::shown;
use super::words::count;
use super::{Scene, View};

/// Rules that are listed.
const MAX_RULES: usize = 1000;
/// Catalogs for which objects are listed.
const MAX_CATALOGS: usize = 20;
/// Where Red Hat publishes payloads; their components lie beside them.
const PAYLOADS: &str = "quay.io/openshift-release-dev/ocp-release";
/// What the repositories of its components begin with.
const PUBLISHER: &str = "quay.io/openshift-release-dev/";
/// The object that holds the CA.
const CA_NAME: &str = "mirror-registry-ca";
/// Most characters of an object's name (DNS-1035).
const MAX_OBJECT_NAME: usize = 63;

type Rules = BTreeMap<Arc<str>, BTreeSet<String>>;

impl Scene {
    pub(super) async fn clusters(self: &Arc<Self>) -> View {
        let snapshot = self.snapshot().await;
        let mut patience = true;
        for (name, digest) in self.undescribed_releases(&snapshot) {
            if let Some(content) = self.content(&name, &digest).await?
                && patience
            {
                // Small as releases are, they are waited for; not one after the other when something holds them up.
                let state = self.registry.site.descriptions.get(Asked::Release, &digest, content).await;
                patience = !matches!(state, State::Reading);
            }
        }
        self.draw(move |scene| Ok(scene.draw_clusters(&snapshot))).await
    }

    fn draw_clusters(&self, snapshot: &Snapshot) -> Page {
        let visible = self.visible(snapshot);
        let (rules, unread) = self.rules(&visible);
        let catalogs = self.catalog_objects(&visible);
        let main = html! {
            h1 { "Connect a cluster" }
            (unfinished(snapshot, visible.len()))
            p.lead { "What an OpenShift cluster must be told to pull from " code { (self.visit.host) } ". Four steps, each safe to repeat." }
            (self.trust())
            (self.secret())
            section {
                h2 { "3. Where images are" }
                @if rules.is_empty() {
                    p { "No rules can be told from what is here. Apply those that " code { "airlock mirror" } " wrote into " code { "working-dir/cluster-resources" } "." }
                } @else {
                    p {
                        "These rules cover the releases and catalogs in this registry ("
                        (count(rules.len(), "source", "sources")) "). For other images apply what " code { "airlock mirror" } " wrote into "
                        code { "working-dir/cluster-resources" } "."
                    }
                    (snippet("ImageDigestMirrorSet", &self.mirror_set(&rules)))
                    details {
                        summary { h3 { "For an installation: install-config.yaml" } }
                        (snippet("Lines of install-config.yaml", &self.install_config(&rules)))
                    }
                }
                @if unread > 0 {
                    p {
                        "Rules for the operators of " (count(unread, "catalog", "catalogs")) " are not among them: "
                        a href="/catalogs" { "open what you need under Operators" } " once, so that it is read, and come back."
                    }
                }
            }
            section {
                h2 { "4. Operator catalogs" }
                @if catalogs.is_empty() { p { "No catalog of operators is mirrored here." } } @else {
                    p { "The default sources do not work without the internet; switch them off, and add these." }
                    (snippet("A command that switches the default sources off",
                        "oc patch operatorhub cluster --type merge -p '{\"spec\":{\"disableAllDefaultSources\":true}}'"))
                    (snippet("CatalogSource objects", &catalogs))
                }
            }
        };
        Page { title: "Connect a cluster".to_owned(), main }
    }

    fn trust(&self) -> Markup {
        let host = &self.visit.host;
        html! {
            section {
                h2 { "1. Trust" }
                @if !self.registry.access.is_https_outside() {
                    p {
                        "This registry speaks plain HTTP. Clusters refuse that unless it is among the "
                        code { "insecureRegistries" } " of their image configuration; serve it with TLS instead."
                    }
                } @else if let Some(pem) = self.registry.site.authority() {
                    p { "The cluster must trust this registry's CA (" a href="/ca.crt" { "ca.crt" } "). If its image configuration names a ConfigMap already, add the key to that one." }
                    (snippet("ConfigMap with the CA", &config_map(host, &pem)))
                    (snippet("A command that makes the cluster use it", &format!(
                        "oc patch image.config.openshift.io/cluster --type merge \\\n  -p '{{\"spec\":{{\"additionalTrustedCA\":{{\"name\":\"{CA_NAME}\"}}}}}}'")))
                } @else {
                    p { "This registry has a certificate of your own. If the cluster does not trust its issuer yet, put the issuer's certificate into a ConfigMap:" }
                    (snippet("Commands", &format!(
                        "oc create configmap {CA_NAME} -n openshift-config --from-file={}=ca.crt\n\
                         oc patch image.config.openshift.io/cluster --type merge \\\n  \
                         -p '{{\"spec\":{{\"additionalTrustedCA\":{{\"name\":\"{CA_NAME}\"}}}}}}'", host.replace(':', ".."))))
                }
            }
        }
    }

    fn secret(&self) -> Markup {
        let host = &self.visit.host;
        html! {
            section {
                h2 { "2. Credentials" }
                @if self.registry.access.users.is_none() {
                    p { "This registry asks nobody for a password; the cluster's pull secret needs no entry for it." }
                } @else {
                    p { "Add a user who may pull to the cluster's pull secret. " code { "podman login" } " asks for the password." }
                    (snippet("Commands", &format!(
                        "oc extract secret/pull-secret -n openshift-config --to=- >pull-secret.json\n\
                         podman login --authfile pull-secret.json {host}\n\
                         oc set data secret/pull-secret -n openshift-config --from-file=.dockerconfigjson=pull-secret.json")))
                    details {
                        summary { h3 { "What the entry looks like" } }
                        (snippet("The entry of a pull secret",
                            &format!("{{\"auths\":{{\"{host}\":{{\"auth\":\"BASE64 OF user:password\"}}}}}}")))
                    }
                }
            }
        }
    }

    /// What releases and catalogs name, and where it is here; and how many catalogs were not read.
    fn rules(&self, visible: &[&Arc<Facts>]) -> (Rules, usize) {
        let mut places: HashMap<u64, &Facts> = HashMap::new();
        for facts in visible {
            for pin in facts.manifests() {
                places.entry(*pin).or_insert(facts);
            }
        }
        let mut rules = Rules::new();
        let mut unread = 0;
        let mut note = |needed: &Needed| {
            if let Some(facts) = places.get(&needed.pin.0)
                && (rules.len() < MAX_RULES || rules.contains_key(&needed.source))
            {
                rules.entry(Arc::clone(&needed.source)).or_default().insert(facts.name.to_string());
            }
        };
        let mut payloads = BTreeSet::new();
        for facts in visible {
            for entry in &facts.entries {
                match &entry.kind {
                    Kind::Release { .. } => {
                        let known = self.registry.site.descriptions.known(Asked::Release, &entry.digest);
                        let Some(Description::Release(release)) = known else { continue };
                        release.components.iter().for_each(|component| note(&component.needed));
                        if release.components.iter().any(|c| c.needed.source.starts_with(PUBLISHER)) {
                            payloads.insert(facts.name.to_string());
                        }
                    }
                    Kind::Catalog => match self.registry.site.descriptions.known(Asked::Catalog, &entry.digest) {
                        Some(Description::Catalog(catalog)) => {
                            let versions = catalog.packages.iter().flat_map(|package| &package.versions);
                            versions.flat_map(|version| &version.needs).for_each(&mut note);
                        }
                        _ => unread += 1,
                    },
                    _ => {}
                }
            }
        }
        if !payloads.is_empty() {
            rules.entry(PAYLOADS.into()).or_default().extend(payloads);
        }
        // What has its own name here needs no rule; and text that is no name makes none.
        rules.retain(|source, _| source.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/:".contains(&b)));
        (rules, unread)
    }

    fn mirror_set(&self, rules: &Rules) -> String {
        let mut text = "apiVersion: config.openshift.io/v1\nkind: ImageDigestMirrorSet\nmetadata:\n  name: airlock-mirror\nspec:\n  \
                        imageDigestMirrors:\n"
            .to_owned();
        self.list(rules, "  ", &mut text);
        text
    }

    fn install_config(&self, rules: &Rules) -> String {
        let mut text = "imageDigestSources:\n".to_owned();
        self.list(rules, "", &mut text);
        if let Some(pem) = self.registry.site.authority() {
            text.push_str("additionalTrustBundle: |\n");
            pem.lines().for_each(|line| text.push_str(&format!("  {line}\n")));
        }
        text
    }

    fn list(&self, rules: &Rules, indent: &str, text: &mut String) {
        for (source, repositories) in rules {
            let _ = write!(text, "{indent}- source: {source}\n{indent}  mirrors:\n");
            for repository in repositories {
                let _ = writeln!(text, "{indent}  - {}/{repository}", self.visit.host);
            }
        }
    }

    fn catalog_objects(&self, visible: &[&Arc<Facts>]) -> String {
        let mut objects = Vec::new();
        let mut names = BTreeSet::new();
        for facts in visible {
            let catalogs = || facts.entries.iter().filter(|entry| entry.kind == Kind::Catalog);
            let has_name = |entry: &Entry| entry.tags.first().is_some_and(|tag| shown(tag) == tag.as_str());
            // An archive carries a filtered catalog also as it was published, under its digest; clusters want the other one.
            let named = catalogs().any(has_name);
            for entry in catalogs().filter(|entry| !named || has_name(entry)) {
                let Some(tag) = entry.tags.first().filter(|_| objects.len() < MAX_CATALOGS) else { continue };
                let mut name = object_name(facts.name.as_str(), tag.as_str());
                while !names.insert(name.clone()) {
                    name.truncate(MAX_OBJECT_NAME - 4);
                    name = format!("{name}-{}", names.len());
                }
                let host = &self.visit.host;
                objects.push(format!(
                    "apiVersion: operators.coreos.com/v1alpha1\nkind: CatalogSource\nmetadata:\n  name: {name}\n  \
                     namespace: openshift-marketplace\nspec:\n  sourceType: grpc\n  image: {host}/{}:{tag}\n",
                    facts.name
                ));
            }
        }
        objects.join("---\n")
    }
}

/// The ConfigMap that the image configuration names: a colon cannot stand in a key.
fn config_map(host: &str, pem: &str) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {CA_NAME}\n  namespace: openshift-config\ndata:\n  {}: |\n",
        host.replace(':', "..")
    );
    for line in pem.lines() {
        let _ = writeln!(text, "    {line}");
    }
    text
}

/// A name for an object, of what a catalog is called: `cs-redhat-operator-index-v4-18`.
fn object_name(repository: &str, tag: &str) -> String {
    let last = repository.rsplit('/').next().unwrap_or(repository);
    let text = format!("cs-{last}-{tag}").to_lowercase();
    let mut name: String = text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    name.truncate(MAX_OBJECT_NAME);
    name.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_objects_are_names_of_objects() {
        assert_eq!(object_name("redhat/redhat-operator-index", "v4.18"), "cs-redhat-operator-index-v4-18");
        assert_eq!(object_name("A_b", "_x."), "cs-a-b--x");
        assert!(object_name(&"long".repeat(60), "v1").len() <= MAX_OBJECT_NAME);
    }

    #[test]
    fn the_key_of_a_ca_has_no_colon() {
        let text =
            config_map("mirror.example.com:8443", "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n");
        assert!(text.contains("\n  mirror.example.com..8443: |\n    -----BEGIN"), "{text}");
    }
}
