//! What the doctor says of catalogs in which something is wrong, what mends it, what dependencies bring, and what two choices differ in.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]

use airlock_content::catalog::doctor::{self, Problem, Severity};
use airlock_content::catalog::{
    Catalog, ChannelFilter, Filter, PackageFilter, Rule, Selection, Side, diff, read_directory, select,
};
use serde_json::{Value, json};

/// A channel: its name and its entries.
type Channel<'a> = (&'a str, Vec<Value>);

/// Builds the text of a catalog.
#[derive(Default)]
struct Text(String);

impl Text {
    fn package(mut self, name: &str, default: &str, channels: &[Channel<'_>]) -> Self {
        self.0 += &json!({"schema": "olm.package", "name": name, "defaultChannel": default}).to_string();
        for (channel, entries) in channels {
            self.0 +=
                &json!({"schema": "olm.channel", "package": name, "name": channel, "entries": entries}).to_string();
        }
        self
    }

    fn bundle(self, package: &str, version: &str, needs: Value) -> Self {
        let mut properties =
            vec![json!({"type": "olm.package", "value": {"packageName": package, "version": version}})];
        properties.extend(needs.as_array().unwrap().iter().cloned());
        let name = format!("{package}.v{version}");
        let image = format!("quay.io/x/{package}@{}", airlock_oci::Digest::of(name.as_bytes()));
        self.image(package, &name, &image, &properties)
    }

    fn image(mut self, package: &str, name: &str, image: &str, properties: &[Value]) -> Self {
        self.0 +=
            &json!({"schema": "olm.bundle", "package": package, "name": name, "image": image, "properties": properties,
            "relatedImages": [{"name": "", "image": image}]})
            .to_string();
        self
    }

    fn read(&self) -> Catalog {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("catalog.json"), &self.0).unwrap();
        read_directory(folder.path(), tempfile::tempdir().unwrap().path()).unwrap()
    }
}

fn entry(package: &str, version: &str, replaces: Option<&str>) -> Value {
    json!({"name": format!("{package}.v{version}"), "replaces": replaces.map(|r| format!("{package}.v{r}"))})
}

/// what names images by tag is told once a package, below everything that OLM minds.
#[test]
fn images_by_tag_are_named() {
    let properties = [json!({"type": "olm.package", "value": {"packageName": "a", "version": "1.1.0"}})];
    let entries = vec![entry("a", "1.0.0", None), entry("a", "1.1.0", Some("1.0.0"))];
    let catalog = Text::default()
        .package("a", "stable", &[("stable", entries)])
        .bundle("a", "1.0.0", json!([]))
        .image("a", "a.v1.1.0", "quay.io/x/a:1.1.0", &properties)
        .read();
    let all = Filter { full: true, packages: Vec::new() };
    let selection = select(&catalog, &all, Rule::Table).unwrap();
    let findings = doctor::examine(&catalog, &selection);
    assert_eq!(findings.iter().map(doctor::Finding::severity).collect::<Vec<_>>(), [Severity::Loose]);
    assert_eq!(
        findings[0].to_string(),
        "package `a`: bundle `a.v1.1.0`: images are named by tag and not by digest, such as `quay.io/x/a:1.1.0`"
    );
}

/// 1.0.0 <- 1.1.0 <- 2.0.0-beta <- 1.2.0 <- 1.3.0: within 1.0 to 1.3 the chain is broken by the letter of the versions.
fn crossed() -> Catalog {
    let order = ["1.0.0", "1.1.0", "2.0.0", "1.2.0", "1.3.0"];
    let entries = order.iter().enumerate().map(|(at, v)| entry("a", v, at.checked_sub(1).map(|b| order[b]))).collect();
    order
        .iter()
        .fold(Text::default().package("a", "stable", &[("stable", entries)]), |t, v| t.bundle("a", v, json!([])))
        .read()
}

fn only(package: PackageFilter) -> Filter {
    Filter { full: false, packages: vec![package] }
}

fn bundles(selection: &Selection) -> Vec<String> {
    selection.packages.values().flat_map(|k| k.bundles.keys()).map(|b| b.to_string()).collect()
}

