//! Checks that look at the rules alone.

use super::*;

/// A case for each of these checks.
pub(super) fn cases() -> Vec<Case> {
    let good = || rules(&[idms("quay.io/a=m.lab/a!"), itms("quay.io/a=m.lab/a!")]);
    let r = |text: String| rules(&[text]);
    vec![
        (
            "MR001",
            vec![E, E],
            r(idms("quay.io/a:1=m.lab/a https://quay.io/b/=m.lab/b")),
            vec![good(), r(idms("*.a.io=m.lab/a"))],
        ),
        ("MR002", vec![E], r(idms("quay.io/a=m.lab/a@sha256:00")), vec![good()]),
        ("MR003", vec![E, E], r(idms("*.a.io/x=m.lab/x quay.io=*.lab")), vec![r(idms("*.a.io=m.lab/x"))]),
        ("MR004", vec![E], rules(&[idms("quay.io=m.lab!"), set("icsp", "i", "quay.io=m.lab")]), vec![good()]),
        ("MR005", vec![E], r(idms("quay.io/a=m.lab/a,quay.io/a!")), vec![r(idms("quay.io/a=m.lab/a,quay.io/a"))]),
        ("MR006", vec![W, W], r(idms("quay.io/a= quay.io/b=quay.io/b")), vec![good()]),
        ("MR007", vec![W], r(idms("quay.io/a=!")), vec![r(idms("quay.io/a=")), good()]),
        ("MR008", vec![W], r(idms("quay.io/a=quay.io/a,m.lab/a")), vec![r(idms("quay.io/a=quay.io/a"))]),
        ("MR009", vec![E], r(idms("quay.io/a=m.lab/a,m.lab/a")), vec![good()]),
        ("MR009", vec![W], r(set("icsp", "i", "quay.io/a=m.lab/a,m.lab/a")), vec![good()]),
        (
            "MR010",
            vec![W],
            r(idms("quay.io/a=z.lab/a quay.io/a=b.lab/a")),
            vec![
                r(idms("quay.io/a=z.lab/a,b.lab/a quay.io/a=b.lab/a")),
                r(idms("quay.io/a=b.lab/a quay.io/a=b.lab/a")),
            ],
        ),
        (
            "MR011",
            vec![W],
            r(idms("aa.io/x=m.lab/a,n.lab/a aa.io/x=n.lab/a,m.lab/a").replace("aa.io", "zz.io")),
            vec![r(idms("quay.io/a=m.lab/a,n.lab/a quay.io/a=n.lab/a,o.lab/a"))],
        ),
        ("MR011", vec![E], r(idms("docker.io/x=m.lab/a,n.lab/a docker.io/x=n.lab/a,m.lab/a")), vec![good()]),
        (
            "MR012",
            vec![W],
            r(idms("quay.io/a=mirror/a")),
            vec![r(idms("quay.io/a=mirror:5000/a quay.io/b=localhost/b"))],
        ),
        ("MR013", vec![E], r(idms("quay.io/a=docker.io")), vec![r(idms("quay.io/a=docker.io/a"))]),
        (
            "MR014",
            vec![W],
            r(itms("docker.io/alpine=m.lab/alpine")),
            vec![r(itms("docker.io/grafana=m.lab/g docker.io/library/alpine=m.lab/alpine"))],
        ),
        (
            "MR015",
            vec![W],
            r(itms("registry-1.docker.io/mpioperator=m.lab/mpi")),
            vec![r(itms("registry-1.docker.io/mpioperator=m.lab/mpi docker.io/mpioperator=m.lab/mpi"))],
        ),
        ("MR016", vec![E], r(itms("index.docker.io/acme=m.lab/acme")), vec![r(itms("docker.io/acme=m.lab/acme"))]),
        (
            "MR017",
            vec![W],
            r(itms("registry-1.docker.io/alpine=m.lab/alpine")),
            vec![r(itms("registry-1.docker.io/prom=m.lab/prom"))],
        ),
        (
            "MR018",
            vec![W],
            r(idms("quay.io/a=m.lab/a quay.io/a/b=m.lab/other")),
            vec![r(idms("quay.io/a=m.lab/a quay.io/a/b=m.lab/a/b quay.io/ab=m.lab/x"))],
        ),
        (
            "MR019",
            vec![I],
            r(idms("quay.io/a=m.lab/a quay.io/a/b=m.lab/a/b")),
            vec![r(idms("quay.io/a=m.lab/a quay.io/a/b=m.lab/other"))],
        ),
        (
            "MR020",
            vec![E],
            rules(&[idms("quay.io/dell=m.lab/dell"), itms("quay.io/dell/csm=m.lab/csm")]),
            vec![
                rules(&[idms("quay.io/dell=m.lab/dell"), itms("quay.io/dell=m.lab/dell")]),
                rules(&[idms("quay.io/dell=m.lab/d quay.io/dell/csm=m.lab/csm"), itms("quay.io/dell/csm=m.lab/csm")]),
            ],
        ),
        (
            "MR021",
            vec![W],
            r(idms("quay.io/a=m.lab/a! quay.io/a/b=m.lab/a/b")),
            vec![r(idms("quay.io/a=m.lab/a! quay.io/a/b=m.lab/a/b!"))],
        ),
        (
            "MR022",
            vec![W],
            r(idms("*.example.io=m.lab/e a.example.io=m.lab/a")),
            vec![r(idms("*.example.io=m.lab/e a.other.io=m.lab/a"))],
        ),
        ("MR024", vec![W], r(idms("*.redhat.io=m.lab/r")), vec![good()]),
        (
            "MR025",
            vec![W],
            r(idms("ghcr.io/grafana=m.lab/g docker.io/grafana=m.lab/g")),
            vec![good(), r(idms("registry-1.docker.io/x=m.lab/x docker.io/x=m.lab/x"))],
        ),
        (
            "MR025",
            vec![E],
            with_images(&[idms("ghcr.io/g=m.lab/g docker.io/g=m.lab/g")], "ghcr.io/g/app:1\ndocker.io/g/app:2"),
            vec![good()],
        ),
        (
            "MR025",
            vec![I],
            r(idms("ghcr.io/g=m.lab/g docker.io/g=m.lab/g").replace(
                "  name: d",
                "  name: d\n  annotations:\n    airlock.lint/same-content: ghcr.io/g, docker.io/g",
            )),
            vec![good()],
        ),
        (
            "MR026",
            vec![W],
            r(idms("quay.io=m.lab ghcr.io/x=m.lab/x")),
            vec![r(idms("quay.io/n=m.lab/n quay.io/n/c=m.lab/n/c"))],
        ),
        ("MR027", vec![W], r(idms("quay.io=m.lab m.lab=n.lab")), vec![good()]),
        ("MR028", vec![E, E], r(idms("quay.io=m.lab! m.lab=quay.io!")), vec![r(idms("quay.io=m.lab m.lab=quay.io"))]),
        (
            "MR033",
            vec![W],
            r(idms("quay.io/a=m.lab/a")),
            vec![good(), input(Given { rules: &[idms("quay.io/a=m.lab/a")], connected: true, ..Given::default() })],
        ),
        ("MR034", vec![W], r(itms("quay.io/a=m.lab/a!")), vec![good()]),
        ("MR035", vec![W], r(set("icsp", "i", "quay.io/a=m.lab/a")), vec![good()]),
        ("MR036", vec![W], rules(&[idms("quay.io/a=m.lab/a"), itms("quay.io/a=n.lab/a")]), vec![good()]),
        ("MR038", vec![W], r(itms("Quay.io/a=m.lab/a")), vec![good()]),
        ("MR039", vec![W], r(itms("ghcr.io/a=quay.io/org/deep/a")), vec![r(itms("ghcr.io/a=quay.io/org/a"))]),
        (
            "MR039",
            vec![W],
            input(Given { rules: &[itms("quay.io=flat.lab")], nested_paths: &[("flat.lab", 1)], ..Given::default() }),
            vec![r(itms("quay.io=flat.lab"))],
        ),
        (
            "MR039",
            vec![W],
            with_images(&[itms("ghcr.io/a=image-registry.openshift-image-registry.svc:5000/a")], "ghcr.io/a/b/c:1"),
            vec![with_images(&[itms("ghcr.io/a=image-registry.openshift-image-registry.svc:5000/a")], "ghcr.io/a/b:1")],
        ),
        (
            "MR040",
            vec![W],
            r(itms("quay.io/dell=m.lab/quay-dell")),
            vec![r(itms("quay.io/dell=m.lab/dell quay.io/dell/csm=m.lab/dell-csm"))],
        ),
        (
            "MR040",
            vec![W],
            with_images(&[itms("quay.io/dell/csm=m.lab/dell-csm")], "quay.io/dell/csm/driver:1"),
            vec![with_images(&[itms("quay.io/dell/csm=m.lab/dell-csm")], "quay.io/dell/csm:1")],
        ),
        ("MR042", vec![W, W], r(itms("quay.io/a=registry.example.com/a quay.io/b=<mirror-registry>/b")), vec![good()]),
        ("MR054", vec![W], r(machine_config("/etc/containers/registries.conf")), vec![r(machine_config("/etc/motd"))]),
        (
            "MR056",
            vec![W],
            rules(&[idms("quay.io=m.lab"), itms("quay.io=m.lab")]),
            vec![r(idms("quay.io=m.lab") + "---\n" + &itms("quay.io=m.lab"))],
        ),
        (
            "MR060",
            vec![I],
            r(itms("nvcr.io/a=m.lab/n/a nvcr.io/b=m.lab/n/b")),
            vec![r(itms("nvcr.io/a=m.lab/n/a nvcr.io/b=m.lab/other"))],
        ),
        (
            "MR061",
            vec![W],
            r(idms("registry.redhat.io/redhat/redhat-operator-index=m.lab/r/i")),
            vec![rules(&[
                idms("registry.redhat.io/redhat/redhat-operator-index=m.lab/r/i"),
                itms("registry.redhat.io/redhat/redhat-operator-index=m.lab/r/i"),
            ])],
        ),
        (
            "MR061",
            vec![W],
            r(itms("quay.io/acme/acme-bundle=m.lab/b")),
            vec![r(idms("quay.io/acme/acme-bundle=m.lab/b"))],
        ),
        ("MR067", vec![E], rules(&[idms("quay.io=m.lab"), idms("quay.io=m.lab")]), vec![good()]),
        ("MR067", vec![E], r(set("idms", "Bad_Name", "quay.io=m.lab")), vec![good()]),
        ("MR067", vec![E], r(idms("quay.io=m.lab").replace("  name: d\n", "  labels: {}\n")), vec![good()]),
        (
            "MR068",
            vec![W, W],
            r(idms("quay.io=m.lab").replace("  name: d", "  name: d\n  uid: x\n  resourceVersion: \"1\"")),
            vec![good()],
        ),
        (
            "MR069",
            vec![W],
            r(idms("quay.io=m.lab").replace("imageDigestMirrors", "repositoryDigestMirrors")),
            vec![good()],
        ),
        (
            "MR069",
            vec![W],
            r(idms("quay.io=m.lab").replace("config.openshift.io/v1", "operator.openshift.io/v1alpha1")),
            vec![good()],
        ),
        ("MR069", vec![W], r(idms("quay.io=m.lab").replace("    mirrors:\n    - ", "    mirrors: ")), vec![good()]),
        ("MR069", vec![W], r(idms("quay.io=m.lab").replace("source: \"quay.io\"", "source: [quay.io]")), vec![good()]),
        ("MR069", vec![W], r(idms("quay.io=m.lab").replace("  name: d", "  name: d\n  namespace: x")), vec![good()]),
        (
            "MR070",
            vec![I],
            r(idms("quay.io/openshift-release-dev/ocp-release=m.lab/r")),
            vec![
                r(idms("quay.io/openshift-release-dev=m.lab/o")),
                input(Given { rules: &[idms("quay.io/a=m.lab/a")], connected: true, ..Given::default() }),
            ],
        ),
    ]
}
