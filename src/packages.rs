//! What this binary is made of: every package of Cargo.lock, and how far each gets.
//! Owns: the two lists that are compiled in, and the bill of materials made of them.
//! May touch: nothing.
//! Never: asks a registry; says of a package more than the lock file and the reviewed list do.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The lock file that this binary was built with (`--locked` in every command of the Makefile).
pub const LOCK: &str = include_str!("../Cargo.lock");
/// The reviewed list, which a test compares with the lock file and with what cargo compiles.
const REVIEWED: &str = include_str!("../tests/data/tidy/allowed-packages.txt");

/// How far a package gets on Linux.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// Linked into this binary.
    Linked,
    /// Ran in the compiler or in a build script.
    Build,
    /// Linked into tests only.
    Test,
    /// Locked for another platform or for a feature that is off; never compiled.
    Never,
}

/// One package of the lock file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// How far it gets.
    pub reach: Reach,
    /// SHA-256 of the archive it was built from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// What it needs, as `name@version`.
    pub needs: Vec<String>,
}

impl Package {
    /// `name@version`.
    pub fn id(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }

    fn url(&self) -> String {
        format!("pkg:cargo/{}", self.id())
    }
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
    #[serde(default)]
    dependencies: Vec<String>,
}

/// Every package but this one, in the lock file's order.
///
/// # Panics
/// The compiled-in lists are not what the tests found them to be.
pub fn all() -> Vec<Package> {
    let lock: Lock = toml::from_str(LOCK).expect("cargo wrote the lock file");
    let reviewed: BTreeMap<&str, Reach> = REVIEWED.lines().filter_map(reviewed).collect();
    let locked = &lock.package;
    let ours = |package: &&Locked| package.name != env!("CARGO_PKG_NAME");
    locked
        .iter()
        .filter(ours)
        .map(|package| {
            let major = package.version.split('.').next().unwrap_or_default();
            let reach = reviewed
                .get(package.name.as_str())
                .or_else(|| reviewed.get(format!("{}@{major}", package.name).as_str()))
                .copied();
            Package {
                name: package.name.clone(),
                version: package.version.clone(),
                // A package that nobody reviewed counts as linked: the worst that it can be.
                reach: reach.unwrap_or(Reach::Linked),
                sha256: package.checksum.clone(),
                needs: package.dependencies.iter().map(|needed| resolved(locked, needed)).collect(),
            }
        })
        .collect()
}

/// What the daemon itself names, as `name@version`.
fn direct() -> Vec<String> {
    let lock: Lock = toml::from_str(LOCK).expect("cargo wrote the lock file");
    let own = lock.package.iter().find(|package| package.name == env!("CARGO_PKG_NAME"));
    own.into_iter().flat_map(|own| &own.dependencies).map(|needed| resolved(&lock.package, needed)).collect()
}

/// `name`, or `name version` where several are locked, as `name@version`.
fn resolved(locked: &[Locked], needed: &str) -> String {
    let mut words = needed.split(' ');
    let name = words.next().unwrap_or_default();
    let version = words
        .next()
        .or_else(|| locked.iter().find(|package| package.name == name).map(|package| package.version.as_str()));
    format!("{name}@{}", version.unwrap_or_default())
}

/// One line `name reach` of the reviewed list.
fn reviewed(line: &str) -> Option<(&str, Reach)> {
    let (name, reach) = line.split('#').next()?.trim().split_once(' ')?;
    let reach = match reach.trim() {
        "linked" => Reach::Linked,
        "build" => Reach::Build,
        "test" => Reach::Test,
        "never" => Reach::Never,
        _ => return None,
    };
    Some((name, reach))
}

/// The bill of materials as CycloneDX 1.6: what is linked, and what ran while building. It has no time and no serial number,
/// so that two builds of one source have the same one.
pub fn bill_of_materials() -> Value {
    let packages: Vec<Package> = all().into_iter().filter(|package| package.reach <= Reach::Build).collect();
    let urls: BTreeMap<String, String> = packages.iter().map(|package| (package.id(), package.url())).collect();
    let known = |needs: &[String]| needs.iter().filter_map(|id| urls.get(id)).cloned().collect::<Vec<_>>();
    let own = format!("pkg:cargo/{}@{}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    let components: Vec<Value> = packages
        .iter()
        .map(|package| {
            let mut component = json!({
                "type": "library",
                "bom-ref": package.url(),
                "name": package.name,
                "version": package.version,
                "purl": package.url(),
                // CycloneDX: excluded is what is needed to build and not to run.
                "scope": if package.reach == Reach::Linked { "required" } else { "excluded" },
            });
            if let Some(sha256) = &package.sha256 {
                component["hashes"] = json!([{"alg": "SHA-256", "content": sha256}]);
            }
            component
        })
        .collect();
    let mut dependencies = vec![json!({"ref": own, "dependsOn": known(&direct())})];
    dependencies
        .extend(packages.iter().map(|package| json!({"ref": package.url(), "dependsOn": known(&package.needs)})));
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": own,
                "name": env!("CARGO_PKG_NAME"),
                "version": env!("CARGO_PKG_VERSION"),
                "purl": own,
                "licenses": [{"license": {"id": env!("CARGO_PKG_LICENSE")}}],
            },
        },
        "components": components,
        "dependencies": dependencies,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_package_was_reviewed_and_everything_that_it_needs_is_there() {
        let packages = all();
        let ids: BTreeSet<String> = packages.iter().map(Package::id).collect();
        assert_eq!(ids.len(), packages.len());
        let reviewed: BTreeSet<&str> = REVIEWED.lines().filter_map(super::reviewed).map(|(name, _)| name).collect();
        for package in &packages {
            let major = format!("{}@{}", package.name, package.version.split('.').next().unwrap_or_default());
            assert!(reviewed.contains(package.name.as_str()) || reviewed.contains(major.as_str()), "{package:?}");
            assert!(package.sha256.as_ref().is_some_and(|sha256| sha256.len() == 64), "{package:?}");
            for needed in &package.needs {
                assert!(ids.contains(needed), "{} needs {needed}", package.id());
            }
        }
        for direct in direct() {
            assert!(ids.contains(&direct), "{direct}");
        }
    }

    #[test]
    fn the_bill_names_each_package_that_is_linked_or_builds_and_no_other_and_its_references_hold() {
        let bill = bill_of_materials();
        let list = |name: &str| bill[name].as_array().expect(name).clone();
        let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_else(|| panic!("{value}")).to_string();
        let named: BTreeSet<String> = list("components").iter().map(|part| text(part, "bom-ref")).collect();
        let expected: BTreeSet<String> =
            all().iter().filter(|package| package.reach <= Reach::Build).map(Package::url).collect();
        assert_eq!(named, expected);
        let own = text(&bill["metadata"]["component"], "bom-ref");
        let dependencies = list("dependencies");
        assert_eq!(dependencies.len(), named.len() + 1);
        for dependency in &dependencies {
            let from = text(dependency, "ref");
            assert!(from == own || named.contains(&from), "{from}");
            for to in dependency["dependsOn"].as_array().expect("a list") {
                assert!(named.contains(to.as_str().expect("text")), "{from} needs {to}");
            }
        }
    }
}
