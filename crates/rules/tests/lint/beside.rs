//! Checks that look at something beside the rules: images in use, the cluster's configuration, a node's files, the mirror.

use super::*;

/// A case for each of these checks.
pub(super) fn cases() -> Vec<Case> {
    let good = || rules(&[idms("quay.io/a=m.lab/a!"), itms("quay.io/a=m.lab/a!")]);
    vec![
        (
            "MR023",
            vec![E],
            rules(&[idms("*.redhat.io=m.lab/r"), image("blockedRegistries: [old.redhat.io]")]),
            vec![rules(&[
                idms("*.redhat.io=m.lab/r old.redhat.io=m.lab/old"),
                image("blockedRegistries: [old.redhat.io]"),
            ])],
        ),
        (
            "MR029",
            vec![W],
            with_images(&[idms("quay.io/a=m.lab/a")], "quay.io/a/x:1"),
            vec![with_images(&[idms("quay.io/a=m.lab/a")], &format!("quay.io/a/x{DIGEST}"))],
        ),
        (
            "MR030",
            vec![W],
            with_images(&[itms("quay.io/a=m.lab/a")], &format!("quay.io/a/x:1{DIGEST}")),
            vec![with_images(&[itms("quay.io/a=m.lab/a")], "quay.io/a/x:1")],
        ),
        (
            "MR031",
            vec![E],
            with_images(&[itms("quay.io/a=m.lab/a")], "ghcr.io/x/y:1"),
            vec![with_images(&[itms("quay.io/a=m.lab/a")], "m.lab/x/y:1\nlocalhost/z:1\nquay.io/a/x:1")],
        ),
        (
            "MR032",
            vec![I],
            with_images(&[itms("quay.io/a=m.lab/a quay.io/b=m.lab/b")], "quay.io/a/x:1"),
            vec![with_images(&[itms("quay.io/a=m.lab/a")], "quay.io/a/x:1"), good()],
        ),
        (
            "MR037",
            vec![W],
            with_images(&[itms("reg.lab=m.lab/a")], "reg.lab:5000/a/b:1"),
            vec![with_images(&[itms("reg.lab:5000=m.lab/a")], "reg.lab:5000/a/b:1")],
        ),
        (
            "MR041",
            vec![E],
            with_images(&[itms("quay.io/a=docker.io")], "quay.io/a/x:1"),
            vec![with_images(&[itms("quay.io/a=docker.io/n")], "quay.io/a/x:1")],
        ),
        (
            "MR043",
            vec![W],
            input(Given {
                rules: &[itms("quay.io/a=m.lab:5000/a")],
                pull_secret: Some(&["m.lab", "quay.io"]),
                ..Given::default()
            }),
            vec![
                input(Given {
                    rules: &[itms("quay.io/a=m.lab:5000/a")],
                    pull_secret: Some(&["m.lab:5000"]),
                    ..Given::default()
                }),
                good(),
            ],
        ),
        (
            "MR044",
            vec![W],
            rules(&[itms("quay.io/a=m.lab:5000/a"), image("")]),
            vec![
                input(Given {
                    rules: &[itms("quay.io/a=m.lab:5000/a"), image("")],
                    trusted_ca: Some(&["m.lab..5000"]),
                    ..Given::default()
                }),
                rules(&[itms("quay.io/a=m.lab:5000/a"), image("insecureRegistries: ['m.lab:5000']")]),
            ],
        ),
        (
            "MR045",
            vec![W],
            rules(&[itms("quay.io/a=m.lab:5000/a"), image("insecureRegistries: [m.lab]")]),
            vec![rules(&[itms("quay.io/a=m.lab:5000/a"), image("insecureRegistries: ['m.lab:5000']")])],
        ),
        (
            "MR046",
            vec![E],
            rules(&[itms("quay.io/a=m.lab/a"), image("allowedRegistries: [m.lab]")]),
            vec![rules(&[itms("quay.io/a=m.lab/a"), image("allowedRegistries: [quay.io]")])],
        ),
        (
            "MR047",
            vec![W],
            rules(&[itms("quay.io/a=m.lab/a"), image("blockedRegistries: [quay.io]")]),
            vec![rules(&[idms("quay.io/openshift-release-dev=m.lab/ocp"), image("blockedRegistries: [quay.io]")])],
        ),
        (
            "MR048",
            vec![W],
            rules(&[itms("quay.io/a=m.lab/a"), image("blockedRegistries: [m.lab]")]),
            vec![rules(&[itms("quay.io/a=m.lab/a"), image("blockedRegistries: [n.lab]")])],
        ),
        (
            "MR049",
            vec![E],
            rules(&[itms("quay.io/a=m.lab/a"), image("blockedRegistries: [quay.io/a/b]")]),
            vec![rules(&[itms("quay.io/a=m.lab/a"), image("blockedRegistries: [quay.io/b]")])],
        ),
        (
            "MR050",
            vec![E],
            conf(&["[[registry]]\nlocation = \"https://quay.io\"\n"]),
            vec![conf(&["[[registry]]\nlocation = \"quay.io\"\n"])],
        ),
        (
            "MR051",
            vec![W, W, W],
            conf(&[
                "[[registry]]\nlocation = \"quay.io\"\nblock = true\n[[registry.mirrors]]\nlocation = \"m.lab\"\n[[registry]]\nlocation = \"a.io\"\nmirror_by_digest_only = true\n",
            ]),
            vec![conf(&["short-name-mode = \"disabled\"\n[[registry]]\nlocation = \"quay.io\"\nblocked = true\n"])],
        ),
        (
            "MR052",
            vec![W],
            conf(&["[[registry]]\nlocation = \"quay.io\"\n[[registry]]\nprefix = \"quay.io\"\nlocation = \"b.io\"\n"]),
            vec![conf(&["[[registry]]\nlocation = \"quay.io\"\n[[registry]]\nlocation = \"b.io\"\n"])],
        ),
        (
            "MR053",
            vec![W],
            conf(&["[[registry]]\nlocation = \"quay.io\"\n", "[[registry]]\nlocation = \"quay.io\"\n"]),
            vec![conf(&["[[registry]]\nlocation = \"quay.io\"\n", "[[registry]]\nlocation = \"b.io\"\n"])],
        ),
        (
            "MR055",
            vec![I],
            input(Given { rules: &[itms("quay.io=m.lab")], current: Some(idms("quay.io=m.lab")), ..Given::default() }),
            vec![input(Given {
                rules: &[idms("quay.io=m.lab ghcr.io=m.lab/g")],
                current: Some(idms("quay.io=m.lab")),
                ..Given::default()
            })],
        ),
        (
            "MR055",
            vec![W],
            input(Given {
                rules: &[image("containerRuntimeSearchRegistries: [quay.io]")],
                current: Some(image("")),
                ..Given::default()
            }),
            vec![good()],
        ),
        (
            "MR057",
            vec![I],
            with_images(&[idms("quay.io/a=m.lab/a")], "m.lab/a/x:1"),
            vec![with_images(&[idms("quay.io/a=m.lab/a")], "quay.io/a/x:1")],
        ),
        (
            "MR058",
            vec![W],
            values(
                "global: {image: {digest: 'sha256:11'}}\na: {image: {repository: a}}\nb: {image: {repository: b}}\n",
            ),
            vec![
                values("global: {image: {digest: 'sha256:11'}}\na: {image: {repository: a}}\n"),
                values("a: {image: {repository: a, digest: x}}\nb: {image: {repository: b, digest: y}}\n"),
            ],
        ),
        (
            "MR059",
            vec![W],
            with_images(&[itms("runai.jfrog.io/op=m.lab/op")], "runai.jfrog.io/core-llm/x:1"),
            vec![with_images(&[itms("runai.jfrog.io/op=m.lab/op")], "runai.jfrog.io/op/x:1")],
        ),
        (
            "MR062",
            vec![W],
            observed(Some(false), Some(("sha256:2", true)), None),
            vec![observed(Some(true), Some(("sha256:2", true)), None)],
        ),
        (
            "MR063",
            vec![W],
            observed(Some(false), Some(("sha256:2", false)), None),
            vec![observed(Some(true), Some(("sha256:2", false)), None)],
        ),
        (
            "MR064",
            vec![W],
            observed(None, Some(("sha256:2", true)), Some("sha256:3")),
            vec![observed(None, Some(("sha256:2", true)), Some("sha256:2")), observed(None, None, Some("sha256:2"))],
        ),
        (
            "MR065",
            vec![W, W],
            with_images(&[itms("quay.io/a=m.lab/a")], "quay.io/a/x\nquay.io/a/y:latest"),
            vec![with_images(&[itms("quay.io/a=m.lab/a")], "quay.io/a/x:1\nghcr.io/z")],
        ),
        (
            "MR066",
            vec![W],
            with_images(&[itms("quay.io/a=m.lab/a")], "grafana/grafana:1"),
            vec![with_images(&[itms("quay.io/a=m.lab/a")], "docker.io/grafana/grafana:1")],
        ),
    ]
}