#[test]
fn a_range_that_breaks_a_channel_is_mended_by_the_smallest_change() {
    let catalog = crossed();
    let filter =
        only(PackageFilter { min: Some("1.0.0".into()), max: Some("1.3.0".into()), ..PackageFilter::named("a") });
    let selection = select(&catalog, &filter, Rule::Table).unwrap();
    let findings = doctor::examine(&catalog, &selection);
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].severity(), Severity::Refused);
    assert_eq!(findings[0].to_string(), "package `a`: channel `stable`: it has 2 heads: `a.v1.1.0`, `a.v1.3.0`");
    let mend = doctor::mend(&catalog, &filter, &selection, &findings[0]).unwrap();
    assert_eq!(mend.text, "set maxVersion of package `a` to 2.0.0");
    assert_eq!(mend.adds.iter().map(|b| &**b).collect::<Vec<_>>(), ["a.v2.0.0"]);
    let then = select(&catalog, &mend.filter.unwrap(), Rule::Table).unwrap();
    assert_eq!(doctor::examine(&catalog, &then), []);
    let (rest, dropped) = doctor::leave_out_broken(&catalog, &selection);
    assert!(rest.packages.is_empty() && dropped[0].cause.contains("2 heads"));
    // Along the chain nothing breaks.
    let head = select(&catalog, &filter, Rule::Head).unwrap();
    assert_eq!((bundles(&head).len(), doctor::examine(&catalog, &head).len()), (5, 0));
}

#[test]
fn bundles_by_name_that_do_not_follow_one_another_are_told_what_lies_between() {
    let catalog = crossed();
    let filter =
        only(PackageFilter { bundles: vec!["a.v1.0.0".into(), "a.v1.2.0".into()], ..PackageFilter::named("a") });
    let selection = select(&catalog, &filter, Rule::Table).unwrap();
    let findings = doctor::examine(&catalog, &selection);
    let mend = doctor::mend(&catalog, &filter, &selection, &findings[0]).unwrap();
    assert_eq!(mend.text, "add the bundles on the way between them: `a.v1.1.0`, `a.v2.0.0`");
}

/// `a` needs a kind of `b` and a version of `c`; the head of `c` is too new, and `c` needs `d`, which is nowhere.
fn needy() -> Catalog {
    let gvk = |kind: &str| json!({"group": "g", "version": "v1", "kind": kind});
    let chain = |p: &str, versions: &[&str]| -> Vec<Value> {
        versions.iter().enumerate().map(|(at, v)| entry(p, v, at.checked_sub(1).map(|b| versions[b]))).collect()
    };
    Text::default()
        .package("a", "stable", &[("stable", chain("a", &["1.0.0"]))])
        .bundle(
            "a",
            "1.0.0",
            json!([
                {"type": "olm.gvk.required", "value": gvk("B")},
                {"type": "olm.package.required", "value": {"packageName": "c", "versionRange": ">=1.0.0 <2.0.0"}},
                {"type": "olm.constraint", "value": {"failureMessage": "b or e", "any": {"constraints": [
                    {"package": {"packageName": "e", "versionRange": ">0.0.0"}}, {"gvk": gvk("B")}]}}},
                {"type": "olm.constraint", "value": {"failureMessage": "a new cluster", "cel": {"rule": "true"}}},
            ]),
        )
        .package("b", "stable", &[("stable", chain("b", &["1.0.0", "1.1.0"]))])
        .bundle("b", "1.0.0", json!([]))
        .bundle("b", "1.1.0", json!([{"type": "olm.gvk", "value": gvk("B")}]))
        .package(
            "c",
            "new",
            &[("new", chain("c", &["1.0.0", "1.5.0", "2.0.0"])), ("old", chain("c", &["1.0.0", "1.5.0"]))],
        )
        .bundle("c", "1.0.0", json!([]))
        .bundle(
            "c",
            "1.5.0",
            json!([{"type": "olm.package.required", "value": {"packageName": "d", "versionRange": ">=1.0.0"}}]),
        )
        .bundle("c", "2.0.0", json!([]))
        .read()
}

