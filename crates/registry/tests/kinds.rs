//! What a registry may be given, kind by kind, each through its whole life: pushed in every way that blobs are, listed, asked for, pulled
//! by tag and digest, found by its subject, and deleted piece by piece. This is what the conformance program for the version of the specification
//! after 1.1 asks for, with all that it has switches for switched on: its requests, done by ourselves where that program cannot be had.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

#[macro_use]
mod support;

use std::collections::BTreeSet;

use airlock_oci::{Algorithm, Digest};
use reqwest::{Method, Response};
use serde_json::{Map, Value, json};
use support::*;

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const FOREIGN: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";
const EXAMPLE: &str = "application/vnd.example.sbom";
/// The repository, and another that blobs are mounted from.
const HERE: &str = "kinds/one";
const THERE: &str = "kinds/two";
/// Of a blob that is pushed in three chunks.
const LARGE: usize = 3 * 1024 - 5;

on_every_face_and_long_storage!(
    blobs_of_each_algorithm_in_every_way,
    ranges_of_blobs_of_each_algorithm,
    wrong_digests_in_every_way,
    images,
    indexes,
    artifacts,
    what_refers_to_something,
    what_readers_do_not_know,
    what_is_not_whole,
    sha512_and_tags_beside_the_digest,
    what_is_not_there,
);

/// One kind of content: its parts in the order in which they are pushed.
struct Kind {
    name: &'static str,
    algorithm: Algorithm,
    blobs: Vec<(Digest, Vec<u8>)>,
    manifests: Vec<Pushed>,
}

#[derive(Clone)]
struct Pushed {
    media_type: &'static str,
    text: String,
    digest: Digest,
    tags: Vec<String>,
    /// The tags go into the query of a push by digest.
    with_tags: bool,
    subject: Option<Digest>,
    /// How it is listed among what refers to its subject.
    listed: Value,
}

impl Kind {
    fn new(name: &'static str) -> Self {
        Self { name, algorithm: Algorithm::Sha256, blobs: Vec::new(), manifests: Vec::new() }
    }

    fn of(name: &'static str, algorithm: Algorithm) -> Self {
        Self { algorithm, ..Self::new(name) }
    }

    fn descriptor(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Digest::of_with(self.algorithm, bytes).to_string();
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }

    fn blob(&mut self, media_type: &str, bytes: impl Into<Vec<u8>>) -> Value {
        let bytes = bytes.into();
        let descriptor = self.descriptor(media_type, &bytes);
        let digest: Digest = descriptor["digest"].as_str().unwrap().parse().unwrap();
        if self.blobs.iter().all(|(known, _)| *known != digest) {
            self.blobs.push((digest, bytes));
        }
        descriptor
    }

