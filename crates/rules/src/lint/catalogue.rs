//! Every check that there is: stable codes, what is wrong about it, what helps. The page docs/lint.md is made of it.

use Severity::{Error, Information, Warning};

use crate::problem::Severity;

/// What a check looks at besides the rules; without it the check is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// The rules alone.
    Rules,
    /// The images in use (`--images`).
    Images,
    /// The cluster's image configuration (`--image-config`).
    ImageConfig,
    /// The image configuration and, where it names one, the ConfigMap of additional CAs (`--trusted-ca`).
    TrustedCa,
    /// A registries.conf of a node (`--registries-conf`).
    RegistriesConf,
    /// The global pull secret (`--pull-secret`).
    PullSecret,
    /// The rules as they are in the cluster (`--current`).
    Current,
    /// Values of a chart (`--values`).
    Values,
    /// The mirror itself (`--check-mirror`).
    Mirror,
}

/// One check.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// `MR001`.
    pub code: &'static str,
    /// What it is unless the finding says otherwise.
    pub severity: Severity,
    /// What it looks at.
    pub needs: Needs,
    /// In a few words.
    pub title: &'static str,
    /// Why it matters.
    pub why: &'static str,
    /// What helps.
    pub fix: &'static str,
}

const fn check(
    code: &'static str,
    severity: Severity,
    needs: Needs,
    title: &'static str,
    why: &'static str,
    fix: &'static str,
) -> Check {
    Check { code, severity, needs, title, why, fix }
}

