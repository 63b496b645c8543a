//! The promise: what we carried and serve is what other people's programs expect: skopeo, crane and podman read from and write to our
//! registry, a served archive answers like one, and an archive unpacked by tar is storage for a stock registry.

use std::path::{Path, PathBuf};
use std::process::Command;

use airlock_testkit::binary::Binary;
use airlock_testkit::contents::Contents;
use airlock_testkit::target::{Access, Program, Target, serve};
use airlock_testkit::tools;
use airlock_testkit::world::{Scale, Serving, Upstream, World};

const AIRLOCK: &str = env!("CARGO_BIN_EXE_airlock");
/// Multi-platform, single, signed, and with referrers.
const SETS: [&str; 2] = ["add-01-tags", "add-07-signed"];

fn upstream() -> Option<Upstream> {
    World::get(Scale::Small)?.start(Serving::DockerRegistry)
}

/// Runs a tool to its end and gives what it printed.
#[track_caller]
fn run(command: &mut Command) -> String {
    let done = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(done.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}

/// Mirrors a set into an archive; gives its folder, which lives as long as the program's home.
fn archive(upstream: &Upstream, set: &str, here: &Binary) -> PathBuf {
    let folder = here.folder().join(set);
    let isc = upstream.isc(set).display().to_string();
    here.run(["mirror", "-c", &isc, &format!("file://{}", folder.display())]).expect_code(0);
    folder
}

fn skopeo(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["--insecure-policy", "copy", "--all", "--preserve-digests", "--quiet"]);
    command
}

/// The digest of the top manifest in a folder that skopeo wrote.
fn copied_digest(folder: &Path) -> String {
    airlock_oci::Digest::of(&std::fs::read(folder.join("manifest.json")).expect("skopeo wrote a manifest")).to_string()
}

#[test]
fn skopeo_copies_out_of_our_registry_plain_closed_and_with_tls() {
    let (Some(program), Some(upstream)) = (tools::need("skopeo"), upstream()) else { return };
    let user = Some(("keeper".to_owned(), "pass word".to_owned()));
    for access in [
        Access::default(),
        Access { user: user.clone(), tls: false },
        Access { user: None, tls: true },
        Access { user, tls: true },
    ] {
        let Some(target) = Target::airlock(Path::new(AIRLOCK), access.clone()) else { return };
        let mut more = Vec::new();
        if let Some(certificate) = target.certificate() {
            let trusted = upstream.folder().join(format!("trusted-{}", target.address()));
            std::fs::create_dir_all(&trusted).unwrap();
            std::fs::copy(certificate, trusted.join("ca.crt")).unwrap();
            more.push(format!("--src-cert-dir={}", trusted.display()));
        } else {
            more.push("--src-tls-verify=false".to_owned());
        }
        let mut here = Binary::new(AIRLOCK).envs(upstream.env());
        if let Some(certificate) = target.certificate() {
            here = here.env("SSL_CERT_FILE", certificate.display().to_string());
        }
        let mut mirror: Vec<String> =
            ["mirror", "-c", &upstream.isc(SETS[0]).display().to_string()].map(str::to_owned).into();
        mirror.extend(["--workspace".to_owned(), format!("file://{}/ws", here.folder().display())]);
        if !access.tls {
            mirror.push("--dest-tls-verify=false".to_owned());
        }
        if let Some((user, password)) = &access.user {
            mirror.extend(["--dest-creds".to_owned(), format!("{user}:{password}")]);
            more.push(format!("--src-creds={user}:{password}"));
        }
        mirror.push(format!("docker://{}", target.address()));
        here.run(mirror).expect_code(0);

        for image in upstream.expected(SETS[0]).images {
            let to = upstream.folder().join("copied");
            run(skopeo(&program)
                .args(&more)
                .arg(format!("docker://{}/{}", target.address(), image.dest[0]))
                .arg(format!("dir:{}", to.display())));
            assert_eq!(copied_digest(&to), image.digest, "{} with {access:?}", image.reference);
        }
        if access.user.is_some() {
            let refused = skopeo(&program)
                .args(more.iter().filter(|word| !word.contains("creds")))
                .arg(format!("docker://{}/library/busybox:1.36", target.address()))
                .arg(format!("dir:{}", upstream.folder().join("refused").display()))
                .output()
                .unwrap();
            assert!(!refused.status.success(), "a stranger got in with {access:?}");
        }
    }
}

#[test]
fn skopeo_and_crane_copy_out_of_a_served_archive_by_either_name() {
    let (Some(program), Some(crane), Some(upstream)) = (tools::need("skopeo"), tools::need("crane"), upstream()) else {
        return;
    };
    let here = Binary::new(AIRLOCK).envs(upstream.env());
    let folder = archive(&upstream, SETS[1], &here);
    let (_server, address) =
        serve(Path::new(AIRLOCK), "--archive", &folder, &["--plain-http".into(), "--anonymous".into(), "pull".into()]);
    for image in upstream.expected(SETS[1]).images {
        for name in [&image.dest[0], &image.reference] {
            let to = upstream.folder().join("copied");
            run(skopeo(&program)
                .arg("--src-tls-verify=false")
                .arg(format!("docker://{address}/{name}"))
                .arg(format!("dir:{}", to.display())));
            assert_eq!(copied_digest(&to), image.digest, "{name}");
            assert_eq!(
                run(Command::new(&crane).args(["digest", "--insecure", &format!("{address}/{name}")])),
                image.digest
            );
        }
    }
    let refused = skopeo(&program)
        .args(["--dest-tls-verify=false", &format!("dir:{}", upstream.folder().join("copied").display())])
        .arg(format!("docker://{address}/new/image:v1"))
        .output()
        .unwrap();
    assert!(!refused.status.success(), "an archive is read-only");
}