    /// A configuration and two layers, all of this kind's own.
    fn image_fields(&mut self, seed: &str) -> Value {
        let config =
            self.blob(CONFIG, format!(r#"{{"architecture":"amd64","os":"linux","seed":"{}{seed}"}}"#, self.name));
        let layers = [0, 1].map(|i| self.blob(LAYER, format!("layer {i} of {} {seed}", self.name)));
        json!({ "config": config, "layers": layers })
    }

    fn artifact_fields(&mut self, seed: &str) -> Value {
        let layer = self.blob(EXAMPLE, format!("content of {} {seed}", self.name));
        json!({ "artifactType": EXAMPLE, "config": self.blob(EMPTY, "{}"), "layers": [layer] })
    }

    /// Adds a manifest; its descriptor.
    fn manifest(&mut self, media_type: &'static str, fields: Value, tags: &[&str]) -> Value {
        let mut document =
            Map::from_iter([("schemaVersion".to_owned(), json!(2)), ("mediaType".to_owned(), json!(media_type))]);
        document.extend(fields.as_object().unwrap().clone());
        let text = serde_json::to_string_pretty(&document).unwrap();
        let descriptor = self.descriptor(media_type, text.as_bytes());
        let mut listed = descriptor.clone();
        let of_config = if media_type == OCI_MANIFEST { document["config"]["mediaType"].clone() } else { Value::Null };
        let artifact_type = document.get("artifactType").cloned().unwrap_or(of_config);
        if !artifact_type.is_null() {
            listed["artifactType"] = artifact_type;
        }
        if let Some(annotations) = document.get("annotations") {
            listed["annotations"] = annotations.clone();
        }
        self.manifests.push(Pushed {
            media_type,
            digest: descriptor["digest"].as_str().unwrap().parse().unwrap(),
            text,
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            with_tags: false,
            subject: document.get("subject").map(|subject| subject["digest"].as_str().unwrap().parse().unwrap()),
            listed,
        });
        descriptor
    }

    fn image(&mut self, seed: &str, tags: &[&str]) -> Value {
        let fields = self.image_fields(seed);
        self.manifest(OCI_MANIFEST, fields, tags)
    }

    /// An index of two images.
    fn index(&mut self, seed: &str, more: &Value, tags: &[&str]) -> Value {
        let mut children = Vec::new();
        for architecture in ["amd64", "arm64"] {
            let seed = format!("{seed} {architecture}");
            let is_artifact = more.get("artifactType").is_some();
            let fields = if is_artifact { self.artifact_fields(&seed) } else { self.image_fields(&seed) };
            let mut child = self.manifest(OCI_MANIFEST, fields, &[]);
            child["platform"] = json!({ "os": "linux", "architecture": architecture });
            children.push(child);
        }
        self.manifest(OCI_INDEX, with(json!({ "manifests": children }), more), tags)
    }

    /// Its whole life at a registry.
    async fn lives(&self, registry: &Registry) {
        for (i, (digest, bytes)) in self.blobs.iter().enumerate() {
            let response = Way::ALL[i % Way::ALL.len()].push(registry, HERE, digest, bytes).await;
            is_created(registry, &response, digest, bytes).await;
        }
        for manifest in &self.manifests {
            self.is_pushed(registry, manifest).await;
        }
        self.is_listed(registry).await;
        for manifest in &self.manifests {
            let digest = manifest.digest.to_string();
            for at in manifest.tags.iter().chain([&digest]) {
                is_pulled(
                    registry,
                    &format!("/v2/{HERE}/manifests/{at}"),
                    manifest.text.as_bytes(),
                    &manifest.digest,
                    manifest.media_type,
                )
                .await;
            }
        }
        for (digest, bytes) in &self.blobs {
            let path = format!("/v2/{HERE}/blobs/{digest}");
            is_pulled(registry, &path, bytes, digest, "application/octet-stream").await;
        }
        self.is_found_by_subject(registry).await;
        self.is_deleted(registry).await;
    }

    async fn is_pushed(&self, registry: &Registry, manifest: &Pushed) {
        let mut names = vec![manifest.digest.to_string()];
        if manifest.with_tags {
            names = vec![format!("{}?tag={}", manifest.digest, manifest.tags.join("&tag="))];
        } else {
            names.extend(manifest.tags.iter().cloned());
        }
        for at in names {
            let response = registry.put_manifest(HERE, &at, manifest.media_type, &manifest.text).await;
            assert_eq!(response.status(), 201, "{} {at}", self.name);
            assert_eq!(header(&response, "docker-content-digest"), manifest.digest.to_string());
            let subject = manifest.subject.as_ref().map(Digest::to_string).unwrap_or_default();
            assert_eq!(header(&response, "oci-subject"), subject, "{}", self.name);
            let set: Vec<_> = response.headers().get_all("oci-tag").iter().map(|v| v.to_str().unwrap()).collect();
            assert_eq!(set, if manifest.with_tags { &manifest.tags[..] } else { &[] }, "{}", self.name);
            let location = header(&response, "location");
            is_pulled(registry, &location, manifest.text.as_bytes(), &manifest.digest, manifest.media_type).await;
        }
    }

    async fn is_listed(&self, registry: &Registry) {
        let list = async |query: &str| -> BTreeSet<String> {
            let answer = json(registry.get(&format!("/v2/{HERE}/tags/list{query}")).await).await;
            answer["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned()).collect()
        };
        if self.manifests.is_empty() {
            return;
        }
        let all = list("").await;
        let own: BTreeSet<String> = self.manifests.iter().flat_map(|m| m.tags.clone()).collect();
        assert!(own.is_subset(&all), "{}: {all:?}", self.name);
        for last in &all {
            let after: BTreeSet<String> = all.iter().filter(|tag| *tag > last).cloned().collect();
            assert_eq!(list(&format!("?last={last}")).await, after, "{}", self.name);
        }
    }

    async fn is_found_by_subject(&self, registry: &Registry) {
        let subjects: BTreeSet<&Digest> = self.manifests.iter().filter_map(|m| m.subject.as_ref()).collect();
        for subject in subjects {
            let wanted: Vec<&Value> =
                self.manifests.iter().filter(|m| m.subject.as_ref() == Some(subject)).map(|m| &m.listed).collect();
            let path = format!("/v2/{HERE}/referrers/{subject}");
            same_entries(&referrers(registry, &path, "").await, &wanted);
            let types: BTreeSet<&str> = wanted.iter().filter_map(|entry| entry["artifactType"].as_str()).collect();
            for artifact_type in types {
                let some: Vec<&Value> =
                    wanted.iter().filter(|entry| entry["artifactType"] == artifact_type).copied().collect();
                let path = format!("{path}?artifactType={}", artifact_type.replace('+', "%2B"));
                same_entries(&referrers(registry, &path, "artifactType").await, &some);
            }
            let other = format!("{path}?artifactType=application/vnd.example.other");
            same_entries(&referrers(registry, &other, "artifactType").await, &[]);
        }
    }

    /// Tags first, then what names others, then blobs; each is gone at once.
    async fn is_deleted(&self, registry: &Registry) {
        let gone = async |path: String| {
            assert_eq!(registry.delete(&path).await, 202, "{} {path}", self.name);
            assert_eq!(registry.head(&path).await.status(), 404, "{} {path}", self.name);
        };
        for tag in self.manifests.iter().flat_map(|m| &m.tags) {
            gone(format!("/v2/{HERE}/manifests/{tag}")).await;
        }
        for manifest in self.manifests.iter().rev() {
            let path = format!("/v2/{HERE}/manifests/{}", manifest.digest);
            // Without its tags it was still there.
            assert_eq!(registry.head(&path).await.status(), 200, "{} {path}", self.name);
            gone(path).await;
        }
        for (digest, _) in &self.blobs {
            gone(format!("/v2/{HERE}/blobs/{digest}")).await;
        }
        for subject in self.manifests.iter().filter_map(|m| m.subject.as_ref()) {
            same_entries(&referrers(registry, &format!("/v2/{HERE}/referrers/{subject}"), "").await, &[]);
        }
    }
}

/// How a blob comes.
#[derive(Clone, Copy, Debug)]
enum Way {
    PostOnly,
    PostPut,
    Chunks { last_with_put: bool, out_of_order: bool },
    Stream,
}

impl Way {
    const ALL: [Self; 7] = [
        Self::PostOnly,
        Self::PostPut,
        Self::Stream,
        Self::Chunks { last_with_put: false, out_of_order: false },
        Self::Chunks { last_with_put: true, out_of_order: false },
        Self::Chunks { last_with_put: false, out_of_order: true },
        Self::Chunks { last_with_put: true, out_of_order: true },
    ];

    /// The answer to the last request. The algorithm of the digest is not announced, as clients do not.
    async fn push(self, registry: &Registry, name: &str, digest: &Digest, bytes: &[u8]) -> Response {
        let send = |request: reqwest::RequestBuilder, bytes: &[u8]| {
            request.header("content-type", "application/octet-stream").body(bytes.to_vec()).send()
        };
        if let Self::PostOnly = self {
            let path = format!("/v2/{name}/blobs/uploads/?digest={digest}");
            return send(registry.ask(Method::POST, &path), bytes).await.unwrap();
        }
        let mut location = registry.begin(name).await;
        let finish = async |location: &str, range: Option<String>, bytes: &[u8]| {
            let mut request = registry.ask(Method::PUT, &format!("{location}?digest={digest}"));
            if let Some(range) = range {
                request = request.header("content-range", range);
            }
            send(request, bytes).await.unwrap()
        };
        match self {
            Self::PostOnly => unreachable!("that was one request"),
            Self::PostPut => finish(&location, None, bytes).await,
            Self::Stream => {
                let pieces: Vec<Result<Vec<u8>, std::io::Error>> = bytes.chunks(100).map(|c| Ok(c.to_vec())).collect();
                let body = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
                let response = registry.ask(Method::PATCH, &location).body(body).send().await.unwrap();
                assert_eq!(response.status(), 202);
                finish(&header(&response, "location"), None, &[]).await
            }
            Self::Chunks { last_with_put, out_of_order } => {
                let step = (bytes.len() / 3 + 1).min(bytes.len().max(1));
                let mut at = 0;
                while at < bytes.len() {
                    let end = (at + step).min(bytes.len());
                    let is_put = last_with_put && end == bytes.len();
                    let chunk = async |at: usize, end: usize, is_put: bool, location: &str| {
                        let range = format!("{at}-{}", end - 1);
                        if is_put {
                            return finish(location, Some(range), &bytes[at..end]).await;
                        }
                        let request = registry.ask(Method::PATCH, location).header("content-range", range);
                        send(request, &bytes[at..end]).await.unwrap()
                    };
                    if out_of_order && bytes.len() > step {
                        // Ahead of its turn, or from the beginning once more.
                        let wrong = if end < bytes.len() { end } else { 0 };
                        let wrong_end = (wrong + step).min(bytes.len());
                        let response =
                            chunk(wrong, wrong_end, last_with_put && wrong_end == bytes.len(), &location).await;
                        assert_eq!(response.status(), 416, "{self:?} {at}");
                        // The client finds its way again, also with what is left of the last request's query.
                        let status = registry.get(&format!("{location}?digest={digest}")).await;
                        assert_eq!(status.status(), 204);
                        assert_eq!(header(&status, "range"), format!("0-{}", at.saturating_sub(1)));
                        location = header(&status, "location");
                    }
                    let response = chunk(at, end, is_put, &location).await;
                    if is_put {
                        return response;
                    }
                    assert_eq!(response.status(), 202, "{self:?} {at}");
                    location = header(&response, "location");
                    at = end;
                }
                finish(&location, None, &[]).await
            }
        }
    }
}

fn with(mut fields: Value, more: &Value) -> Value {
    fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    fields
}

/// The blob was taken: the answer says where it is, and it is there.
async fn is_created(registry: &Registry, response: &Response, digest: &Digest, bytes: &[u8]) {
    assert_eq!(response.status(), 201, "{digest}");
    assert_eq!(header(response, "docker-content-digest"), digest.to_string());
    is_pulled(registry, &header(response, "location"), bytes, digest, "application/octet-stream").await;
}

async fn is_pulled(registry: &Registry, path: &str, bytes: &[u8], digest: &Digest, media_type: &str) {
    for method in [Method::HEAD, Method::GET] {
        let request = registry.ask(method.clone(), path).header("accept", OCI_INDEX).header("accept", OCI_MANIFEST);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "{method} {path}");
        assert_eq!(header(&response, "content-length"), bytes.len().to_string(), "{method} {path}");
        assert_eq!(header(&response, "content-type"), media_type, "{method} {path}");
        assert_eq!(header(&response, "docker-content-digest"), digest.to_string(), "{method} {path}");
        let got = response.bytes().await.unwrap();
        assert!(if method == Method::HEAD { got.is_empty() } else { got == bytes }, "{method} {path}");
    }
}

async fn referrers(registry: &Registry, path: &str, filters: &str) -> Vec<Value> {
    let response = registry.get(path).await;
    assert_eq!(header(&response, "content-type"), OCI_INDEX);
    assert_eq!(header(&response, "oci-filters-applied"), filters, "{path}");
    let index = json(response).await;
    assert_eq!((&index["schemaVersion"], &index["mediaType"]), (&json!(2), &json!(OCI_INDEX)));
    index["manifests"].as_array().unwrap().clone()
}

#[track_caller]
fn same_entries(found: &[Value], wanted: &[&Value]) {
    let sorted = |entries: &mut dyn Iterator<Item = &Value>| {
        let mut texts: Vec<String> = entries.map(Value::to_string).collect();
        texts.sort();
        texts
    };
    assert_eq!(sorted(&mut found.iter()), sorted(&mut wanted.iter().copied()));
}

/// Bytes that no other test has.
fn bytes(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..len).map(next).collect()
}

async fn blobs_of_each_algorithm_in_every_way(face: Face) {
    let registry = Registry::on(face).await;
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let of = |bytes: &[u8]| Digest::of_with(algorithm, bytes);
        let delete = async |name: &str, digest: &Digest| {
            let path = format!("/v2/{name}/blobs/{digest}");
            assert_eq!(registry.delete(&path).await, 202);
            assert_eq!(registry.head(&path).await.status(), 404);
        };
        for (i, way) in (0..).zip(Way::ALL) {
            for bytes in [bytes(512, i), bytes(LARGE, 100 + i), Vec::new(), b"{}".to_vec()] {
                let digest = of(&bytes);
                assert_eq!(registry.get(&format!("/v2/{HERE}/blobs/{digest}")).await.status(), 404);
                is_created(&registry, &way.push(&registry, HERE, &digest, &bytes).await, &digest, &bytes).await;
                delete(HERE, &digest).await;
            }
        }
        // Mounts: from a named repository, from wherever it is, from where it is not.
        let mount = async |digest: &Digest, from: &str| {
            let path = format!("/v2/{HERE}/blobs/uploads/?mount={digest}{from}");
            registry.ask(Method::POST, &path).header("content-length", 0).send().await.unwrap()
        };
        let other = |algorithm| {
            let bytes = bytes(512, 201);
            (bytes.clone(), Digest::of_with(algorithm, &bytes))
        };
        for from in [format!("&from={THERE}"), String::new()] {
            let bytes = bytes(512, 200);
            let digest = of(&bytes);
            Way::PostPut.push(&registry, THERE, &digest, &bytes).await;
            is_created(&registry, &mount(&digest, &from).await, &digest, &bytes).await;
            delete(HERE, &digest).await;
            delete(THERE, &digest).await;
            // In a bucket what no repository has any more is still found by its digest, until garbage is collected; as on a disk once an image
            // has needed it. Then it must be something that nobody has ever pushed.
            let is_found = face == Face::BucketAtMoto && from.is_empty();
            let (bytes, digest) = if is_found { other(algorithm) } else { (bytes, digest) };
            let missing = mount(&digest, &from).await;
            assert_eq!(missing.status(), 202);
            let finish = format!("{}?digest={digest}", header(&missing, "location"));
            let response = registry.ask(Method::PUT, &finish).body(bytes.clone()).send().await.unwrap();
            is_created(&registry, &response, &digest, &bytes).await;
            delete(HERE, &digest).await;
        }
        // Given up.
        let location = registry.begin(HERE).await;
        assert_eq!(registry.delete(&location).await, 204);
        assert_eq!(registry.get(&location).await.status(), 404);
    }
}