/// All checks, by code.
pub const CATALOGUE: [Check; 70] = [
    check(
        "MR001",
        Error,
        Needs::Rules,
        "a source is no legal source",
        "The API server or the Machine Config Operator refuses a source with a tag, a digest, a scheme, a trailing slash or capitals in its path; the operator then writes nothing at all, for any rule.",
        "Write `host[:port][/path]`, as proposed.",
    ),
    check(
        "MR002",
        Error,
        Needs::Rules,
        "a mirror is no legal mirror",
        "As MR001, for a mirror: one such entry keeps every other rule from reaching the nodes.",
        "Write `host[:port][/path]`, as proposed.",
    ),
    check(
        "MR003",
        Error,
        Needs::Rules,
        "a wildcard where none can be",
        "A wildcard is `*.` and a domain, and only a source may be one: without port and path, and never in a mirror.",
        "List the hosts one by one.",
    ),
    check(
        "MR004",
        Error,
        Needs::Rules,
        "two policies for one source",
        "mirrorSourcePolicy must be the same for one source over all IDMS, ITMS and ICSP, entries without mirrors included. An ICSP always means AllowContactingSource. The operator refuses everything otherwise.",
        "Give all entries of the source one policy; convert the ICSP.",
    ),
    check(
        "MR005",
        Error,
        Needs::Rules,
        "a source that must never be contacted is its own mirror",
        "NeverContactSource and the source among its mirrors contradict each other, and the operator refuses everything.",
        "Remove the source from its mirrors.",
    ),
    check(
        "MR006",
        Warning,
        Needs::Rules,
        "an entry without a mirror has no effect",
        "Mirrors are empty or only repeat the source: the entry is dropped before rendering.",
        "Add a mirror, or delete the entry.",
    ),
    check(
        "MR007",
        Warning,
        Needs::Rules,
        "NeverContactSource without a mirror does not block",
        "The entry is dropped as a whole, its policy included: the source is contacted as before.",
        "Add a mirror, or use blockedRegistries if the name must not run at all.",
    ),
    check(
        "MR008",
        Warning,
        Needs::Rules,
        "a source is listed among its mirrors",
        "It is tried where it stands, and once more at the end, where it is tried anyway.",
        "Remove it from the mirrors.",
    ),
    check(
        "MR009",
        Error,
        Needs::Rules,
        "a mirror is listed twice",
        "In IDMS and ITMS the API server refuses duplicates. In an ICSP they are taken (a warning here), and may bring the list into another order.",
        "List each mirror once.",
    ),
    check(
        "MR010",
        Warning,
        Needs::Rules,
        "several lists for one source become one in another order",
        "Entries for one source whose lists share no mirror say nothing about their order: they are interleaved by the bytes of their names.",
        "Write one list in one entry.",
    ),
    check(
        "MR011",
        Warning,
        Needs::Rules,
        "lists for one source contradict each other",
        "One list has A before B, another B before A. The loop is broken by the bytes of the names; where that puts the source itself before a mirror, nodes go to the internet first, and this is an error.",
        "Write one list in one entry.",
    ),
    check(
        "MR012",
        Warning,
        Needs::Rules,
        "a mirror's host has neither dot nor port",
        "At pull time such a host is read as a part of a Docker Hub name, the rewritten reference is not canonical, and the whole pull fails.",
        "Use the full domain name, or add the port.",
    ),
    check(
        "MR013",
        Error,
        Needs::Rules,
        "a mirror that no reference can be rewritten to",
        "Below `docker.io` itself a repository of one part means `library/…`, and `index.docker.io` means `docker.io`: the rewritten name is not canonical, and the whole pull fails.",
        "Name a namespace on docker.io.",
    ),
    check(
        "MR014",
        Warning,
        Needs::Rules,
        "an official Docker Hub image without `library/`",
        "`docker.io/NAME` as a source covers the organisation NAME. The official image is `docker.io/library/NAME`, which it does not cover.",
        "Write `docker.io/library/NAME`.",
    ),
    check(
        "MR015",
        Warning,
        Needs::Rules,
        "a source under another name of Docker Hub",
        "Names are compared as texts: a source `registry-1.docker.io/…` or `registry.hub.docker.com/…` covers only references that are written so, and `docker.io/…` and short names are not.",
        "Add the same entry for `docker.io/…`.",
    ),
    check(
        "MR016",
        Error,
        Needs::Rules,
        "a source that can never match",
        "References to `index.docker.io` are read as `docker.io` before any rule is looked up.",
        "Write `docker.io`.",
    ),
    check(
        "MR017",
        Warning,
        Needs::Rules,
        "an official image under a name that it does not have",
        "`registry-1.docker.io/NAME` is neither form of the official image: that is `docker.io/library/NAME`, or `registry-1.docker.io/library/NAME`.",
        "Write `docker.io/library/NAME`.",
    ),
    check(
        "MR018",
        Warning,
        Needs::Rules,
        "a nested source goes elsewhere than its parent says",
        "The longest source alone counts, nothing is inherited. The nested entry's mirrors are not what the parent's entry would make of the name.",
        "Confirm that it is meant, or make both agree.",
    ),
    check(
        "MR019",
        Information,
        Needs::Rules,
        "a nested source says what its parent says",
        "The parent's entry makes exactly the same of every name below.",
        "The entry may be removed.",
    ),
    check(
        "MR020",
        Error,
        Needs::Rules,
        "a nested source takes the mirrors of the other kind away",
        "The longest source alone counts, for both kinds of pulls. A source that only one kind knows, below a source of the other kind, leaves pulls of that other kind without mirrors.",
        "Add the nested source in the other kind too, as proposed.",
    ),
    check(
        "MR021",
        Warning,
        Needs::Rules,
        "a nested source may be contacted although its parent may not",
        "NeverContactSource is not inherited by a nested source with mirrors of its own.",
        "Write NeverContactSource in the nested entry too.",
    ),
    check(
        "MR022",
        Warning,
        Needs::Rules,
        "a wildcard and a plain source overlap",
        "The longer text wins, and of equally long ones the wildcard, because `*` sorts first.",
        "Make the hosts explicit.",
    ),
    check(
        "MR023",
        Error,
        Needs::ImageConfig,
        "a wildcard source above a blocked or insecure host",
        "A table without mirrors inside a wildcard source makes rendering fail as a whole (E_WILDCARD_NESTED).",
        "Replace the wildcard by hosts, or give the host an entry of its own.",
    ),
    check(
        "MR024",
        Warning,
        Needs::Rules,
        "a wildcard source drops the host",
        "All hosts that match are sent to one path of the mirror; repositories of the same path on two hosts become one.",
        "One entry for each host.",
    ),
    check(
        "MR025",
        Warning,
        Needs::Rules,
        "two sources share a mirror",
        "Repositories of the same path below both sources meet at the mirror. An error where the images in use show that they do, information where annotations say that both hold the same content.",
        "Give each source a path of its own, or declare that the content is the same.",
    ),
    check(
        "MR026",
        Warning,
        Needs::Rules,
        "a mirror lies within another source's mirror",
        "Distinct repositories may meet there.",
        "Keep the paths apart.",
    ),
    check(
        "MR027",
        Warning,
        Needs::Rules,
        "a mirror is itself a source",
        "Rewriting happens once. The mirror's own mirrors are not tried.",
        "List both mirrors in the first entry.",
    ),
    check(
        "MR028",
        Error,
        Needs::Rules,
        "two sources are mirrors of each other and neither may be contacted",
        "Both are blocked, and each is the other's only way out.",
        "Remove one of the entries, or its policy.",
    ),
    check(
        "MR029",
        Warning,
        Needs::Images,
        "images by tag under a rule for digests",
        "IDMS and ICSP serve pulls by digest only.",
        "Add an ITMS for the source, or name the images by digest.",
    ),
    check(
        "MR030",
        Warning,
        Needs::Images,
        "images by digest under a rule for tags",
        "An ITMS serves pulls by tag only.",
        "Add an IDMS for the source.",
    ),
    check(
        "MR031",
        Error,
        Needs::Images,
        "an image that no rule covers",
        "Without a route to the internet its pull fails.",
        "Add the rule, as proposed.",
    ),
    check(
        "MR032",
        Information,
        Needs::Images,
        "a rule that no image needs",
        "None of the images in the list falls under it.",
        "Keep it if the list is not complete; else delete it.",
    ),
    check(
        "MR033",
        Warning,
        Needs::Rules,
        "no source is forbidden",
        "Without NeverContactSource anywhere, a missing mirror goes unnoticed as long as the internet answers, and fails on the day it does not.",
        "Try the rules in a staging cluster with `rules convert --policy never`.",
    ),
    check(
        "MR034",
        Warning,
        Needs::Rules,
        "pulls of one kind become impossible",
        "NeverContactSource blocks the source for both kinds of pulls, and mirrors exist for one kind only.",
        "Add the mirrors for the other kind.",
    ),
    check(
        "MR035",
        Warning,
        Needs::Rules,
        "an ImageContentSourcePolicy",
        "It is deprecated since OpenShift 4.13. Mixed with an IDMS for the same source, early 4.13 clusters may refuse it.",
        "`airlock rules convert`; the nodes do not notice.",
    ),
    check(
        "MR036",
        Warning,
        Needs::Rules,
        "one source has other mirrors for tags than for digests",
        "Possible, and rarely meant.",
        "Make the lists agree.",
    ),
    check(
        "MR037",
        Warning,
        Needs::Images,
        "ports of source and references differ",
        "`host:port` and `host` are different names; only a source without port matches references with one, by a quirk that upstream wants to end.",
        "Write the host exactly as the references have it.",
    ),
    check(
        "MR038",
        Warning,
        Needs::Rules,
        "capitals in a source's host",
        "Hosts are compared with their case: only references written the same way are covered.",
        "Write the host in small letters, as references usually are.",
    ),
    check(
        "MR039",
        Warning,
        Needs::Rules,
        "a mirror's path is deeper than its registry allows",
        "quay.io and docker.io take two parts, the registry inside OpenShift exactly two; others may be told with `--max-nested-paths`.",
        "One entry for each repository, with flattened names.",
    ),
    check(
        "MR040",
        Warning,
        Needs::Rules,
        "a flattened mirror name under a rule for a namespace",
        "Rewriting keeps the slashes below the source: `ns/name` becomes `…-ns/name`, never `…-ns-name`.",
        "One entry for each repository.",
    ),
    check(
        "MR041",
        Error,
        Needs::Images,
        "an image that the rule makes no legal name of",
        "The rewritten name is too long or not canonical, and the whole pull fails before the first attempt.",
        "Shorten or correct the mirror.",
    ),
    check(
        "MR042",
        Warning,
        Needs::Rules,
        "a placeholder",
        "The text looks like an example that was never filled in.",
        "Write the name of your registry.",
    ),
    check(
        "MR043",
        Warning,
        Needs::PullSecret,
        "a mirror without credentials in the pull secret",
        "Mirrors are looked up by their own host[:port] or path; secrets of projects are not used for them.",
        "Add the host to the global pull secret.",
    ),
    check(
        "MR044",
        Warning,
        Needs::TrustedCa,
        "a mirror without a trusted certificate",
        "Neither additionalTrustedCA has a key for its host (`host..port`) nor insecureRegistries an entry. Fine only where the certificate is trusted publicly.",
        "Add the CA.",
    ),
    check(
        "MR045",
        Warning,
        Needs::ImageConfig,
        "an insecure registry without the mirror's port",
        "insecureRegistries compares with the port: `m.lab` does not cover `m.lab:5000`.",
        "Write `host:port`.",
    ),
    check(
        "MR046",
        Error,
        Needs::ImageConfig,
        "allowed registries do not contain a source",
        "policy.json judges the name that the pod asks for, not the mirror's.",
        "Add the source.",
    ),
    check(
        "MR047",
        Warning,
        Needs::ImageConfig,
        "a blocked registry that is not blocked",
        "It covers the release payload, which no digest mirror serves: the operator drops the entry and says so only in its log.",
        "Add an IDMS for the payload.",
    ),
    check(
        "MR048",
        Warning,
        Needs::ImageConfig,
        "a blocked mirror",
        "Endpoints inside a blocked registry are skipped.",
        "Do not block the mirror's host.",
    ),
    check(
        "MR049",
        Error,
        Needs::ImageConfig,
        "a blocked source",
        "policy.json rejects the name, although a mirror could serve it.",
        "Use NeverContactSource instead of blockedRegistries.",
    ),
    check(
        "MR050",
        Error,
        Needs::RegistriesConf,
        "a registries.conf that does not load",
        "Then every pull on the node fails, also of images that have nothing to do with it.",
        "Correct the line.",
    ),
    check(
        "MR051",
        Warning,
        Needs::RegistriesConf,
        "an unknown key in registries.conf",
        "It is ignored without a word.",
        "Correct the key.",
    ),
    check(
        "MR052",
        Warning,
        Needs::RegistriesConf,
        "a prefix twice in one file",
        "The first table stays, the later one is dropped without a word.",
        "Make one table of both.",
    ),
    check(
        "MR053",
        Warning,
        Needs::RegistriesConf,
        "a drop-in replaces a table of the main file",
        "The later file replaces the whole table, mirrors included.",
        "Move it into an IDMS or ITMS.",
    ),
    check(
        "MR054",
        Warning,
        Needs::Rules,
        "a MachineConfig writes registries.conf",
        "The Machine Config Operator writes that file itself from the rules.",
        "Use IDMS, ITMS and image.config.",
    ),
    check(
        "MR055",
        Warning,
        Needs::Current,
        "the change drains or reboots nodes",
        "Information where nodes are drained, a warning where they reboot.",
        "Apply everything at once, in a maintenance window.",
    ),
    check(
        "MR056",
        Warning,
        Needs::Rules,
        "IDMS and ITMS in separate files",
        "Applied one after the other they may roll out twice.",
        "Write them into one file.",
    ),
    check(
        "MR057",
        Information,
        Needs::Images,
        "an image names the mirror itself",
        "Charts that are changed to name the mirror need no rule; both at once map twice.",
        "Choose one of the two.",
    ),
    check(
        "MR058",
        Warning,
        Needs::Values,
        "one digest for several images",
        "A digest identifies one image; a chart value shared by several cannot be right.",
        "A digest for each image.",
    ),
    check(
        "MR059",
        Warning,
        Needs::Images,
        "a vendor is mapped in part",
        "Repositories beside those in the rules, on the same registry, are in use without a rule.",
        "Add the siblings, or map the whole host.",
    ),
    check(
        "MR060",
        Information,
        Needs::Rules,
        "one entry would do for the host",
        "All entries of the host keep their path below one mirror.",
        "Map the host; entries are needed one by one only where paths differ.",
    ),
    check(
        "MR061",
        Warning,
        Needs::Rules,
        "a catalog or its bundles under the wrong kind",
        "Catalog images are usually pulled by tag, bundles and what they name by digest.",
        "IDMS for bundles, ITMS (or the mirror's name) for the catalog.",
    ),
    check(
        "MR062",
        Warning,
        Needs::Mirror,
        "a digest in use is not at the mirror",
        "The tag is there, the digest is not: it moved since it was mirrored.",
        "Mirror again before the upgrade.",
    ),
    check(
        "MR063",
        Warning,
        Needs::Mirror,
        "a mirror holds one platform of an image that is used as a whole",
        "The index has another digest than the single manifest that was copied.",
        "Copy with all platforms.",
    ),
    check(
        "MR064",
        Warning,
        Needs::Mirror,
        "a tag at the mirror means another image",
        "Its digest differs from the source's.",
        "Mirror again.",
    ),
    check(
        "MR065",
        Warning,
        Needs::Images,
        "an image without a fixed tag",
        "`latest`, or no tag: nobody knows which one is mirrored.",
        "Name a version.",
    ),
    check(
        "MR066",
        Warning,
        Needs::Images,
        "a short name",
        "It depends on the search registries of the node.",
        "Write the registry.",
    ),
    check(
        "MR067",
        Error,
        Needs::Rules,
        "a name is missing, illegal or used twice",
        "Objects have a name of small letters, digits, dots and hyphens (RFC 1123); a second one of the same kind replaces the first.",
        "Rename.",
    ),
    check(
        "MR068",
        Warning,
        Needs::Rules,
        "fields that only a cluster writes",
        "uid, resourceVersion and the like must not be applied again.",
        "Remove them.",
    ),
    check(
        "MR069",
        Warning,
        Needs::Rules,
        "a field that does not belong there",
        "Wrong apiVersion for the kind, the list of another kind, a list for a text or a text for a list, a namespace: refused by the API server, or ignored.",
        "Correct the field.",
    ),
    check(
        "MR070",
        Information,
        Needs::Rules,
        "the release payload is covered in part",
        "A release is read from `quay.io/openshift-release-dev/ocp-release` and `quay.io/openshift-release-dev/ocp-v4.0-art-dev`.",
        "Add both to an IDMS.",
    ),
];

