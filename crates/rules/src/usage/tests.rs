use super::*;

fn read(form: Form, text: &str) -> (Images, Result<Summary, Error>) {
    let mut images = Images::default();
    let result = images.read("dump", form, text.as_bytes());
    (images, result)
}

/// `image role user` lines.
fn shown(images: &Images) -> Vec<String> {
    let line = |image: &Image, user: User<'_>| format!("{} {:?} {user}", image.text(), user.role);
    images.images().iter().flat_map(|i| images.users(i).map(move |u| line(i, u))).collect()
}

const POD: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web-1","namespace":"shop","managedFields":[{"image":"x"}],
"ownerReferences":[{"kind":"ReplicaSet","name":"web"}]},"spec":{"initContainers":[{"name":"wait","image":"quay.io/a/wait:1"}],
"containers":[{"name":"web","image":"quay.io/a/web:1","env":[{"name":"image","value":"quay.io/not/this:1"}]}],
"ephemeralContainers":[{"name":"debug","image":"quay.io/a/debug:1"}],"imagePullSecrets":[{"name":"default-dockercfg-x1"},{"name":"mine"}],
"volumes":[{"name":"model","image":{"reference":"quay.io/a/model:1"}}]},
"status":{"containerStatuses":[{"name":"web","image":"quay.io/a/other:1","imageID":"mirror.corp:5000/a/web@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}]}}"#;

#[test]
fn a_pod_with_every_kind_of_container() {
    for text in [POD.to_owned(), format!("[{POD}]"), format!(r#"{{"items":[{POD}],"kind":"List"}}"#)] {
        let (images, summary) = read(Form::Guess, &text);
        assert_eq!(summary.unwrap(), Summary { objects: 1, uses: 4, rules: false, more: None });
        let expected = [
            "quay.io/a/web:1 Container shop/Pod/web-1/web",
            "quay.io/a/wait:1 Init shop/Pod/web-1/wait",
            "quay.io/a/debug:1 Ephemeral shop/Pod/web-1/debug",
            "quay.io/a/model:1 Volume shop/Pod/web-1/model",
        ];
        assert_eq!(shown(&images), expected);
        let web = &images.images()[0];
        assert_eq!(web.running()[0].repository, "mirror.corp:5000/a/web");
        let user = images.users(web).next().unwrap();
        assert_eq!((user.owner, user.pull_secret), ("ReplicaSet/web", "mine"));
    }
}

#[test]
fn items_of_a_typed_list_have_its_kind_even_when_it_comes_last() {
    let item = r#"{"metadata":{"name":"p","namespace":"n"},"spec":{"containers":[{"name":"c","image":"a.io/b:1"}]}}"#;
    let text = format!(r#"{{"items":[{item}],"kind":"PodList","metadata":{{"continue":"next page"}}}}"#);
    let (images, summary) = read(Form::Objects, &text);
    assert_eq!(summary.unwrap().more.as_deref(), Some("next page"));
    assert_eq!(shown(&images), ["a.io/b:1 Container n/Pod/p/c"]);
}

const WORKLOADS: &str = "\
apiVersion: v1
kind: List
items:
- apiVersion: batch/v1
  kind: CronJob
  metadata: {name: nightly, namespace: ops}
  spec:
    jobTemplate:
      spec:
        template:
          spec:
            containers:
            - name: main
              image: quay.io/ops/nightly@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
- apiVersion: apps/v1
  kind: ReplicaSet
  metadata: {name: old, namespace: ops, ownerReferences: [{kind: Deployment, name: web}]}
  spec: {replicas: 0, template: {spec: {containers: [{name: old, image: quay.io/ops/old:1}]}}}
- apiVersion: acme.example/v1
  kind: Cluster
  metadata: {name: db, namespace: ops}
  spec:
    serverPod:
      template:
        spec:
          containers: [{name: db, image: quay.io/ops/db:7}]
---
# Source: chart/templates/hook.yaml
apiVersion: batch/v1
kind: Job
metadata:
  name: migrate
  annotations:
    helm.sh/hook: pre-upgrade
spec:
  template:
    spec:
      containers:
      - name: migrate
        image: &image \"quay.io/ops/migrate:1\"
      - name: again
        image: *image
---
apiVersion: operators.coreos.com/v1alpha1
kind: ClusterServiceVersion
metadata: {name: op.v1, namespace: ops}
spec:
  relatedImages:
  - {name: operand, image: 'quay.io/op/operand@sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb'}
  install:
    spec:
      deployments:
      - name: op
        spec: {template: {spec: {containers: [{name: manager, image: quay.io/op/manager:1}]}}}
---
apiVersion: operators.coreos.com/v1alpha1
kind: ClusterServiceVersion
metadata: {name: op.v1, namespace: other, labels: {olm.copiedFrom: ops}}
spec: {relatedImages: [{name: operand, image: quay.io/op/copy:1}]}
---
apiVersion: config.openshift.io/v1
kind: ImageDigestMirrorSet
metadata: {name: rules}
spec: {imageDigestMirrors: [{source: quay.io, mirrors: [m.corp:5000/quay]}]}
";

#[test]
fn workloads_operators_and_hooks_in_several_documents() {
    let (images, summary) = read(Form::Guess, WORKLOADS);
    let summary = summary.unwrap();
    assert_eq!((summary.objects, summary.rules), (7, true));
    assert_eq!(images.rule_sources(), ["dump"]);
    let shown = shown(&images);
    let digest = |c: &str| format!("@sha256:{}", c.repeat(64));
    assert_eq!(
        shown,
        [
            format!("quay.io/ops/nightly{} Container ops/CronJob/nightly/main", digest("a")),
            "quay.io/ops/db:7 Container ops/Cluster/db/db".to_owned(),
            "quay.io/ops/migrate:1 Container Job/migrate/migrate".to_owned(),
            "quay.io/ops/migrate:1 Container Job/migrate/again".to_owned(),
            format!("quay.io/op/operand{} Related ops/ClusterServiceVersion/op.v1/operand", digest("b")),
            "quay.io/op/manager:1 Container ops/ClusterServiceVersion/op.v1/manager".to_owned(),
        ]
    );
    let migrate = &images.images()[2];
    assert_eq!(images.users(migrate).next().unwrap().hook, "pre-upgrade");
}

#[test]
fn json_and_yaml_say_the_same() {
    let yaml: serde_json::Value = serde_saphyr::from_str(WORKLOADS.split("---").next().unwrap()).unwrap();
    let (from_json, _) = read(Form::Guess, &yaml.to_string());
    let (from_yaml, _) = read(Form::Guess, WORKLOADS.split("---").next().unwrap());
    assert_eq!(shown(&from_json), shown(&from_yaml));
}

#[test]
fn platform_images_and_those_on_nodes() {
    let text = r#"{"kind":"ClusterVersion","status":{"desired":{"image":"quay.io/ocp/release@sha256:1"}}}
{"kind":"CatalogSource","metadata":{"name":"redhat"},"spec":{"image":"reg.io/catalog:v4"}}
{"kind":"ControllerConfig","metadata":{"name":"c"},"spec":{"images":{"infraImageKey":"quay.io/pause:1"}}}
{"kind":"Node","metadata":{"name":"n1"},"status":{"images":[{"names":["quay.io/on/node:1"],"sizeBytes":7}]}}"#;
    let (images, _) = read(Form::Guess, text);
    let texts: Vec<_> = images.images().iter().map(Image::text).collect();
    assert_eq!(texts, ["quay.io/ocp/release@sha256:1", "reg.io/catalog:v4", "quay.io/pause:1"]);
    let (images, _) = read(Form::Nodes, text);
    assert_eq!(images.images().last().unwrap().text(), "quay.io/on/node:1");
}

#[test]
fn lists_have_comments_and_other_spellings() {
    let text = "# images\n\ndocker://quay.io/a/b:1\nquay.io/a/b:1 # again\nquay.io/a/c:1=m.corp/a/c:1\nnginx\n";
    let (images, summary) = read(Form::Guess, text);
    assert_eq!(summary.unwrap().uses, 4);
    let texts: Vec<_> = images.images().iter().map(|i| (i.text(), i.uses())).collect();
    assert_eq!(texts, [("quay.io/a/b:1", 2), ("quay.io/a/c:1", 1), ("nginx", 1)]);
}

#[test]
fn errors_say_where() {
    for (text, line, word) in [
        ("{\"kind\":\"Pod\",\n\"spec\":{\"containers\":[}}", 2, "JSON"),
        ("{\"kind\":\"Pod\"}\n{\"kind\":", 2, "JSON"),
        ("kind: Pod\nspec:\n  containers: [\n", 3, "YAML"),
        ("kind: Pod\n  x: y\n", 2, "YAML"),
        ("just some words\n", 1, "no object"),
    ] {
        let error = read(Form::Guess, text).1.unwrap_err();
        assert_eq!(error.line, line, "{error}");
        assert!(error.to_string().starts_with("dump:") && error.cause.contains(word), "{error}");
    }
}

#[test]
fn hostile_input_costs_little() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(read(Form::Guess, &deep).0.images().is_empty());
    let deep = format!("{{\"kind\":\"Pod\",\"spec\":{}1{}}}", "{\"a\":".repeat(5_000), "}".repeat(5_000));
    assert!(read(Form::Guess, &deep).1.is_ok());
    // A billion laughs: each line is ten of the one before.
    let mut bomb = "a0: &a0 [{image: x.io/a:1}]\n".to_owned();
    for level in 1..30 {
        let before = format!("*a{}, ", level - 1).repeat(10);
        bomb.push_str(&format!("a{level}: &a{level} [{before}]\n"));
    }
    assert_eq!(read(Form::Guess, &bomb).1.unwrap().objects, 1);
    let long =
        format!("{{\"kind\":\"Pod\",\"spec\":{{\"containers\":[{{\"image\":\"{}\"}}]}}}}", "ä".repeat(1_000_000));
    assert!(read(Form::Guess, &long).0.images()[0].text().len() <= MAX_IMAGE_BYTES);
    assert!(read(Form::List, &"x".repeat(1_000_000)).1.is_err());
    assert!(read(Form::Guess, "kind: \u{1}\n").1.is_err());
    assert!(Images::default().read("x", Form::Guess, &b"kind: \xff\n"[..]).is_err());
}

/// What a list says when it is read as a stream, without any of the shortcuts.
fn streamed(text: &str) -> Option<Vec<String>> {
    let mut images = Images::default();
    let source = images.symbol("dump");
    let mut reader = Reader { source, name: "dump", nodes: true, images: &mut images, kind: None, more: None };
    yaml::stream(&mut reader, lines::Lines::new(text.as_bytes())).ok()?;
    Some(shown(&images))
}

/// A pod as kubectl prints it, with everything that may stand around what matters.
const PRINTED: &str = "\
apiVersion: v1
items:
- apiVersion: v1
  kind: Pod
  metadata:
    annotations:
      note: |
        image: quay.io/not/this:1
        containers:

        - image: quay.io/not/that:1
      \"quoted/key\": 'it''s'
    name: web
    namespace: shop
    ownerReferences:
    - apiVersion: apps/v1
      kind: ReplicaSet
      name: web
  spec:
    containers:
    - command:
      - sh
      - -c
      - |
        image: quay.io/no/image:1
      env:
      - name: image
        value: quay.io/nor/this:1
      image: quay.io/acme/web:1
      name: web
      resources: {}
      terminationMessagePath: /dev/termination-log
    - image: quay.io/acme/side:2
      name: side
      description: a text that goes
        on in the next line
      volumeMounts:
      - mountPath: /x
        name: x
    imagePullSecrets:
    - name: mine
    volumes:
    - image:
        pullPolicy: Always
        reference: quay.io/acme/model:3
      name: model
  status:
    containerStatuses:
    - imageID: m.lab/acme/web@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
      name: web
      state:
        running:
          startedAt: \"2026-01-01T00:00:00Z\"
- kind: Node
  status:
    images:
    - names:
      - quay.io/on/node@sha256:1
      - quay.io/on/node:1
      sizeBytes: 1
- kind: Pod
  spec:
    containers:
    - args: [\"a\",
        \"b\"]
      image: quay.io/acme/flow:4
kind: List
metadata:
  continue: more
---
kind: Pod
spec: {containers: [{name: c, image: quay.io/acme/other:5}]}
";

#[test]
fn lists_are_read_alike_by_items_and_as_a_stream() {
    let (images, summary) = read(Form::Nodes, PRINTED);
    let summary = summary.unwrap();
    assert_eq!((summary.objects, summary.more.as_deref()), (4, Some("more")));
    assert_eq!(Some(shown(&images)), streamed(PRINTED));
    let texts: Vec<_> = images.images().iter().map(|i| i.text().trim_start_matches("quay.io/")).collect();
    let expected =
        ["acme/web:1", "acme/side:2", "acme/model:3", "on/node@sha256:1", "on/node:1", "acme/flow:4", "acme/other:5"];
    assert_eq!(texts, expected);
    assert_eq!(images.images()[0].running().len(), 1);
    assert_eq!(images.users(&images.images()[1]).next().unwrap().pull_secret, "mine");
    // Nothing of the first item but what may matter is parsed, and the last cannot be judged line by line.
    let items: Vec<String> = PRINTED.split("\n- ").map(|item| format!("- {item}")).collect();
    let thinned = thin::thin(&items[1]).unwrap();
    assert!(!thinned.contains("not/this") && !thinned.contains("nor/this"), "{thinned}");
    assert_eq!(thin::thin(&items[items.len() - 1]), None);
    // A mistake far down is told in its line.
    let broken = PRINTED.replace("      name: model\n", "      name: [model\n");
    let line = 1 + broken.lines().position(|l| l.contains("[model")).unwrap() as u64;
    let error = read(Form::Guess, &broken).1.unwrap_err();
    assert!(error.line >= line && error.line <= line + 12, "{error}");
}

proptest::proptest! {
    /// Any lines of a dump left out, twice there, or indented otherwise: both ways agree, or refuse.
    #[test]
    fn shortcuts_change_nothing(
        cuts in proptest::collection::vec((0usize..70, 0u8..4), 0..6)
    ) {
        let mut lines: Vec<String> = PRINTED.lines().map(str::to_owned).collect();
        for (at, what) in cuts {
            let at = at % lines.len();
            match what {
                0 => { lines.remove(at); }
                1 => lines.insert(at, lines[at].clone()),
                2 => lines[at].insert_str(0, "  "),
                _ => lines[at] = lines[at].trim_start_matches("  ").to_owned(),
            }
        }
        let text = lines.join("\n");
        if let Some(expected) = streamed(&text) {
            let (images, result) = read(Form::Nodes, &text);
            if result.is_ok() {
                proptest::prop_assert_eq!(shown(&images), expected, "{}", text);
            }
        }
    }

    #[test]
    fn whatever_is_printed_is_read_alike(
        pods in proptest::collection::vec(
            ("[a-z]{1,6}", proptest::collection::vec(("[a-z]{1,5}", "[a-z.]{1,8}/[a-z]{1,5}(:[0-9.]{1,4})?", "\\PC{0,40}"), 0..3)),
            0..4,
        )
    ) {
        let items: Vec<serde_json::Value> = pods
            .iter()
            .map(|(name, containers)| {
                let containers: Vec<serde_json::Value> = containers
                    .iter()
                    .map(|(name, image, text)| serde_json::json!({
                        "args": [text, "two\nlines\n"], "env": [{"name": name, "value": text}], "image": image, "name": name,
                        "note": text, "terminationMessagePath": format!("{text}\n  image: {text}\n"),
                    }))
                    .collect();
                serde_json::json!({"kind": "Pod", "metadata": {"annotations": {"a": text_of(name), name: "x: y"}, "name": name},
                    "spec": {"containers": containers}})
            })
            .collect();
        let list = serde_json::json!({"apiVersion": "v1", "items": items, "kind": "List"});
        let yaml = serde_saphyr::to_string(&list).unwrap();
        let (from_yaml, result) = read(Form::Objects, &yaml);
        proptest::prop_assert!(result.is_ok(), "{:?} {}", result, yaml);
        let (from_json, _) = read(Form::Objects, &list.to_string());
        proptest::prop_assert_eq!(shown(&from_yaml), shown(&from_json), "{}", yaml);
    }
}

fn text_of(name: &str) -> String {
    format!("{name}:\n  - image: \"{name}\n")
}

proptest::proptest! {
    #[test]
    fn anything_is_read_or_refused(text in ".{0,300}") {
        let _ = read(Form::Guess, &text);
        let _ = read(Form::Objects, &text);
    }

    /// Cutting a stream into its values lets nothing pass that is no JSON, and refuses nothing that is.
    #[test]
    fn json_is_what_serde_json_takes(text in "[\\[\\]{}:,\"a1 \\n\\\\-]{0,30}", whole in "\\{(\"items\": ?\\[[{}, ]{0,8}\\]|\"a\": ?[01]{1,2}|[,{}\"]){0,3}\\}") {
        for text in [format!("{{{text}"), format!("[{text}"), whole] {
            let mut theirs = serde_json::Deserializer::from_str(&text).into_iter::<serde_json::Value>();
            let accepted = theirs.all(|value| value.is_ok_and(|v| v.is_object() || v.is_array()));
            proptest::prop_assert_eq!(read(Form::Objects, &text).1.is_ok(), accepted, "{}", text);
        }
    }

    #[test]
    fn broken_dumps_are_read_or_refused(cut in 0usize..1200, byte in proptest::prelude::any::<u8>()) {
        let mut bytes = POD.as_bytes().to_vec();
        if let Some(at) = bytes.get_mut(cut) {
            *at = byte;
        }
        let _ = Images::default().read("x", Form::Guess, &bytes[..]);
        let mut bytes = WORKLOADS.as_bytes().to_vec();
        if let Some(at) = bytes.get_mut(cut * 2) {
            *at = byte;
        }
        let _ = Images::default().read("x", Form::Guess, &bytes[..]);
    }
}
