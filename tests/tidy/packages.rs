//! The dependency policy: what Cargo.lock may hold, how much of it, and what docs/dependencies.md must say.
//! Owns: the reading of Cargo.lock, of the checked-in list and of `cargo tree`.
//! Never: asks a registry; everything here works offline.

use std::collections::BTreeMap;

/// Packages locked for Linux, ours not counted.
pub const LOCKED_COUNT_MAX: usize = 60;
/// Packages linked into the binary, ours not counted.
pub const LINKED_COUNT_MAX: usize = 45;

/// How far a locked package gets on Linux.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Linked into the binary.
    Linked,
    /// Runs in the compiler or in a build script.
    Build,
    /// Linked into tests only.
    Test,
    /// Locked for another platform or for a feature that is off; never compiled on Linux.
    Never,
}

impl Reach {
    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "linked" => Self::Linked,
            "build" => Self::Build,
            "test" => Self::Test,
            "never" => Self::Never,
            _ => return None,
        })
    }
}

/// Reads the checked-in list: `name reach` a line, `#` starts a comment. Two versions of a crate are one line each:
/// `name@major`.
pub fn parse_allowed(text: &str) -> Result<BTreeMap<String, Reach>, String> {
    let mut allowed = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let (name, reach) =
            line.split_once(' ').ok_or_else(|| format!("line {}: `name reach` expected", number + 1))?;
        let reach = Reach::parse(reach.trim())
            .ok_or_else(|| format!("line {}: reach is linked, build, test or never", number + 1))?;
        if allowed.insert(name.to_string(), reach).is_some() {
            return Err(format!("line {}: {name} is there twice", number + 1));
        }
    }
    Ok(allowed)
}

/// `(name, version)` of every package in Cargo.lock but `ours`.
pub fn parse_lock(text: &str, ours: &str) -> Vec<(String, String)> {
    let field = |block: &str, key: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(key))?;
        Some(line.trim_matches([' ', '=', '"']).to_string())
    };
    text.split("[[package]]")
        .skip(1)
        .filter_map(|block| Some((field(block, "name = ")?, field(block, "version = ")?)))
        .filter(|(name, _)| name != ours)
        .collect()
}

/// Names by which the list knows the locked packages: `name`, or `name@major` where two versions are locked.
pub fn listed_names(lock: &[(String, String)]) -> Vec<String> {
    lock.iter()
        .map(|(name, version)| {
            let twice = lock.iter().filter(|(other, _)| other == name).count() > 1;
            let major = version.split('.').next().unwrap_or_default();
            if twice { format!("{name}@{major}") } else { name.clone() }
        })
        .collect()
}

/// Compares the lock file with the list, both ways, and checks the counts.
pub fn check_lock(lock: &[(String, String)], allowed: &BTreeMap<String, Reach>) -> Vec<String> {
    let locked = listed_names(lock);
    let mut broken = Vec::new();
    for name in &locked {
        if !allowed.contains_key(name) {
            broken.push(format!(
                "Cargo.lock: {name} is not on the list; next: justify it in docs/dependencies.md, then add it to \
                 tests/data/tidy/allowed-packages.txt"
            ));
        }
    }
    for name in allowed.keys() {
        if !locked.contains(name) {
            broken.push(format!("allowed-packages.txt: {name} is not locked any more; next: remove its line"));
        }
    }
    let linux = allowed.values().filter(|reach| **reach != Reach::Never).count();
    let linked = allowed.values().filter(|reach| **reach == Reach::Linked).count();
    for (what, count, count_max) in
        [("locked for Linux", linux, LOCKED_COUNT_MAX), ("linked into the binary", linked, LINKED_COUNT_MAX)]
    {
        if count > count_max {
            broken.push(format!("{count} packages {what}, at most {count_max}; next: drop one"));
        }
    }
    broken
}

/// Compares the list's classes with what `cargo tree` printed: `linked` for the linked packages, `any` for all
/// that Linux builds and tests compile. One `name vVERSION …` a line.
pub fn check_tree(
    lock: &[(String, String)],
    allowed: &BTreeMap<String, Reach>,
    linked: &str,
    any: &str,
) -> Vec<String> {
    let in_tree = |tree: &str, name: &str, version: &str| {
        let head = format!("{name} v{version}");
        tree.lines().any(|line| line == head || line.starts_with(&format!("{head} ")))
    };
    let mut broken = Vec::new();
    for ((name, version), listed) in lock.iter().zip(listed_names(lock)) {
        let Some(reach) = allowed.get(&listed) else { continue };
        let found = match (in_tree(linked, name, version), in_tree(any, name, version)) {
            (true, _) => "linked",
            (false, true) => "build or test",
            (false, false) => "never",
        };
        let agrees = match reach {
            Reach::Linked => found == "linked",
            Reach::Build | Reach::Test => found == "build or test",
            Reach::Never => found == "never",
        };
        if !agrees {
            broken.push(format!(
                "allowed-packages.txt: {listed} says {reach:?}, cargo tree says {found}; next: correct it"
            ));
        }
    }
    broken
}

