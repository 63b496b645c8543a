//! The vectors `signatures`: real ones of Red Hat, tampered ones, and those of containers/image, each with its verdict; gpg is asked for a
//! second opinion.
#![allow(clippy::unwrap_used, reason = "a test fails by unwrapping")]

use std::path::{Path, PathBuf};
use std::process::Command;

use airlock_client::{Client, Options, RegistriesConf};
use airlock_content::signature::{
    KeyRing, PUBLIC_STORE_URL, SECOND_PUBLIC_STORE_URL, SignatureError, Signed, Store, Verifier,
};
use airlock_oci::{Digest, ErrorKind};
use airlock_testkit::tools;
use airlock_testkit::world::{Faults, Scale, Serving, World};
use bytes::Bytes;

/// 2026-11-21, after every lifetime in the vectors.
const NOW: u64 = 1_795_240_800;
/// 2025-06-24T00:00:00Z, when the signature that expires was good.
const THEN: u64 = 1_750_723_200;
const DIGEST_4_15: &str = "sha256:0da6316466d60a3a4535d5fed3589feb0391989982fba59d47d4c729912d6363";
const DIGEST_4_16: &str = "sha256:3717338045df06e31effea46761b2c7e90f543cc4f00547af8158dd6aea868c3";
const DIGEST_BUNDLE: &str = "sha256:50b9402635dd4b312a86bed05dcdbda8c00120d3789ec2e9b527045100b3bdb4";
const DIGEST_TEST: &str = "sha256:20bf21ed457b390829cdbeec8795a7bea1626991fda603e0d01b4e7f60427e55";
const RELEASE_KEY: &str = "567E347AD0044ADE55BA8A5F199E2F91FD431D51";

fn vectors() -> Option<PathBuf> {
    Some(tools::shared()?.join("vectors/updates/signatures"))
}

fn read(path: &Path) -> Bytes {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).into()
}

fn digest(text: &str) -> Digest {
    text.parse().unwrap()
}

/// `sha256:…` as a folder's name, `sha256=…`.
fn folder_of(digest: &str) -> String {
    digest.replace(':', "=")
}

fn red_hat(folder: &Path, file: &str, of: &str) -> Result<Signed, SignatureError> {
    Verifier::new(KeyRing::red_hat().unwrap(), NOW).verify(&digest(of), read(&folder.join(file)))
}

/// The keys of containers/image's tests.
fn test_keys(folder: &Path, name: &str) -> KeyRing {
    KeyRing::file(&folder.join("containers-image").join(name)).unwrap()
}

fn client() -> Client {
    let options = Options {
        registries_conf: RegistriesConf::Ignore,
        certs_d: Some(Vec::new()),
        retry_times: 1,
        ..Options::default()
    };
    Client::new(options).unwrap()
}

/// A program verifies on whichever of its threads is free.
fn sendable<F: Future + Send>(future: F) -> F {
    future
}

#[test]
fn real_signatures_hold_and_name_the_release() {
    let Some(folder) = vectors() else { return };
    for (file, of, name) in [
        (format!("store/{}/signature-1", folder_of(DIGEST_4_15)), DIGEST_4_15, "ocp-release:4.15.0-x86_64"),
        (format!("store/{}/signature-1", folder_of(DIGEST_4_16)), DIGEST_4_16, "ocp-release:4.16.0-x86_64"),
        ("good/uncompressed-form-of-4.15.0-signature-1".into(), DIGEST_4_15, "ocp-release:4.15.0-x86_64"),
    ] {
        let signed = red_hat(&folder, &file, of).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(signed.reference.to_string(), format!("quay.io/openshift-release-dev/{name}"));
        assert_eq!((signed.signer.as_str(), signed.digest.to_string().as_str()), (RELEASE_KEY, of));
        assert_eq!(signed.bytes, read(&folder.join(&file)));
    }
}

#[test]
fn four_version_3_signatures_of_one_digest_hold() {
    let Some(folder) = vectors() else { return };
    let mut names: Vec<String> = Vec::new();
    for number in 1..=4 {
        let file = format!("good/{}/signature-{number}", folder_of(DIGEST_BUNDLE));
        names.push(red_hat(&folder, &file, DIGEST_BUNDLE).unwrap().reference.to_string());
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 4, "{names:?}");
}