async fn ranges_of_blobs_of_each_algorithm(face: Face) {
    let registry = Registry::on(face).await;
    let bytes = bytes(2048, 7);
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let digest = Digest::of_with(algorithm, &bytes);
        registry.push_blob_as(HERE, &bytes, &digest).await;
        for (range, found) in [
            ("500-1499", Some(500..1500)),
            ("500-", Some(500..2048)),
            ("-500", Some(1548..2048)),
            ("2000-5000", Some(2000..2048)),
            ("500-0", None),
            ("5000-10000", None),
        ] {
            let request = registry.ask(Method::GET, &format!("/v2/{HERE}/blobs/{digest}"));
            let response = request.header("range", format!("bytes={range}")).send().await.unwrap();
            let Some(found) = found else {
                assert_eq!(response.status(), 416, "{range}");
                continue;
            };
            assert_eq!(response.status(), 206, "{range}");
            let place = format!("bytes {}-{}/2048", found.start, found.end - 1);
            assert_eq!(header(&response, "content-range"), place);
            assert_eq!(header(&response, "content-length"), found.len().to_string());
            assert_eq!(response.bytes().await.unwrap(), &bytes[found]);
        }
    }
}

async fn wrong_digests_in_every_way(face: Face) {
    let registry = Registry::on(face).await;
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        for (i, way) in (0..).zip(Way::ALL) {
            let mut bytes = bytes(LARGE, 300 + i);
            let digest = Digest::of_with(algorithm, &bytes);
            bytes.extend(b"oh no");
            let response = way.push(&registry, HERE, &digest, &bytes).await;
            assert_eq!(response.status(), 400, "{way:?}");
            assert_eq!(codes(response).await, ["DIGEST_INVALID"], "{way:?}");
            for digest in [digest, Digest::of_with(algorithm, &bytes)] {
                assert_eq!(registry.head(&format!("/v2/{HERE}/blobs/{digest}")).await.status(), 404, "{way:?}");
            }
        }
    }
    let mut kind = Kind::new("an image whose bytes are others");
    kind.image("", &[]);
    for (digest, bytes) in &kind.blobs {
        registry.push_blob_as(HERE, bytes, digest).await;
    }
    let image = &kind.manifests[0];
    let altered = format!("{}  ", image.text);
    let response = registry.put_manifest(HERE, &image.digest.to_string(), OCI_MANIFEST, &altered).await;
    assert_eq!(response.status(), 400);
    assert_eq!(codes(response).await, ["DIGEST_INVALID"]);
    let response = registry.put_manifest(HERE, "sha256:baddigeststring", OCI_MANIFEST, &image.text).await;
    assert_eq!(response.status(), 400);
    assert_eq!(codes(response).await, ["DIGEST_INVALID"]);
    for digest in [image.digest.clone(), Digest::of(altered.as_bytes())] {
        assert_eq!(registry.head(&format!("/v2/{HERE}/manifests/{digest}")).await.status(), 404);
    }
}

