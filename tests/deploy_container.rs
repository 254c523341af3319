//! The shipped image and manifests, as far as a machine without a container runtime can judge them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Instructions of a Dockerfile with their words, continued lines joined, stage by stage.
fn stages(text: &str) -> Vec<Vec<(String, String)>> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let joined = lines.join("\n").replace("\\\n", " ");
    let mut stages = vec![Vec::new()];
    for line in joined.lines().filter(|line| !line.trim().is_empty()) {
        let (instruction, rest) = line.trim().split_once(' ').expect("an instruction and its words");
        if instruction == "FROM" {
            stages.push(Vec::new());
        }
        let rest = rest.split_whitespace().collect::<Vec<_>>().join(" ");
        stages.last_mut().expect("one at least").push((instruction.to_string(), rest));
    }
    stages
}

#[test]
fn the_image_is_static_empty_and_without_rights_or_secrets() {
    let stages = stages(&text("deploy/container/Dockerfile"));
    let [arguments, build, tools, last] = &stages[..] else { panic!("{} stages", stages.len()) };
    let find = |stage: &[(String, String)], instruction: &str| -> Vec<String> {
        stage.iter().filter(|(name, _)| name == instruction).map(|(_, rest)| rest.clone()).collect()
    };
    assert_eq!(find(last, "FROM"), ["scratch"]);
    for stage in [tools, last] {
        assert_eq!(find(stage, "USER"), ["10001:0"]);
        assert_eq!(find(stage, "ENTRYPOINT"), ["[\"/kheish-daemon\"]"]);
        assert_eq!(find(stage, "CMD"), ["[\"serve\"]"]);
        assert_eq!(find(stage, "STOPSIGNAL"), ["SIGTERM"]);
        assert!(find(stage, "RUN").is_empty(), "nothing runs in the image that is shipped");
        assert!(find(stage, "COPY").iter().all(|copy| copy.starts_with("--from=build ")), "{stage:?}");
    }
    // The toolchain that the project asks for, so that the lock file and the lints are those that were tested.
    let version = text("Cargo.toml");
    let version = version.lines().find_map(|line| line.strip_prefix("rust-version = \"")?.strip_suffix('"'));
    let base =
        find(arguments, "ARG").into_iter().find_map(|arg| arg.strip_prefix("BUILD_IMAGE=rust:").map(str::to_string));
    assert!(base.as_ref().is_some_and(|base| base.starts_with(version.expect("a version"))), "{base:?}");
    let run = find(build, "RUN").join(" ");
    for wanted in ["+crt-static", "--locked", "--release", "readelf", "INTERP"] {
        assert!(run.contains(wanted), "{wanted}");
    }
    for (instruction, rest) in stages.iter().flatten() {
        assert_ne!(instruction, "ADD", "{rest}");
        let names_secret = ["TOKEN=", "MASTER_KEY=", "PASSWORD", "_KEY_FILE="].iter().any(|name| rest.contains(name));
        assert!(!["ENV", "ARG"].contains(&instruction.as_str()) || !names_secret, "{rest}");
    }
}

/// What the image sets is what the command line reads.
#[test]
fn every_variable_of_the_image_is_one_that_serve_reads() {
    let help = Command::new(env!("CARGO_BIN_EXE_kheish-daemon")).args(["serve", "--help"]).output().expect("it runs");
    let help = String::from_utf8(help.stdout).expect("text");
    let set: Vec<String> = stages(&text("deploy/container/Dockerfile"))
        .concat()
        .into_iter()
        .filter(|(instruction, _)| instruction == "ENV")
        .flat_map(|(_, rest)| {
            rest.split(' ').filter_map(|pair| Some(pair.split_once('=')?.0.to_string())).collect::<Vec<_>>()
        })
        .collect();
    assert!(set.contains(&"KHEISH_STATE_ROOT".to_string()), "{set:?}");
    for name in set {
        assert!(help.contains(&name), "{name}");
    }
}

