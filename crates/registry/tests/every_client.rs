//! Every client against every other: what one pushes all pull, what one lists all list, what one deletes is gone for all, and referrers
//! that one attaches or copies the other finds. Plain, over TLS with a password, and with tokens.
//!
//! podman deletes nothing at a registry; skopeo, podman and crane know no referrers.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test ends where it fails")]

mod support;

use std::fs;
use std::path::Path;

use airlock_oci::Digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use support::*;

/// A program that pushes and pulls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    Skopeo,
    Podman,
    Crane,
    Oras,
    Regctl,
}

const ALL: [Client; 5] = [Client::Skopeo, Client::Podman, Client::Crane, Client::Oras, Client::Regctl];

impl Client {
    fn name(self) -> &'static str {
        match self {
            Self::Skopeo => "skopeo",
            Self::Podman => "podman",
            Self::Crane => "crane",
            Self::Oras => "oras",
            Self::Regctl => "regctl",
        }
    }

    /// What it is told in front of everything else.
    fn first(self, desk: &Desk) -> Vec<String> {
        match self {
            Self::Skopeo => vec!["--insecure-policy".into()],
            Self::Podman => ["--root=store", "--runroot=run", "--storage-driver=vfs"].map(String::from).into(),
            Self::Regctl if desk.plain() => {
                vec!["--host".into(), format!("reg={},tls=disabled", desk.registry.addr)]
            }
            _ => Vec::new(),
        }
    }
}

/// A registry, and a folder with an image to push and credentials for it.
struct Desk {
    registry: Registry,
    work: tempfile::TempDir,
    face: Face,
}

impl Desk {
    /// `None`, with a printed line, where a client is absent.
    async fn new(face: Face) -> Option<Self> {
        for client in ALL {
            tool(client.name())?;
        }
        let (registry, work) = (Registry::on(face).await, tempfile::tempdir().unwrap());
        if face != Face::Plain {
            fs::write(work.path().join("ca.pem"), registry.ca_pem()).unwrap();
            let mut known = json!({});
            known[registry.addr.to_string()] = json!({ "auth": STANDARD.encode(format!("{}:{}", USER.0, USER.1)) });
            for name in ["auth.json", "config.json"] {
                fs::write(work.path().join(name), json!({ "auths": known }).to_string()).unwrap();
            }
        }
        Some(Self { registry, work, face })
    }

    fn plain(&self) -> bool {
        self.face == Face::Plain
    }

    fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.registry.addr)
    }

    fn folder(&self) -> &Path {
        self.work.path()
    }

    /// Runs a client; `plain` is what it needs to be told of a registry without TLS.
    async fn run(&self, client: Client, arguments: &[&str], plain: &[&str]) -> Result<String, String> {
        let first = client.first(self);
        let plain = if self.plain() { plain } else { &[] };
        let all: Vec<&str> =
            first.iter().map(String::as_str).chain(arguments.iter().copied()).chain(plain.iter().copied()).collect();
        run(&tool(client.name()).unwrap(), &all, self.folder()).await
    }

    /// Pushes the image of the layout `in`; its digest at the registry.
    async fn push(&self, client: Client, image: &str) -> Digest {
        let to = self.image(image);
        let done = match client {
            Client::Skopeo => {
                let to = format!("docker://{to}");
                self.run(client, &["copy", "--preserve-digests", "oci:in:v1", &to], &["--dest-tls-verify=false"]).await
            }
            Client::Podman => {
                let pulled = self.run(client, &["pull", "-q", "oci:in:v1"], &[]).await.unwrap();
                let id = pulled.lines().next_back().unwrap().trim().to_owned();
                self.run(client, &["push", "--format=oci", &id, &to], &["--tls-verify=false"]).await
            }
            Client::Crane => self.run(client, &["push", "in", &to], &["--insecure"]).await,
            Client::Oras => self.run(client, &["cp", "--from-oci-layout", "in:v1", &to], &["--to-plain-http"]).await,
            Client::Regctl => self.run(client, &["image", "copy", "ocidir://in:v1", &to], &[]).await,
        };
        done.unwrap();
        let (name, tag) = image.split_once(':').unwrap();
        let response = self.registry.get(&format!("/v2/{name}/manifests/{tag}")).await;
        assert_eq!(response.status(), 200, "{client:?} {image}");
        header(&response, "docker-content-digest").parse().unwrap()
    }

    /// Pulls an image to its last byte; the digest that the client found.
    async fn pull(&self, client: Client, image: &str) -> String {
        let from = self.image(image);
        // A place of its own for each image: nothing is there before.
        let place = format!("{}-{}", client.name(), image.replace(['/', ':'], "-"));
        let layout = format!("{place}:v1");
        match client {
            Client::Skopeo => {
                let (from, to) = (format!("docker://{from}"), format!("dir:{place}"));
                self.run(client, &["copy", "--all", &from, &to], &["--src-tls-verify=false"]).await.unwrap();
                Digest::of(&fs::read(self.folder().join(place).join("manifest.json")).unwrap()).to_string()
            }
            Client::Podman => {
                self.run(client, &["pull", "-q", &from], &["--tls-verify=false"]).await.unwrap();
                let digests = self.run(client, &["image", "inspect", "--format={{.RepoDigests}}", &from], &[]).await;
                let digests = digests.unwrap();
                let (name, _) = from.rsplit_once(':').unwrap();
                let (_, digest) = digests.split_once(&format!("{name}@")).unwrap();
                digest.split([' ', ']']).next().unwrap().to_owned()
            }
            Client::Crane => {
                self.run(client, &["pull", "--format=oci", &from, &place], &["--insecure"]).await.unwrap();
                self.run(client, &["digest", &from], &["--insecure"]).await.unwrap()
            }
            Client::Oras => {
                self.run(client, &["cp", "--to-oci-layout", &from, &layout], &["--from-plain-http"]).await.unwrap();
                self.run(client, &["resolve", "--oci-layout", &layout], &[]).await.unwrap()
            }
            Client::Regctl => {
                let to = format!("ocidir://{layout}");
                self.run(client, &["image", "copy", &from, &to], &[]).await.unwrap();
                self.run(client, &["image", "digest", &to], &[]).await.unwrap()
            }
        }
        .trim()
        .to_owned()
    }

    /// The tags that it lists.
    async fn tags(&self, client: Client, name: &str) -> Vec<String> {
        let name = self.image(name);
        let listed = match client {
            Client::Skopeo => {
                let name = format!("docker://{name}");
                let text = self.run(client, &["list-tags", &name], &["--tls-verify=false"]).await.unwrap();
                let value: Value = serde_json::from_str(&text).unwrap();
                return value["Tags"].as_array().unwrap().iter().map(|t| t.as_str().unwrap().to_owned()).collect();
            }
            Client::Podman => {
                // A table: a heading, then name and tag.
                let list = ["search", "--list-tags", &name];
                let text = self.run(client, &list, &["--tls-verify=false"]).await.unwrap();
                return text
                    .lines()
                    .skip(1)
                    .filter_map(|line| line.split_whitespace().nth(1))
                    .map(String::from)
                    .collect();
            }
            Client::Crane => self.run(client, &["ls", &name], &["--insecure"]).await,
            Client::Oras => self.run(client, &["repo", "tags", &name], &["--plain-http"]).await,
            Client::Regctl => self.run(client, &["tag", "ls", &name], &[]).await,
        };
        listed.unwrap().lines().map(|line| line.trim().to_owned()).collect()
    }

    /// Takes a tag away, or what it points at, as the client does. Whether other tags of the same image stay.
    async fn delete(&self, client: Client, image: &str) -> bool {
        let at = self.image(image);
        match client {
            Client::Skopeo => {
                let at = format!("docker://{at}");
                self.run(client, &["delete", &at], &["--tls-verify=false"]).await.unwrap();
                false
            }
            Client::Crane => {
                self.run(client, &["delete", &at], &["--insecure"]).await.unwrap();
                true
            }
            Client::Oras => {
                self.run(client, &["manifest", "delete", "--force", &at], &["--plain-http"]).await.unwrap();
                false
            }
            Client::Regctl => {
                self.run(client, &["tag", "delete", &at], &[]).await.unwrap();
                true
            }
            Client::Podman => unreachable!("it deletes nothing at a registry"),
        }
    }
}

macro_rules! by_everybody {
    ($($name:ident: $face:expr),* $(,)?) => { $(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            let Some(desk) = Desk::new($face).await else { return };
            images_go_from_everybody_to_everybody(&desk).await;
            referrers_go_along(&desk).await;
        }
    )* };
}

by_everybody! {
    plain: Face::Plain,
    over_tls_with_a_password: Face::TlsWithPassword,
    over_tls_with_tokens: Face::TlsWithTokens,
}