async fn images(face: Face) {
    let registry = Registry::on(face).await;
    let mut image = Kind::new("an image");
    image.image("", &["image"]);
    image.lives(&registry).await;
    let mut large = Kind::new("an image with a large manifest");
    let annotations: Map<String, Value> = (0..390).map(|i| (format!("large-{i}"), json!("A".repeat(10_000)))).collect();
    let fields = with(large.image_fields(""), &json!({ "annotations": annotations }));
    large.manifest(OCI_MANIFEST, fields, &["large-manifest"]);
    large.lives(&registry).await;
    let mut bare = Kind::new("an image without layers");
    let fields = with(bare.image_fields(""), &json!({ "layers": [] }));
    bare.manifest(OCI_MANIFEST, fields, &["no-layers"]);
    bare.lives(&registry).await;
}

async fn indexes(face: Face) {
    let registry = Registry::on(face).await;
    let mut index = Kind::new("an index");
    index.index("", &json!({}), &["index"]);
    index.lives(&registry).await;
    let mut nested = Kind::new("an index of indexes");
    let children = [nested.index("one", &json!({}), &[]), nested.index("two", &json!({}), &[])];
    nested.manifest(OCI_INDEX, json!({ "manifests": children }), &["index-of-index"]);
    nested.lives(&registry).await;
    let mut empty = Kind::new("an index of nothing");
    empty.manifest(OCI_INDEX, json!({ "manifests": [] }), &["empty"]);
    empty.lives(&registry).await;
}