#[test]
fn the_build_context_holds_neither_history_nor_state() {
    let ignored = text(".dockerignore");
    for name in [".git", "target", ".kheish-daemon"] {
        assert!(ignored.lines().any(|line| line == name), "{name}");
    }
}

/// The values of a YAML document by path (`spec.template.spec.containers.0.name`). Knows block mappings, block lists and
/// plain values, which is all that the shipped manifests use; anything else fails the test.
fn flat(document: &str) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    // Open containers: column, path, and for a list its next index.
    let mut open: Vec<(usize, String, usize)> = Vec::new();
    let mut key_of_next = (0, String::new());
    for line in document.lines() {
        let content = line.split(" #").next().unwrap_or_default().trim_end();
        if content.trim().is_empty() || content.trim_start().starts_with('#') {
            continue;
        }
        assert!(!content.contains(['\t', '{', '&', '|', '>']), "a form of YAML that this test does not read: {line}");
        let mut column = content.len() - content.trim_start().len();
        let mut rest = content.trim_start();
        while let Some(item) = rest.strip_prefix("- ") {
            open.retain(|(at, ..)| *at <= column);
            match open.last_mut() {
                Some((at, _, next)) if *at == column && *next > 0 => *next += 1,
                _ => open.push((column, key_of_next.1.clone(), 1)),
            }
            let (_, path, next) = open.last().expect("just there");
            key_of_next = (column + 2, format!("{path}.{}", next - 1));
            column += 2;
            rest = item;
        }
        let base = if key_of_next.0 == column && rest.len() < content.trim_start().len() {
            open.push((column, key_of_next.1.clone(), 0));
            key_of_next.1.clone()
        } else {
            open.retain(|(at, ..)| *at <= column);
            match open.last() {
                Some((at, path, 0)) if *at == column => path.clone(),
                _ => {
                    open.push((column, key_of_next.1.clone(), 0));
                    key_of_next.1.clone()
                }
            }
        };
        let path = |key: &str| if base.is_empty() { key.to_string() } else { format!("{base}.{key}") };
        match rest.split_once(": ").or_else(|| rest.strip_suffix(':').map(|key| (key, ""))) {
            Some((key, "")) => key_of_next = (column, path(key)),
            Some((key, value)) => drop(values.insert(path(key), value.trim_matches('"').to_string())),
            None => drop(values.insert(base, rest.trim_matches('"').to_string())),
        }
    }
    values
}

fn documents() -> Vec<BTreeMap<String, String>> {
    text("deploy/container/kubernetes.yaml").split("\n---\n").map(flat).collect()
}

fn of_kind(kind: &str) -> BTreeMap<String, String> {
    documents().into_iter().find(|document| document.get("kind").is_some_and(|found| found == kind)).expect(kind)
}

#[test]
fn the_reader_of_this_test_reads_what_the_manifests_use() {
    let read = flat(
        "a: 1\nb:\n  c: two\n  d:\n    - x\n    - y: 1\n      z: 2\n    - - deep\ne:\n- f: 3\n  # note\n  g: \"4\"\n",
    );
    let expected = [
        ("a", "1"),
        ("b.c", "two"),
        ("b.d.0", "x"),
        ("b.d.1.y", "1"),
        ("b.d.1.z", "2"),
        ("e.0.f", "3"),
        ("e.0.g", "4"),
    ];
    for (path, value) in expected {
        assert_eq!(read.get(path).map(String::as_str), Some(value), "{path}: {read:?}");
    }
}