#[test]
fn what_is_needed_is_named_and_added_only_when_asked_for() {
    let catalog = needy();
    let filter = only(PackageFilter::named("a"));
    let selection = select(&catalog, &filter, Rule::Table).unwrap();
    assert_eq!(bundles(&selection), ["a.v1.0.0"]);
    let said: Vec<String> = doctor::examine(&catalog, &selection).iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 4, "{said:#?}");
    assert!(said.contains(
        &"package `a`: bundle `a.v1.0.0` needs package `c` in version `>=1.0.0 <2.0.0`, which is not kept".to_owned()
    ));
    assert!(said.contains(
        &"package `a`: bundle `a.v1.0.0` needs a bundle that provides `g/v1 B`, which is not kept".to_owned()
    ));
    assert!(said[3].contains("known only in the cluster"), "{said:#?}");
    let kind = doctor::examine(&catalog, &selection).into_iter().find(|f| f.to_string().contains("g/v1 B")).unwrap();
    let mend = doctor::mend(&catalog, &filter, &selection, &kind).unwrap();
    assert_eq!(mend.text, "add package `b`, or run with --with-dependencies");
    assert_eq!(mend.filter.unwrap().packages[1].name, "b");

    let (more, added) = doctor::with_dependencies(&catalog, &selection);
    assert_eq!(bundles(&more), ["a.v1.0.0", "b.v1.1.0", "c.v1.5.0"]);
    let named: Vec<_> = added.iter().map(|a| (&*a.package, &*a.bundle, &*a.needed_by)).collect();
    assert!(
        named.contains(&("b", "b.v1.1.0", "a.v1.0.0")) && named.contains(&("c", "c.v1.5.0", "a.v1.0.0")),
        "{named:?}"
    );
    let left = doctor::examine(&catalog, &more);
    assert!(left.iter().all(|f| f.severity() > Severity::Refused));
    assert!(
        left.iter().any(|f| matches!(&f.problem, Problem::Unmet { bundles, .. } if &*bundles[0] == "c.v1.5.0")),
        "{left:?}"
    );
    // A package that is kept already gets the way to what is needed.
    let both = Filter { full: false, packages: vec![PackageFilter::named("a"), PackageFilter::named("c")] };
    let (more, _) = doctor::with_dependencies(&catalog, &select(&catalog, &both, Rule::Table).unwrap());
    assert_eq!(bundles(&more), ["a.v1.0.0", "b.v1.1.0", "c.v1.5.0", "c.v2.0.0"]);
    assert!(doctor::examine(&catalog, &more).iter().all(|f| f.severity() > Severity::Refused));
}

#[test]
fn what_makes_a_registry_refuse_a_catalog_is_found() {
    let chain = vec![entry("a", "1.0.0", None), entry("a", "1.0.1", Some("1.0.0"))];
    let text = Text::default().package("a", "stable", &[("stable", chain)]).bundle("a", "1.0.0", json!([]));
    let same = Text(text.0.clone()).bundle("a", "1.0.1", json!([]));
    let same = Text(same.0.replace("\"version\":\"1.0.1\"", "\"version\":\"1.0.0\"")).read();
    let all = Filter { full: true, packages: vec![PackageFilter::named("a")] };
    let said = |catalog: &Catalog| -> Vec<String> {
        let selection = select(catalog, &all, Rule::Table).unwrap();
        doctor::examine(catalog, &selection).iter().map(ToString::to_string).collect()
    };
    assert_eq!(said(&same), ["package `a`: bundles `a.v1.0.0`, `a.v1.0.1` have the same version `1.0.0`"]);
    let odd = Text(text.0.replace("\"version\":\"1.0.0\"", "\"version\":\"latest\"")).read();
    assert!(said(&odd)[0].contains("`latest`, which is not a semantic version"), "{:?}", said(&odd));
    let image = format!("quay.io/x/a@{}", airlock_oci::Digest::of(b"a.v1.0.0"));
    let named = format!("{{\"image\":\"{image}\",\"name\":\"\"}}");
    let empty = Text(text.0.replace(&named, "{\"image\":\"\"}")).read();
    assert!(said(&empty)[0].contains("related image without a name"), "{:?}", said(&empty));
}

#[test]
fn two_choices_differ_in_what_they_keep() {
    let catalog = crossed();
    let choose = |min: &str| {
        let channel = ChannelFilter { name: "stable".into(), min: Some(min.into()), max: None };
        select(&catalog, &only(PackageFilter { channels: vec![channel], ..PackageFilter::named("a") }), Rule::Head)
            .unwrap()
    };
    let (wide, narrow) = (choose("1.0.0"), choose("1.3.0"));
    let side = |selection| Side { catalog: &catalog, selection };
    assert!(diff(side(Some(&wide)), side(None)).is_empty());
    let change = diff(side(Some(&wide)), side(Some(&narrow)));
    let removed: Vec<&str> = change.changed[0].bundles_removed.iter().map(|b| &**b).collect();
    // 2.0.0 is within the range, and 1.2.0 on the way to it.
    assert_eq!(removed, ["a.v1.0.0", "a.v1.1.0"]);
    assert!(change.changed[0].heads.is_empty() && change.images_removed.len() == 2 && change.images_added.is_empty());
    let other = needy();
    let change = diff(Side { catalog: &other, selection: None }, side(None));
    assert_eq!(change.removed.iter().map(|p| &**p).collect::<Vec<_>>(), ["b", "c"]);
    assert_eq!(change.changed[0].heads.len(), 1);
}