#[test]
fn every_published_key_file_is_read_as_it_is() {
    let Some(folder) = vectors() else { return };
    let prints = |name: &str| KeyRing::file(&folder.join("keys").join(name)).map(|ring| ring.fingerprints());
    // This one lacks the empty line after the armor's header.
    assert_eq!(prints("verifier-public-key-redhat-release").unwrap(), [RELEASE_KEY]);
    assert_eq!(prints("verifier-public-key-redhat-beta-2").unwrap(), ["B08B659EE86AF623BC90E8DB938A80CAF21541EB"]);
    assert_eq!(
        prints("verifier-public-key-redhat-release-auxiliary").unwrap(),
        ["6A6AA7C97C8890AEC6AEBFE2F76F66C3D4082792"]
    );
    assert_eq!(prints("two-keys-in-one-armor.asc").unwrap(), [RELEASE_KEY, "B08B659EE86AF623BC90E8DB938A80CAF21541EB"]);
    for (name, print) in [
        ("verifier-public-key-openshift-ci", "D04761B116203B0C0859B61628B76E05B923888E"),
        ("verifier-public-key-openshift-ci-2", "20CCC7AD272DCD3AA169F12A65C28371F55D29A9"),
        ("verifier-public-key-openshift-ci-3", "FE526D8F6FEDC123BE219E45CF4B45E2071F0337"),
        ("verifier-public-key-openshift-ci-4", "6A9588F07F2D3AE7973AD2A9193E53CCD2E2F7A4"),
    ] {
        assert_eq!(prints(name).unwrap(), [print], "{name}");
    }
    let corrupt = KeyRing::file(&folder.join("bad/corrupt-armored-key.asc")).unwrap_err();
    assert_eq!(corrupt.kind(), ErrorKind::Invalid, "{corrupt}");
    assert!(corrupt.what().contains("corrupt-armored-key.asc"), "{corrupt}");
    assert_eq!(KeyRing::file(&folder.join("keys/none")).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn what_was_tampered_with_cut_or_swapped_is_refused_each_by_its_name() {
    let Some(folder) = vectors() else { return };
    // The digest in the tampered one is still the right one: only the key tells.
    let tampered = red_hat(&folder, "bad/tampered-body-signature-1", DIGEST_4_15).unwrap_err();
    assert!(matches!(&tampered, SignatureError::Bad { key, .. } if key == RELEASE_KEY), "{tampered:?}");
    let cut = red_hat(&folder, "bad/truncated-signature-1", DIGEST_4_15).unwrap_err();
    assert!(matches!(cut, SignatureError::Malformed { .. }), "{cut:?}");
    let other = "sha256:37433b71c073c6cbfc8173ec7ab2d99032c8e6d6fe29de06e062d85e33e34531";
    let file = format!("bad/digest-mismatch/{}/signature-1", folder_of(other));
    let swapped = red_hat(&folder, &file, other).unwrap_err();
    let SignatureError::OtherDigest { signed, identity } = &swapped else { panic!("{swapped:?}") };
    assert_eq!((signed.to_string().as_str(), identity.contains("4.16.0-x86_64")), (DIGEST_4_16, true));
    let error = swapped.into_error(&digest(other));
    assert_eq!(error.kind(), ErrorKind::Content);
    assert!(error.to_string().contains(other) && error.to_string().contains(DIGEST_4_16), "{error}");

    let verifier = Verifier::new(KeyRing::red_hat().unwrap(), NOW);
    assert!(verifier.verify(&digest(other), Bytes::new()).is_err());
    // Every single bit of what was signed matters.
    let good = read(&folder.join("good/uncompressed-form-of-4.15.0-signature-1"));
    let text = good.windows(8).position(|w| w == b"critical").unwrap();
    for at in text..text + 300 {
        let mut changed = good.to_vec();
        changed[at] ^= 1;
        let refused = verifier.verify(&digest(DIGEST_4_15), changed.into()).unwrap_err();
        assert!(matches!(refused, SignatureError::Bad { .. }), "byte {at}: {refused:?}");
    }
}

#[test]
fn the_signatures_of_containers_image_get_their_verdicts() {
    let Some(folder) = vectors() else { return };
    let verdict = |keys: &str, name: &str, now: u64| {
        let bytes = read(&folder.join("containers-image").join(name));
        Verifier::new(test_keys(&folder, keys), now).verify(&digest(DIGEST_TEST), bytes)
    };
    let code = |keys: &str, name: &str| match verdict(keys, name, NOW) {
        Ok(_) => "good",
        Err(error) => error.code(),
    };
    for (keys, name, expected) in [
        ("public-key.gpg", "image.signature", "good"),
        ("public-key.gpg", "no-optional-fields.signature", "good"),
        ("public-key.gpg", "invalid-blob.signature", "signature-content"),
        ("public-key.gpg", "invalid-blob.signature-v3", "signature-content"),
        ("public-key.gpg", "invalid-reference.signature", "signature-content"),
        ("public-key.gpg", "corrupt.signature", "signature-bad"),
        ("public-key.gpg", "corrupt.signature-v3", "signature-bad"),
        ("public-key.gpg", "expired.signature", "signature-expired"),
        ("public-key.gpg", "unknown-key.signature", "signature-unknown-key"),
        ("public-key.gpg", "unknown-key.signature-v3", "signature-unknown-key"),
        ("public-key.gpg", "unknown-cosign-key.signature", "signature-malformed"),
        ("public-key.gpg", "unsigned-literal.signature", "signature-unsigned"),
        ("public-key.gpg", "unsigned-encrypted.signature", "signature-unsigned"),
        ("public-key-with-subkey.gpg", "subkey.signature", "good"),
        ("public-key-with-subkey.gpg", "subkey.signature-v3", "good"),
        ("public-key-with-revoked-subkey.gpg", "subkey-revoked.signature", "signature-revoked-key"),
        ("public-key-with-revoked-subkey.gpg", "subkey-revoked.signature-v3", "signature-revoked-key"),
        ("public-key-1.gpg", "subkey.signature", "signature-unknown-key"),
    ] {
        assert_eq!(code(keys, name), expected, "{name} with {keys}: {:?}", verdict(keys, name, NOW));
    }
    // Before its end the same signature was good; what it signs is no document, though.
    assert_eq!(verdict("public-key.gpg", "expired.signature", THEN).unwrap_err().code(), "signature-content");
    let SignatureError::UnknownKey { keys } = verdict("public-key.gpg", "unknown-key.signature", NOW).unwrap_err()
    else {
        panic!("another error");
    };
    assert_eq!(keys, ["5F9470E3BC6C3B55"]);
}

#[test]
fn of_several_signatures_one_that_holds_suffices() {
    let Some(folder) = vectors() else { return };
    let judge = |name: &str, keys: &str| {
        let image = folder.join("containers-image").join(name);
        let of = Digest::of(&read(&image.join("manifest.json")));
        let signatures = (1..).map(|n| image.join(format!("signature-{n}"))).take_while(|path| path.exists());
        Verifier::new(test_keys(&folder, keys), NOW).verify_any(&of, signatures.map(|path| read(&path)), "a folder")
    };
    judge("dir-img-valid", "public-key.gpg").unwrap();
    judge("dir-img-mixed", "public-key.gpg").unwrap();
    assert_eq!(judge("dir-img-unsigned", "public-key.gpg").unwrap_err().code(), "signature-missing");
    assert_eq!(judge("dir-img-modified-manifest", "public-key.gpg").unwrap_err().code(), "signature-other-digest");
    let none = judge("dir-img-mixed", "public-key-with-subkey.gpg").unwrap_err();
    let SignatureError::NoneHolds { refused, .. } = &none else { panic!("{none:?}") };
    assert_eq!(refused.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2]);
    assert!(none.to_string().contains("signature-2: "), "{none}");
}

#[tokio::test]
async fn a_folder_is_a_store_and_a_gap_ends_the_search() {
    let Some(folder) = vectors() else { return };
    let verifier = Verifier::new(KeyRing::red_hat().unwrap(), NOW);
    let store = |name: &str| [Store::new(client(), &format!("file://{}", folder.join(name).display())).unwrap()];
    let (of, folder_store) = (digest(DIGEST_4_15), store("store"));
    let signed = sendable(verifier.find(&of, &folder_store)).await.unwrap();
    assert_eq!(signed.reference.tag().unwrap().as_str(), "4.15.0-x86_64");
    let missing = verifier.find(&digest(DIGEST_BUNDLE), &store("store")).await.unwrap_err();
    assert!(missing.cause().contains("there is no signature in"), "{missing}");
    // Only signature-3 exists there.
    let of = digest("sha256:d33abd703ea76813f8dbd9518ff46d3f95ac23f364f5b6417d9fa2593aa72a1a");
    let keys = KeyRing::file(&folder.join("keys/graph-data-image-test-key-2D8AE332.asc")).unwrap();
    assert!(Verifier::new(keys.clone(), NOW).find(&of, &store("good")).await.is_err());
    let third = folder.join("good").join(folder_of(&of.to_string())).join("signature-3");
    let signed = Verifier::new(keys, NOW).verify(&of, read(&third)).unwrap();
    assert_eq!(signed.reference.repository().as_str(), "openshift-ota/cincinnati-ci-public");
}

#[tokio::test]
async fn the_worlds_stores_are_judged_over_the_network() {
    let Some(world) = World::get(Scale::Small) else { return };
    let Some(upstream) = world.start(Serving::Scripted(Faults::default())) else { return };
    let keys = KeyRing::file(&upstream.folder().join("keys/release-pk.asc")).unwrap();
    let payloads = &world.inventory().repos["quay.io/openshift-release-dev/ocp-release"];
    let (tag, of) = payloads.tags.iter().find(|(tag, _)| tag.ends_with("-x86_64")).unwrap();
    let store = |path: &str| [Store::new(client(), &format!("{}/{path}/openshift/release", upstream.http())).unwrap()];
    let verifier = Verifier::new(keys, NOW);
    let signed = verifier.find(&digest(of), &store("signatures")).await.unwrap();
    assert_eq!(signed.reference.tag().unwrap().as_str(), tag);
    // The first request of every path fails with 503.
    assert_eq!(verifier.find(&digest(of), &store("flaky/signatures")).await.unwrap(), signed);
    assert_eq!(verifier.find(&digest(of), &store("signatures-bad")).await.unwrap_err().kind(), ErrorKind::Content);
    let strict = Verifier::new(KeyRing::red_hat().unwrap(), NOW);
    let unknown = strict.find(&digest(of), &store("signatures")).await.unwrap_err();
    assert!(unknown.cause().contains("not among the trusted keys"), "{unknown}");
    let nobody = Store::new(client(), "http://127.0.0.1:1/signatures").unwrap();
    // Whichever store has one that holds is enough; what is wrong in another does not count against it.
    let [good] = store("signatures");
    let [bad] = store("signatures-bad");
    for first in [nobody.clone(), bad, Store::Folder(std::env::temp_dir().join("no such store"))] {
        assert_eq!(verifier.find(&digest(of), &[first, good.clone()]).await.unwrap(), signed);
    }
    let error = verifier.find(&digest(of), &[nobody]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network, "{error}");
    assert!(error.cause().contains("127.0.0.1:1"), "{error}");
}

#[test]
fn the_public_stores_are_asked_unless_one_is_named() {
    let of = |url| -> Vec<String> { Store::chosen(&client(), url).unwrap().iter().map(Store::describe).collect() };
    assert_eq!(of(None), [PUBLIC_STORE_URL, SECOND_PUBLIC_STORE_URL]);
    assert_eq!(of(Some(" ")), [PUBLIC_STORE_URL, SECOND_PUBLIC_STORE_URL]);
    assert_eq!(of(Some("https://mirror.lab/signatures")), ["https://mirror.lab/signatures/"]);
    assert!(Store::chosen(&client(), Some("ftp://mirror.lab")).is_err());
}

/// Whether gpg, with these keys only, finds a good signature.
fn gpg_says_good(gpg: &Path, keys: &Path, signature: &Path) -> bool {
    let home = tempfile::tempdir().unwrap();
    let run = |args: &[&std::ffi::OsStr]| {
        Command::new(gpg).arg("--homedir").arg(home.path()).args(["--batch", "--quiet"]).args(args).output().unwrap()
    };
    run(&["--import".as_ref(), keys.as_ref()]);
    let verified = run(&["--status-fd".as_ref(), "2".as_ref(), "--decrypt".as_ref(), signature.as_ref()]);
    String::from_utf8_lossy(&verified.stderr).contains("[GNUPG:] GOODSIG")
}

#[test]
fn gpg_agrees_about_every_signature() {
    let (Some(folder), Some(gpg)) = (vectors(), tools::need("gpg")) else { return };
    let image = folder.join("containers-image");
    let cases = [
        ("keys/verifier-public-key-redhat-release", format!("store/{}/signature-1", folder_of(DIGEST_4_15))),
        ("keys/two-keys-in-one-armor.asc", format!("good/{}/signature-1", folder_of(DIGEST_BUNDLE))),
        ("keys/two-keys-in-one-armor.asc", "bad/tampered-body-signature-1".into()),
        ("keys/two-keys-in-one-armor.asc", "bad/truncated-signature-1".into()),
        ("keys/verifier-public-key-openshift-ci-4", format!("store/{}/signature-1", folder_of(DIGEST_4_15))),
    ];
    let mut pairs: Vec<(PathBuf, PathBuf)> =
        cases.iter().map(|(key, signature)| (folder.join(key), folder.join(signature))).collect();
    for name in ["image", "no-optional-fields", "invalid-blob", "corrupt", "expired", "unknown-key", "unsigned-literal"]
    {
        pairs.push((image.join("public-key.gpg"), image.join(format!("{name}.signature"))));
    }
    pairs.push((image.join("public-key-with-subkey.gpg"), image.join("subkey.signature-v3")));
    for (keys, signature) in pairs {
        let ours = Verifier::new(KeyRing::file(&keys).unwrap(), NOW).verify(&digest(DIGEST_TEST), read(&signature));
        // What follows the cryptography - the document, its digest - is none of gpg's business.
        let good = matches!(ours, Ok(_) | Err(SignatureError::Content { .. } | SignatureError::OtherDigest { .. }));
        assert_eq!(good, gpg_says_good(&gpg, &keys, &signature), "{}: {ours:?}", signature.display());
    }
}