#[test]
fn the_stateful_set_has_one_daemon_its_probes_no_rights_and_its_secrets_as_files() {
    let set = of_kind("StatefulSet");
    let pod = "spec.template.spec";
    let container = format!("{pod}.containers.0");
    let expected = [
        ("spec.replicas".to_string(), "1"),
        (format!("{pod}.automountServiceAccountToken"), "false"),
        (format!("{pod}.terminationGracePeriodSeconds"), "60"),
        (format!("{pod}.securityContext.runAsNonRoot"), "true"),
        (format!("{pod}.securityContext.runAsUser"), "10001"),
        (format!("{pod}.securityContext.runAsGroup"), "0"),
        (format!("{pod}.securityContext.seccompProfile.type"), "RuntimeDefault"),
        (format!("{container}.securityContext.allowPrivilegeEscalation"), "false"),
        (format!("{container}.securityContext.readOnlyRootFilesystem"), "true"),
        (format!("{container}.securityContext.capabilities.drop.0"), "ALL"),
        (format!("{container}.startupProbe.httpGet.path"), "/healthz"),
        (format!("{container}.readinessProbe.httpGet.path"), "/readyz"),
        (format!("{container}.livenessProbe.httpGet.path"), "/healthz"),
        (format!("{pod}.volumes.0.secret.secretName"), "kheish-secrets"),
        // 0440 in decimal: what the daemon accepts of a file of root's.
        (format!("{pod}.volumes.0.secret.defaultMode"), "288"),
        ("spec.volumeClaimTemplates.0.spec.accessModes.0".to_string(), "ReadWriteOncePod"),
    ];
    for (path, value) in expected {
        assert_eq!(set.get(&path).map(String::as_str), Some(value), "{path}");
    }
    for (path, value) in &set {
        assert!(!path.contains("secretKeyRef"), "a secret in the environment: {path}: {value}");
        assert!(!path.contains("hostPath") && !path.contains("hostNetwork"), "{path}: {value}");
    }
    // What the container mounts is there, and what its command line names lies in a mount.
    let mounts: Vec<(String, String)> = (0..)
        .map_while(|index| {
            let mount = format!("{container}.volumeMounts.{index}");
            Some((set.get(&format!("{mount}.name"))?.clone(), set.get(&format!("{mount}.mountPath"))?.clone()))
        })
        .collect();
    assert_eq!(mounts.len(), 4, "{mounts:?}");
    for (name, _) in &mounts {
        let is_there = set.iter().any(|(path, value)| {
            value == name
                && (path.starts_with(&format!("{pod}.volumes.")) || path.starts_with("spec.volumeClaimTemplates."))
        });
        assert!(is_there, "no volume {name}");
    }
    let args: Vec<&str> =
        (0..).map_while(|index| set.get(&format!("{container}.args.{index}")).map(String::as_str)).collect();
    let files =
        args.iter().copied().filter_map(|arg| Some(arg.split_once('=')?.1)).filter(|value| value.starts_with('/'));
    let key_file = set.get(&format!("{container}.env.0.value")).expect("the master key's file").as_str();
    for file in files.chain([key_file]) {
        assert!(mounts.iter().any(|(_, place)| Path::new(file).starts_with(place)), "{file} lies in no mount");
    }
    let parsed =
        Command::new(env!("CARGO_BIN_EXE_kheish-daemon")).env_clear().arg("__check-command").args(&args).output();
    assert!(parsed.as_ref().is_ok_and(|output| output.status.success()), "{args:?}: {parsed:?}");
}

#[test]
fn everything_that_is_selected_is_labelled_so() {
    let name = "app.kubernetes.io/name";
    let set = of_kind("StatefulSet");
    let label = set.get(&format!("spec.template.metadata.labels.{name}")).expect("a label");
    assert_eq!(set.get(&format!("spec.selector.matchLabels.{name}")), Some(label));
    assert_eq!(of_kind("Service").get(&format!("spec.selector.{name}")), Some(label));
    assert_eq!(of_kind("NetworkPolicy").get(&format!("spec.podSelector.matchLabels.{name}")), Some(label));
    assert_eq!(set.get("spec.serviceName"), of_kind("Service").get("metadata.name"));
}