async fn artifacts(face: Face) {
    let registry = Registry::on(face).await;
    let mut artifact = Kind::new("an artifact");
    let fields = artifact.artifact_fields("");
    artifact.manifest(OCI_MANIFEST, fields, &["artifact"]);
    artifact.lives(&registry).await;
    let mut index = Kind::new("an index of artifacts");
    index.index("", &json!({ "artifactType": EXAMPLE }), &["artifact-index"]);
    index.lives(&registry).await;
    let mut bare = Kind::new("an artifact without layers");
    let empty = bare.blob(EMPTY, "{}");
    let fields = json!({ "artifactType": EXAMPLE, "config": empty, "layers": [empty] });
    bare.manifest(OCI_MANIFEST, fields, &["artifact-without-layers"]);
    bare.lives(&registry).await;
}

async fn what_refers_to_something(face: Face) {
    let registry = Registry::on(face).await;
    let notes = json!({ "org.example": "hello" });
    let mut image = Kind::new("an image and what refers to it");
    let subject = image.image("", &["image"]);
    let fields = with(image.image_fields("another image"), &json!({ "subject": subject }));
    image.manifest(OCI_MANIFEST, fields, &[]);
    for (kind, tag) in [(EXAMPLE, "tagged-1"), ("application/vnd.example.signature+json", "tagged-2")] {
        let more = json!({ "artifactType": kind, "subject": subject, "annotations": notes });
        let fields = with(image.artifact_fields(tag), &more);
        image.manifest(OCI_MANIFEST, fields, &[tag]);
    }
    image.lives(&registry).await;
    let mut index = Kind::new("an index and an index that refers to it");
    let subject = index.index("", &json!({}), &["index"]);
    index.index("other", &json!({ "artifactType": EXAMPLE, "subject": subject, "annotations": notes }), &["tagged"]);
    index.index("without a type", &json!({ "subject": subject }), &[]);
    index.lives(&registry).await;
    let mut early = Kind::new("what refers to something that is not there");
    let missing = early.descriptor(OCI_MANIFEST, b"missing content");
    let fields = with(early.artifact_fields(""), &json!({ "subject": missing, "annotations": notes }));
    early.manifest(OCI_MANIFEST, fields, &["early"]);
    early.lives(&registry).await;
}