/// The check of a code.
pub fn find(code: &str) -> Option<&'static Check> {
    CATALOGUE.iter().find(|check| check.code.eq_ignore_ascii_case(code))
}

impl Needs {
    /// For the page.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Rules => "the rules",
            Self::Images => "the images in use (`--images`)",
            Self::ImageConfig => "the cluster's image configuration (`--image-config`)",
            Self::TrustedCa => "the image configuration and its ConfigMap (`--image-config`, `--trusted-ca`)",
            Self::RegistriesConf => "a node's registries.conf (`--registries-conf`)",
            Self::PullSecret => "the pull secret (`--pull-secret`)",
            Self::Current => "the rules in the cluster (`--current`)",
            Self::Values => "values of a chart (`--values`)",
            Self::Mirror => "the mirror itself (`--check-mirror`)",
        }
    }
}

/// The page about all checks.
pub fn page() -> String {
    let mut out = String::from(
        "# What `airlock rules lint` finds\n\n\
         Codes are stable. Severities: *error* — refused, or pulls break; *warning* — probably not meant; *information*.\n\
         A check that looks at something else than the rules is silent without it. How to run it, deny, allow and fix:\n\
         [rules.md](rules.md#lint).\n\n\
         This page is made from the catalogue in `crates/rules/src/lint/catalogue.rs`, and a test compares them:\n\
         `AIRLOCK_WRITE_DOCS=1 cargo test -p airlock-rules --test lint` writes it anew.\n",
    );
    for check in &CATALOGUE {
        out.push_str(&format!(
            "\n## {}: {}\n\n*{}*; looks at {}.\n\n{}\n\n**What helps:** {}\n",
            check.code,
            check.title,
            check.severity.as_str(),
            check.needs.describe(),
            check.why,
            check.fix
        ));
    }
    out
}
