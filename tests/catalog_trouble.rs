//! The promise: what goes wrong around a catalog while it is planned - images that want one name, an upstream that is out of order for a while, a tag
//! that moves - changes nothing that the configuration means, and is told.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use airlock_content::catalog::CONFIGS_LABEL;
use airlock_content::layers::writer::Writer;
use airlock_testkit::binary::{Binary, Outcome};
use airlock_testkit::fixture::{self, Built};
use airlock_testkit::scripted::{Fault, Registry};
use airlock_testkit::target::{Access, Target};
use serde_json::{Value, json};

const AIRLOCK: &str = env!("CARGO_BIN_EXE_airlock");
const PARTIAL: i32 = 3;

/// A catalog with the bundles `a.v1.0.0`, `a.v1.1.0`, … one after the other; each needs its own image and those given.
fn catalog(seed: u64, bundles: &[(String, Vec<String>)]) -> Built {
    let name = |at: usize| format!("a.v1.{at}.0");
    let entries: Vec<Value> =
        (0..bundles.len()).map(|at| json!({"name": name(at), "replaces": at.checked_sub(1).map(name)})).collect();
    let mut text = json!({"schema": "olm.package", "name": "a", "defaultChannel": "stable"}).to_string();
    text += &json!({"schema": "olm.channel", "package": "a", "name": "stable", "entries": entries}).to_string();
    for (at, (image, related)) in bundles.iter().enumerate() {
        let related: Vec<Value> = related.iter().map(|image| json!({"name": "", "image": image})).collect();
        let properties =
            [json!({"type": "olm.package", "value": {"packageName": "a", "version": format!("1.{at}.0")}})];
        text +=
            &json!({"schema": "olm.bundle", "package": "a", "name": name(at), "image": image, "relatedImages": related,
            "properties": properties})
            .to_string();
    }
    let mut layer = Writer::new(Vec::new(), 0);
    layer.directory("configs").expect("write a layer");
    layer.file("configs/catalog.json", text.len() as u64, &mut text.as_bytes()).expect("write a layer");
    let (bytes, layer) = layer.finish().expect("write a layer");
    let blob = fixture::blob(&layer.descriptor.media_type, bytes);
    fixture::image(seed)
        .layers(&[])
        .given(vec![blob])
        .diff_ids(&[layer.diff_id])
        .label(CONFIGS_LABEL, "/configs")
        .build()
}

/// An upstream with a catalog `operators/index:v1` of two bundles, each with an image of its own that it needs.
struct Upstream {
    registry: Registry,
    here: Binary,
    needed: Built,
}

impl Upstream {
    fn start() -> Self {
        let registry = Registry::start();
        let (bundles, needed): (Vec<Built>, Vec<Built>) =
            (1..3).map(|seed| (fixture::image(seed).build(), fixture::image(10 + seed).build())).unzip();
        let mut listed = Vec::new();
        for (bundle, needed) in bundles.iter().zip(&needed) {
            registry.put("operators/bundle", bundle, None);
            registry.put("operators/tool", needed, None);
            let named =
                |what: &str, image: &Built| format!("{}/operators/{what}@{}", registry.address(), image.digest());
            listed.push((named("bundle", bundle), vec![named("tool", needed)]));
        }
        registry.put("operators/index", &catalog(5, &listed), Some("v1"));
        Self { registry, here: Binary::new(AIRLOCK), needed: needed[1].clone() }
    }

    fn isc(&self) -> PathBuf {
        configuration(&self.here, &format!("{}/operators/index:v1", self.registry.address()))
    }

    fn archive(&self) -> PathBuf {
        self.here.folder().join("archive")
    }

    fn mirror(&self) -> Outcome {
        let to = format!("file://{}", self.archive().display());
        let isc = self.isc().display().to_string();
        let patience = ["--retry-times", "1", "--retry-delay", "1ms"];
        self.here.run(["mirror", "-c", &isc, "--src-tls-verify=false"].into_iter().chain(patience).chain([to.as_str()]))
    }
}

/// The whole catalog, so that both bundles are kept and it is built anew.
fn configuration(here: &Binary, catalog: &str) -> PathBuf {
    let path = here.folder().join("isc.yaml");
    let text = format!(
        "kind: ImageSetConfiguration\napiVersion: mirror.openshift.io/v2alpha1\nmirror:\n  operators:\n  - catalog: {catalog}\n    \
         packages:\n    - name: a\n      minVersion: 1.0.0\n"
    );
    fs::write(&path, text).expect("write the configuration");
    path
}

fn images(report: &Path) -> Vec<Value> {
    let report: Value = serde_json::from_slice(&fs::read(report).expect("there is a report")).expect("understand it");
    report["images"].as_array().expect("it has images").clone()
}

/// Digests of the catalogs that arrived, and the number of images of each kind that did.
fn arrived(report: &Path) -> (Vec<String>, usize, usize) {
    let images = images(report);
    let of = |kind: &str| -> Vec<&Value> {
        images.iter().filter(|i| i["type"] == kind && i["status"] == "complete").collect()
    };
    let mut digests: Vec<String> =
        of("operatorCatalog").iter().map(|i| i["digest"].as_str().expect("it has a digest").to_owned()).collect();
    digests.sort();
    (digests, of("operatorBundle").len(), of("operatorRelatedImage").len())
}