async fn what_readers_do_not_know(face: Face) {
    let registry = Registry::on(face).await;
    let mut data = Kind::new("descriptors with their content");
    let mut fields = data.image_fields("");
    let encoded = |bytes: &[u8]| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes);
    fields["config"]["data"] = json!(encoded(&data.blobs[0].1));
    fields["layers"][0]["data"] = json!(encoded(&data.blobs[1].1));
    data.manifest(OCI_MANIFEST, fields, &["data"]);
    data.lives(&registry).await;
    let mut custom = Kind::new("fields of their own");
    let own = json!({ "org.example.field": { "deep": [1, "two", null] }, "other": 1.5 });
    let image = with(custom.image_fields(""), &own);
    let child = with(custom.manifest(OCI_MANIFEST, image, &[]), &own);
    custom.manifest(OCI_INDEX, with(json!({ "manifests": [child] }), &own), &["custom"]);
    custom.lives(&registry).await;
}

async fn what_is_not_whole(face: Face) {
    let registry = Registry::on_with(face, |builder| builder.sparse_images(true)).await;
    let mut foreign = Kind::new("an image with layers that lie elsewhere");
    let mut fields = foreign.image_fields("");
    let elsewhere = [FOREIGN.to_owned(), format!("{FOREIGN}+gzip")].map(|kind| {
        let layer = foreign.descriptor(&kind, kind.as_bytes());
        with(layer, &json!({ "urls": ["https://store.example.com/layer"] }))
    });
    fields["layers"].as_array_mut().unwrap().extend(elsewhere);
    foreign.manifest(OCI_MANIFEST, fields, &["foreign"]);
    foreign.lives(&registry).await;
    let mut index = Kind::new("an index without one of its images");
    let children = [index.image("", &[]), index.descriptor(OCI_MANIFEST, b"not there")];
    index.manifest(OCI_INDEX, json!({ "manifests": children }), &["sparse-index"]);
    index.lives(&registry).await;
    let mut image = Kind::new("an image without one of its layers");
    image.image("", &["sparse-image"]);
    let (missing, _) = image.blobs.remove(1);
    image.lives(&registry).await;
    // Only where that was switched on.
    let strict = Registry::on(face).await;
    for (digest, bytes) in &image.blobs {
        strict.push_blob_as(HERE, bytes, digest).await;
    }
    let response = strict.put_manifest(HERE, "sparse-image", OCI_MANIFEST, &image.manifests[0].text).await;
    assert_eq!(response.status(), 400);
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer["errors"][0]["code"], "MANIFEST_BLOB_UNKNOWN");
    assert_eq!(answer["errors"][0]["detail"]["digest"], missing.to_string());
}