async fn images_go_from_everybody_to_everybody(desk: &Desk) {
    let digest = layout::image(&desk.folder().join("in"), 1).await;
    for pusher in ALL {
        let name = format!("by/{}", pusher.name());
        let image = format!("{name}:v1");
        let pushed = desk.push(pusher, &image).await;
        // podman builds the manifest anew, and may compress layers.
        assert!(pushed == digest || pusher == Client::Podman, "{pusher:?} altered the image");
        for puller in ALL {
            assert_eq!(desk.pull(puller, &image).await, pushed.to_string(), "{pusher:?} to {puller:?}");
        }
        desk.push(pusher, &format!("{name}:v2")).await;
        for lister in ALL {
            assert_eq!(desk.tags(lister, &name).await, ["v1", "v2"], "{lister:?} lists {pusher:?}'s");
        }
        for deleter in ALL.into_iter().filter(|client| *client != Client::Podman) {
            let others_stay = desk.delete(deleter, &format!("{name}:v2")).await;
            for (tag, stays) in [("v2", false), ("v1", others_stay)] {
                let status = desk.registry.get(&format!("/v2/{name}/manifests/{tag}")).await.status();
                assert_eq!(status == 200, stays, "{deleter:?} deleted {pusher:?}'s v2, and {tag} answers {status}");
                if !stays {
                    desk.push(pusher, &format!("{name}:{tag}")).await;
                }
            }
        }
    }
}

async fn referrers_go_along(desk: &Desk) {
    let (oras, regctl) = (Client::Oras, Client::Regctl);
    let image = desk.image("with/referrers:v1");
    desk.push(Client::Skopeo, "with/referrers:v1").await;
    for (file, content) in [("sbom.json", "what is inside"), ("note.txt", "what is thought of it")] {
        fs::write(desk.folder().join(file), content).unwrap();
    }
    let attach = ["attach", "--artifact-type=x/sbom", &image, "sbom.json:application/json"];
    desk.run(oras, &attach, &["--plain-http"]).await.unwrap();
    let put = ["artifact", "put", "--artifact-type=x/note", "--subject", &image, "--file=note.txt"];
    desk.run(regctl, &put, &[]).await.unwrap();
    let (by_oras, by_regctl) = (desk.image("by-oras/copy:v1"), desk.image("by-regctl/copy:v1"));
    let copy = ["cp", "--recursive", &image, &by_oras];
    desk.run(oras, &copy, &["--from-plain-http", "--to-plain-http"]).await.unwrap();
    desk.run(regctl, &["image", "copy", "--referrers", &image, &by_regctl], &[]).await.unwrap();
    for image in [&image, &by_oras, &by_regctl] {
        let found = desk.run(oras, &["discover", "--format=json", image], &["--plain-http"]).await.unwrap();
        let found: Value = serde_json::from_str(&found).unwrap();
        let mut types: Vec<&str> =
            found["manifests"].as_array().unwrap().iter().map(|m| m["artifactType"].as_str().unwrap()).collect();
        types.sort_unstable();
        assert_eq!(types, ["x/note", "x/sbom"], "{image}");
        let found = desk.run(regctl, &["artifact", "list", image], &[]).await.unwrap();
        assert!(found.contains("x/note") && found.contains("x/sbom"), "{found}");
        for (kind, content) in [("x/note", "what is thought of it"), ("x/sbom", "what is inside")] {
            let get = ["artifact", "get", "--filter-artifact-type", kind, "--subject", image];
            assert_eq!(desk.run(regctl, &get, &[]).await.unwrap().trim(), content, "{image}");
        }
    }
    // Nobody wrote a fallback tag: the registry says that it keeps track itself.
    for name in ["with/referrers", "by-oras/copy", "by-regctl/copy"] {
        assert_eq!(desk.tags(oras, name).await, ["v1"], "{name}");
    }
    // A referrer that is deleted is found no more.
    let found =
        desk.run(oras, &["discover", "--artifact-type=x/note", "--format=json", &by_oras], &["--plain-http"]).await;
    let found: Value = serde_json::from_str(&found.unwrap()).unwrap();
    let note = found["manifests"][0]["reference"].as_str().unwrap();
    desk.run(oras, &["manifest", "delete", "--force", note], &["--plain-http"]).await.unwrap();
    let found = desk.run(regctl, &["artifact", "list", &by_oras], &[]).await.unwrap();
    assert!(found.contains("x/sbom") && !found.contains("x/note"), "{found}");
}
