//! What comes of findings: the seed's AI platform, `--fix`, allowing one, reports, and how long many take.

use super::*;

/// The two documents of the seed about an AI platform.
fn seed() -> Option<[String; 2]> {
    let path = shared::shared().join("seeds/000_93f158b4b273103f.txt");
    let Ok(text) = std::fs::read_to_string(&path) else {
        assert!(std::env::var_os("AIRLOCK_REQUIRE_TOOLS").is_none(), "{} is missing", path.display());
        println!("skipped: {} is missing", path.display());
        return None;
    };
    let document = |name: &str| {
        let start = text.find(&format!("# {name}\n")).unwrap();
        let body = &text[start..];
        let end = body.find("\n\n2. ITMS").or(body.find("\n\nGroup entries")).unwrap();
        body[..end].to_owned() + "\n"
    };
    Some([document("idms-ai-platform.yaml"), document("itms-ai-platform.yaml")])
}

#[test]
fn the_ai_platform_of_the_seed_gets_its_findings() {
    let Some(documents) = seed() else { return };
    let images = "runai.jfrog.io/gpu-extra/x:1\nmpioperator/mpi-operator:0.6\nghcr.io/grafana/grafana:11\nnvcr.io/nvidia/gpu-operator:v24.9\nquay.io/new/thing:1\n";
    let input = with_images(&documents, images);
    assert!(input.unreadable().is_empty());
    let found = lint(&input);
    let has = |code: &str, about: &str| found.iter().any(|f| f.id == code && (f.message.contains(about)));
    for (code, about) in [
        ("MR015", "registry-1.docker.io/mpioperator"),
        ("MR015", "registry-1.docker.io/prom"),
        ("MR017", "registry-1.docker.io/alpine"),
        ("MR019", "nvcr.io/nvidia/clara"),
        ("MR019", "nvcr.io/nvidia/mellanox"),
        ("MR025", "ghcr.io/grafana"),
        ("MR029", "ghcr.io/grafana/grafana:11"),
        ("MR031", "mpioperator/mpi-operator"),
        ("MR031", "quay.io/new/thing"),
        ("MR033", "no source is forbidden"),
        ("MR042", "registry.example.com"),
        ("MR056", "separate files"),
        ("MR059", "runai.jfrog.io"),
        ("MR066", "mpioperator/mpi-operator"),
    ] {
        assert!(has(code, about), "{code} about {about}: {found:#?}");
    }
    assert!(!has("MR020", "") && !has("MR018", ""), "{found:#?}");
}

#[test]
fn fixes_keep_comments_and_order_and_leave_nothing_behind() {
    let text = "# ours\napiVersion: config.openshift.io/v1\nkind: ImageTagMirrorSet # tags\nmetadata:\n  name: t\n  uid: abc # from the cluster\nspec:\n  imageTagMirrors:\n  # hub\n  - source: index.docker.io/acme # old name\n    mirrors:\n    - https://m.lab/acme/ # fast\n    # twice\n    - n.lab/acme\n    - n.lab/acme\n  - source: 'quay.io/a:1'\n    mirrors: [m.lab/a]\n";
    let input = rules(&[text.to_owned()]);
    let changed = fixed(&input.objects, &lint(&input));
    let wanted = text
        .replace("  uid: abc # from the cluster\n", "")
        .replace("index.docker.io", "docker.io")
        .replace("https://m.lab/acme/", "m.lab/acme")
        .replace("    - n.lab/acme\n    - n.lab/acme\n", "    - n.lab/acme\n")
        .replace("'quay.io/a:1'", "'quay.io/a'");
    assert_eq!(changed, [(0, wanted.clone())]);
    assert!(lint(&rules(&[wanted])).iter().all(|f| !f.fixable));
}

#[test]
fn an_annotation_allows_a_finding() {
    let text = idms("quay.io/a=m.lab/a")
        .replace("  name: d", "  name: d\n  annotations:\n    airlock.lint/allow: MR033, MR099");
    let input = rules(&[text]);
    let (kept, left_out) = without_allowed(&input.objects, lint(&input));
    assert!(left_out == 1 && kept.iter().all(|f| f.id != "MR033"), "{kept:#?}");
}

#[test]
fn sarif_has_every_rule_and_every_place() {
    let findings: Vec<Finding> = lint(&rules(&[idms("quay.io/a:1=m.lab/a")]));
    let log = report::sarif(&findings, "1.0");
    assert_eq!(log["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap().len(), 70);
    let results = log["runs"][0]["results"].as_array().unwrap();
    let first = results.iter().find(|r| r["ruleId"] == "MR001").unwrap();
    assert_eq!((&first["level"], &first["ruleIndex"]), (&"error".into(), &0.into()));
    assert_eq!(first["locations"][0]["physicalLocation"]["region"]["startLine"], 7);
    assert!(report::explanation("mr020").unwrap().contains("longest source"));
}

#[test]
fn a_given_payload_counts() {
    let texts = [idms("quay.io/openshift-release-dev=m.lab/o"), image("blockedRegistries: [quay.io]")];
    let mut input = rules(&texts);
    assert!(severities(&input, "MR047").is_empty());
    input.payload = Some(Payload::parse(&format!("quay.io/other/release{DIGEST}")).unwrap());
    assert_eq!(severities(&input, "MR047"), [W]);
}

#[test]
fn two_thousand_rules_and_ten_thousand_images_are_linted() {
    let entries =
        |from: usize| (from..from + 1_000).map(|n| format!("r{}.corp.io/ns{n}=m.lab:5000/r{}/ns{n} ", n % 50, n % 50));
    let texts = [idms(&entries(0).collect::<String>()), itms(&entries(1_000).collect::<String>())];
    let images: Vec<String> =
        (0..10_000).map(|n| format!("r{}.corp.io/ns{}/team/app{n}:v1\n", n % 50, n % 2_000)).collect();
    let images = images.concat();
    let input = with_images(&texts, &images);
    // Comparing every image with every rule again and again would take a minute.
    let found = lint(&input);
    assert_eq!(found.iter().filter(|f| f.id == "MR029").count(), 1_000, "by tag, below an IDMS");
}