#[test]
fn skopeo_podman_and_crane_push_into_our_registry() {
    let (Some(skopeo_program), Some(podman), Some(crane)) =
        (tools::need("skopeo"), tools::need("podman"), tools::need("crane"))
    else {
        return;
    };
    let Some(upstream) = upstream() else { return };
    let Some(target) = Target::airlock(Path::new(AIRLOCK), Access::default()) else { return };
    let expected = upstream.expected(SETS[0]);
    let image = expected.images.iter().find(|image| image.reference.contains("app0")).expect("the set has app0");
    let source = format!("{}/quay.io/world/app0:v1.0", upstream.address());

    let to = format!("docker://{}/by/skopeo:v1", target.address());
    run(skopeo(&skopeo_program).args([
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
        &format!("docker://{source}"),
        &to,
    ]));
    run(Command::new(&crane).args(["copy", "--insecure", &source, &format!("{}/by/crane:v1", target.address())]));
    let folder = upstream.folder().join("podman");
    let podman = |arguments: &[&str]| {
        let mut command = Command::new(&podman);
        command.arg("--root").arg(folder.join("root")).arg("--runroot").arg(folder.join("run"));
        run(command.args(["--storage-driver", "vfs"]).args(arguments))
    };
    podman(&["pull", "--quiet", "--tls-verify=false", &source]);
    podman(&["push", "--quiet", "--tls-verify=false", &source, &format!("{}/by/podman:v1", target.address())]);

    let contents = target.contents();
    for name in ["by/skopeo", "by/crane"] {
        assert_eq!(contents.repositories[name].tags["v1"], image.digest, "{name}");
    }
    // podman compresses again, which makes another manifest; that it can be pulled shows that it is whole.
    podman(&["pull", "--quiet", "--tls-verify=false", &format!("{}/by/podman:v1", target.address())]);
    assert_eq!(contents.uploads, Vec::<PathBuf>::new());
}

#[test]
fn an_archive_unpacked_by_tar_is_served_by_a_stock_registry() {
    let (Some(tar), Some(crane), Some(upstream)) = (tools::need("tar"), tools::need("crane"), upstream()) else {
        return;
    };
    let here = Binary::new(AIRLOCK).envs(upstream.env());
    for set in SETS {
        let folder = archive(&upstream, set, &here);
        let unpacked = upstream.folder().join(format!("unpacked-{set}"));
        std::fs::create_dir_all(&unpacked).unwrap();
        run(Command::new(&tar).arg("xf").arg(folder.join("mirror_000001.tar")).arg("-C").arg(&unpacked));
        let held = Contents::read(&unpacked);
        let Some(target) = Target::start_over(Program::DockerRegistry2, &unpacked) else { return };
        for image in upstream.expected(set).images {
            let name = format!("{}/{}", target.address(), image.dest[0]);
            assert_eq!(run(Command::new(&crane).args(["digest", "--insecure", &name])), image.digest);
            // Reads every byte of it and compares digests on the way.
            run(Command::new(&crane).args(["validate", "--insecure", "--remote", &name]));
        }
        assert_eq!(target.contents(), held, "serving changed nothing");
    }
}

#[test]
fn distribution_3_takes_and_gives_a_set() {
    let Some(upstream) = upstream() else { return };
    let Some(middle) = Target::start(Program::Distribution3, Access::default()) else { return };
    let here = Binary::new(AIRLOCK).envs(upstream.env());
    let isc = upstream.isc(SETS[0]).display().to_string();
    let workspace = format!("file://{}/ws", here.folder().display());
    let to = format!("docker://{}", middle.address());
    here.run(["mirror", "-c", &isc, "--workspace", &workspace, "--dest-tls-verify=false", &to]).expect_code(0);
    upstream.check(SETS[0], middle.address());
    // And out of it again, by its own names.
    let own = here.folder().join("own.yaml");
    let mut text =
        "kind: ImageSetConfiguration\napiVersion: mirror.openshift.io/v2alpha1\nmirror:\n  additionalImages:\n"
            .to_owned();
    for image in upstream.expected(SETS[0]).images {
        text += &format!("  - name: {}/{}\n", middle.address(), image.dest[0]);
    }
    std::fs::write(&own, text).unwrap();
    let Some(end) = Target::docker_registry() else { return };
    let there = Binary::new(AIRLOCK);
    let workspace = format!("file://{}/ws", there.folder().display());
    let to = format!("docker://{}", end.address());
    let own = own.display().to_string();
    there
        .run([
            "mirror",
            "-c",
            &own,
            "--workspace",
            &workspace,
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            &to,
        ])
        .expect_code(0);
    upstream.check(SETS[0], end.address());
}