#[test]
fn an_upstream_that_is_out_of_order_while_planning_does_not_change_the_catalog() {
    let undisturbed = Upstream::start();
    undisturbed.mirror().expect_code(0);
    let upstream = Upstream::start();
    let path = format!("/v2/operators/tool/manifests/{}", upstream.needed.digest());
    upstream.registry.fault(Fault::on("*", &path).status(503));
    let outcome = upstream.mirror().expect_code(PARTIAL);
    assert!(outcome.stderr.contains("503"), "{}", outcome.stderr);
    let report = upstream.archive().join("working-dir/report.json");
    let (catalogs, bundles, related) = arrived(&report);
    // The bundle of the image is held back with it; the catalog has both, as it was chosen.
    assert_eq!((catalogs.len(), bundles, related), (2, 1, 1), "{}", outcome.stderr);

    // Loading what is there chooses the same, though the image is not in the archive.
    let Some(target) = Target::airlock(Path::new(AIRLOCK), Access::default()) else { return };
    let (isc, from) = (upstream.isc().display().to_string(), format!("file://{}", upstream.archive().display()));
    let place = format!("docker://{}", target.address());
    let load = ["mirror", "-c", &isc, "--from", &from, "--dest-tls-verify=false", &place];
    upstream.here.run(load).expect_code(PARTIAL);
    let (loaded, _, _) = arrived(&upstream.archive().join("working-dir/load-report.json"));
    assert_eq!(loaded.len(), 1);
    assert!(catalogs.contains(&loaded[0]), "{loaded:?} of {catalogs:?}");

    // When it is in order again, the next run brings the rest, and the catalog is still the same.
    upstream.registry.heal();
    upstream.mirror().expect_code(0);
    assert_eq!(arrived(&report), (catalogs, 2, 2));
    upstream.here.run(load).expect_code(0);
    assert!(target.contents().repositories["operators/tool"].manifests.contains(&upstream.needed.digest().to_string()));
}

#[test]
fn a_tag_that_moves_while_planning_does_not_mix_two_catalogs() {
    let upstream = Upstream::start();
    // Reading the layer takes a while, in which the tag is moved to another catalog.
    let repository = "operators/index";
    let read = "/v2/operators/index/blobs/*";
    upstream.registry.fault(Fault::on("GET", read).first(1).delay(Duration::from_millis(700)));
    let first = upstream.registry.content(|c| c.manifest(repository, "v1").expect("it is there").digest().clone());
    let other = catalog(6, &[]);
    let outcome = thread::scope(|scope| {
        let run = scope.spawn(|| upstream.mirror());
        while upstream.registry.count("GET", read) == 0 {
            assert!(!run.is_finished(), "the catalog was never read");
            thread::sleep(Duration::from_millis(5));
        }
        upstream.registry.put(repository, &other, Some("v1"));
        run.join().expect("the run ends")
    });
    let outcome = outcome.expect_code(0);
    let (catalogs, bundles, related) = arrived(&upstream.archive().join("working-dir/report.json"));
    assert!(catalogs.contains(&first.to_string()), "{catalogs:?} without {first}: {}", outcome.stderr);
    assert!(!catalogs.contains(&other.digest().to_string()));
    assert_eq!((bundles, related), (2, 2));
}

#[test]
fn two_needed_images_of_one_name_are_both_carried() {
    let (here, one, two) = (Binary::new(AIRLOCK), Registry::start(), Registry::start());
    let (bundle, a, b) = (fixture::image(1).build(), fixture::image(2).build(), fixture::image(3).build());
    one.put("operators/bundle", &bundle, None);
    one.put("team/tool", &a, Some("v1"));
    two.put("team/tool", &b, Some("v1"));
    // Where they come from is not part of the name at the destination.
    let related = vec![
        format!("{}/team/tool:v1@{}", one.address(), a.digest()),
        format!("{}/team/tool:v1@{}", two.address(), b.digest()),
    ];
    let listed = [(format!("{}/operators/bundle@{}", one.address(), bundle.digest()), related)];
    one.put("operators/index", &catalog(5, &listed), Some("v1"));
    let isc = configuration(&here, &format!("{}/operators/index:v1", one.address())).display().to_string();
    let archive = here.folder().join("archive");
    let to = format!("file://{}", archive.display());
    let outcome = here.run(["mirror", "-c", &isc, "--src-tls-verify=false", &to]).expect_code(0);
    assert!(outcome.stderr.contains("team/tool:v1` already"), "nothing is told:\n{}", outcome.stderr);
    let Some(target) = Target::airlock(Path::new(AIRLOCK), Access::default()) else { return };
    let place = format!("docker://{}", target.address());
    here.run(["mirror", "-c", &isc, "--from", &to, "--dest-tls-verify=false", &place]).expect_code(0);
    let contents = target.contents();
    let tool = &contents.repositories["team/tool"];
    assert!([&a, &b].iter().all(|image| tool.manifests.contains(&image.digest().to_string())), "{tool:?}");
    assert_eq!(tool.tags.len(), 2);
}