/// Every package that Linux compiles has a row in docs/dependencies.md that starts with its name, and every
/// row names a package.
pub fn check_docs(allowed: &BTreeMap<String, Reach>, docs: &str) -> Vec<String> {
    // A row that starts with a path is of another table.
    let first_cells = docs.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let rows: Vec<&str> = first_cells.filter(|name| !name.contains('/')).collect();
    let compiled = allowed.iter().filter(|(_, reach)| **reach != Reach::Never).map(|(name, _)| name);
    let mut broken: Vec<String> = compiled
        .filter(|name| !rows.contains(&name.as_str()))
        .map(|name| format!("docs/dependencies.md: no row for {name}; next: say what it does and why"))
        .collect();
    broken.extend(
        rows.iter()
            .filter(|row| !allowed.contains_key(**row))
            .map(|row| format!("docs/dependencies.md: {row} is not a dependency; next: remove its row")),
    );
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "version = 4\n[[package]]\nname = \"ours\"\nversion = \"0.1.0\"\n\n[[package]]\nname = \"syn\"\n\
                        version = \"2.0.1\"\n\n[[package]]\nname = \"syn\"\nversion = \"3.0.1\"\n\n[[package]]\n\
                        name = \"log\"\nversion = \"0.4.1\"\n";

    fn allowed(text: &str) -> BTreeMap<String, Reach> {
        parse_allowed(text).expect("well-formed sample")
    }

    #[test]
    fn an_unlisted_and_a_vanished_package_are_named() {
        let lock = parse_lock(LOCK, "ours");
        assert_eq!(listed_names(&lock), ["syn@2", "syn@3", "log"]);
        assert_eq!(
            check_lock(&lock, &allowed("syn@2 build\nsyn@3 build # proc macros\nlog linked\n")),
            Vec::<String>::new()
        );
        assert_eq!(check_lock(&lock, &allowed("syn@2 build\nlog linked\n")).len(), 1);
        assert_eq!(check_lock(&lock, &allowed("syn@2 build\nsyn@3 build\nlog linked\nold linked\n")).len(), 1);
    }

    #[test]
    fn one_package_too_many_is_named() {
        let many = |count: usize, reach: &str| -> (Vec<(String, String)>, BTreeMap<String, Reach>) {
            let names: Vec<String> = (0..count).map(|n| format!("p{n}")).collect();
            let list: String = names.iter().map(|name| format!("{name} {reach}\n")).collect();
            (names.into_iter().map(|name| (name, "1.0.0".to_string())).collect(), allowed(&list))
        };
        for (count, reach, broken_count) in
            [(60, "build", 0), (61, "build", 1), (45, "linked", 0), (46, "linked", 1), (61, "never", 0)]
        {
            let (lock, list) = many(count, reach);
            assert_eq!(check_lock(&lock, &list).len(), broken_count, "{count} {reach}");
        }
    }

    #[test]
    fn a_wrong_class_is_named() {
        let lock = parse_lock(LOCK, "ours");
        let list = allowed("syn@2 build\nsyn@3 never\nlog linked\n");
        let any = "log v0.4.1\nsyn v2.0.1 (*)\n";
        assert_eq!(check_tree(&lock, &list, "log v0.4.1\n", any), Vec::<String>::new());
        assert_eq!(check_tree(&lock, &list, "", any).len(), 1);
        assert_eq!(check_tree(&lock, &list, "log v0.4.1\n", &format!("{any}syn v3.0.1\n")).len(), 1);
    }

    #[test]
    fn a_package_without_its_reason_is_named() {
        let list = allowed("syn@2 build\nlog linked\nwinapi never\n");
        assert_eq!(
            check_docs(&list, "| `syn@2` | macros |\n| `log` | facade |\n| `a/b.rs` | file |\n"),
            Vec::<String>::new()
        );
        assert_eq!(check_docs(&list, "| `log` | facade |\n").len(), 1);
        assert_eq!(check_docs(&list, "| `syn@2` | m |\n| `log` | f |\n| `gone` | x |\n").len(), 1);
    }

    #[test]
    fn a_malformed_list_is_refused() {
        for text in ["log\n", "log maybe\n", "log linked\nlog linked\n"] {
            assert!(parse_allowed(text).is_err(), "{text}");
        }
    }
}
