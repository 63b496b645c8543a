//! Names of Docker Hub, in its several spellings: MR014 to MR017.

use super::Lint;
use crate::convert::icsp::requote;
use crate::edit::{Edit, is_written_plainly};
use crate::objects::Origin;
use crate::scope::{host, path};

/// Hosts of Docker Hub that rules do not take for `docker.io`.
pub(super) const HUB_ALIASES: [&str; 2] = ["registry-1.docker.io", "registry.hub.docker.com"];

/// Official images that people name without `library/`.
const OFFICIAL: [&str; 74] = [
    "adminer",
    "alpine",
    "almalinux",
    "amazonlinux",
    "bash",
    "buildpack-deps",
    "busybox",
    "caddy",
    "cassandra",
    "centos",
    "clojure",
    "composer",
    "consul",
    "couchbase",
    "couchdb",
    "debian",
    "docker",
    "eclipse-mosquitto",
    "eclipse-temurin",
    "elasticsearch",
    "elixir",
    "erlang",
    "fedora",
    "flink",
    "fluentd",
    "gcc",
    "ghost",
    "golang",
    "gradle",
    "groovy",
    "haproxy",
    "haskell",
    "hello-world",
    "httpd",
    "influxdb",
    "java",
    "jenkins",
    "jetty",
    "joomla",
    "julia",
    "kibana",
    "kong",
    "logstash",
    "mariadb",
    "maven",
    "memcached",
    "mongo",
    "mongo-express",
    "mysql",
    "nats",
    "neo4j",
    "nextcloud",
    "nginx",
    "node",
    "openjdk",
    "oraclelinux",
    "percona",
    "perl",
    "photon",
    "php",
    "postgres",
    "python",
    "rabbitmq",
    "redis",
    "registry",
    "rockylinux",
    "ruby",
    "rust",
    "solr",
    "sonarqube",
    "tomcat",
    "traefik",
    "ubuntu",
    "wordpress",
];

pub(super) fn check(lint: &mut Lint<'_>) {
    let objects = lint.objects;
    for (origin, set, entry) in objects.entries() {
        let source = entry.source.value.as_str();
        let (host, path) = (host(source), path(source));
        let official = OFFICIAL.contains(&path);
        if host == "index.docker.io" {
            index(lint, origin);
        } else if host == "docker.io" && official {
            let message = format!("`{source}` does not cover the official image `docker.io/library/{path}`");
            let help = format!("write `docker.io/library/{path}`, and its mirror with it");
            lint.at("MR014", origin, None, message).help(help);
        } else if HUB_ALIASES.contains(&host) {
            if official {
                let message = format!("no reference to the official image {path} reads `{source}`");
                lint.at("MR017", origin, None, message).help(format!("write `docker.io/library/{path}`"));
            }
            let twin = if path.is_empty() { "docker.io".to_owned() } else { format!("docker.io/{path}") };
            let kind = set.kind.pull();
            let has_twin = objects.entries().any(|(_, s, e)| s.kind.pull() == kind && e.source.value == twin);
            if !has_twin && !official {
                let message = format!("`{source}` does not cover references to `{twin}`, nor short names");
                lint.at("MR015", origin, None, message).help(format!("add the same entry for `{twin}`"));
            }
        }
    }
}

fn index(lint: &mut Lint<'_>, origin: Origin) {
    let objects = lint.objects;
    let file = objects.sets[origin.set].file;
    let text = &objects.entry(origin).source;
    let better = text.value.replacen("index.docker.io", "docker.io", 1);
    let (whole, range) = (&objects.files[file].text, text.mark.range());
    let finding = lint.at("MR016", origin, None, format!("`{}` never matches", text.value));
    finding.help(format!("write `{better}`"));
    if is_written_plainly(whole, &range, &text.value) {
        finding.edit(file, Edit::replace(range.clone(), requote(&whole[range], &better)));
    }
}

/// The source with Docker Hub's other names replaced, for telling whether two sources mean the same content.
pub(super) fn canonical(source: &str) -> String {
    let name = host(source);
    if name == "index.docker.io" || HUB_ALIASES.contains(&name) {
        return source.replacen(name, "docker.io", 1);
    }
    source.to_owned()
}