async fn sha512_and_tags_beside_the_digest(face: Face) {
    let registry = Registry::on(face).await;
    let mut kind = Kind::of("sha512", Algorithm::Sha512);
    kind.index("", &json!({}), &[]);
    kind.lives(&registry).await;
    for (name, algorithm) in [("tags with sha256", Algorithm::Sha256), ("tags with sha512", Algorithm::Sha512)] {
        let mut kind = Kind::of(name, algorithm);
        kind.index("", &json!({}), &["tag-param"]);
        for (i, manifest) in kind.manifests.iter_mut().enumerate() {
            manifest.tags.push(format!("tag-param-{i}"));
            manifest.with_tags = true;
        }
        kind.lives(&registry).await;
    }
    let mut kind = Kind::of("what refers to sha512", Algorithm::Sha512);
    let subject = kind.image("", &[]);
    let fields = with(kind.artifact_fields(""), &json!({ "subject": subject }));
    kind.manifest(OCI_MANIFEST, fields, &[]);
    kind.lives(&registry).await;
}

async fn what_is_not_there(face: Face) {
    let registry = Registry::on(face).await;
    assert_eq!(registry.get("/v2/").await.status(), 200);
    let unknown = Digest::of(b"unknown");
    // A repository that nobody has pushed to.
    assert_eq!(registry.get(&format!("/v2/{HERE}/tags/list")).await.status(), 404);
    assert!(referrers(&registry, &format!("/v2/{HERE}/referrers/{unknown}"), "").await.is_empty());
    registry.push_image(HERE, "v1", "1").await;
    for (at, status) in [
        (format!("manifests/{unknown}"), 404),
        ("manifests/missing".into(), 404),
        ("manifests/.not-a-tag".into(), 404),
        ("manifests/sha256:baddigeststring".into(), 400),
        (format!("blobs/{unknown}"), 404),
        ("blobs/sha256:baddigeststring".into(), 400),
        ("referrers/sha256:baddigeststring".into(), 400),
    ] {
        for method in [Method::GET, Method::HEAD, Method::DELETE] {
            let path = format!("/v2/{HERE}/{at}");
            let deletes_nothing = method == Method::DELETE && at.starts_with("referrers");
            let found = registry.ask(method.clone(), &path).send().await.unwrap().status();
            assert!(deletes_nothing || found == status, "{method} {path}: {found}");
        }
    }
    let response = registry.put_manifest(HERE, ".not-a-tag", OCI_MANIFEST, "{}").await;
    assert_eq!(response.status(), 400);
    assert_eq!(codes(response).await, ["TAG_INVALID"]);
}
