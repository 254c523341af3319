//! Path patterns: `*` and `?` within a component, `**` for any number of components.
//! Owns: the reading of patterns and of the paths they are compared with, both without looking at a disk.
//! Never: follows a symbolic link; a pattern speaks of paths as they are written.

use crate::limits::{PERMISSION_PATH_BYTES_MAX, PERMISSION_PATTERN_BYTES_MAX};

/// A compiled pattern. A relative one begins at the workspace root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PathPattern {
    absolute: bool,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// Any number of components, none included.
    Any,
    /// One component, with `*` and `?` in it.
    One(String),
}

impl PathPattern {
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text.len() > PERMISSION_PATTERN_BYTES_MAX || text.contains(char::is_control) {
            return None;
        }
        let absolute = text.starts_with('/');
        let mut parts = Vec::new();
        let mut rest = text.strip_prefix('/').unwrap_or(text);
        // `src/` means everything in it.
        let everything_in = rest.ends_with('/');
        rest = rest.strip_suffix('/').unwrap_or(rest);
        for component in rest.split('/').filter(|component| *component != ".") {
            match component {
                "" if rest.is_empty() => {}
                "" | ".." => return None,
                "**" => parts.push(Part::Any),
                _ if component.contains("**") => return None,
                _ => parts.push(Part::One(component.to_string())),
            }
        }
        if everything_in {
            parts.push(Part::Any);
        }
        Some(Self { absolute, parts })
    }

    /// Whether the pattern matches the path itself.
    pub(super) fn matches(&self, path: &Path, workspace: &Path) -> bool {
        self.end_states(path, workspace).is_some_and(|states| states[self.parts.len()])
    }

    /// Whether it matches the path or could match something below it.
    pub(super) fn reaches(&self, path: &Path, workspace: &Path) -> bool {
        self.end_states(path, workspace).is_some_and(|states| states.contains(&true))
            || self.lies_above(path, workspace)
    }

    /// A relative pattern begins in the workspace, so a search that begins above the workspace reaches it.
    fn lies_above(&self, path: &Path, workspace: &Path) -> bool {
        !self.absolute && workspace.0.starts_with(&path.0)
    }

    /// Which positions of the pattern can be reached when all of the path is used up; `None` outside the workspace
    /// for a relative pattern.
    fn end_states(&self, path: &Path, workspace: &Path) -> Option<Vec<bool>> {
        let components = if self.absolute { &path.0[..] } else { path.0.strip_prefix(&workspace.0[..])? };
        let mut states = vec![false; self.parts.len() + 1];
        states[0] = true;
        self.skip_any(&mut states);
        for component in components {
            let mut next = vec![false; states.len()];
            for (position, part) in self.parts.iter().enumerate().filter(|(position, _)| states[*position]) {
                match part {
                    Part::Any => next[position] = true,
                    Part::One(glob) if glob_matches(glob, component) => next[position + 1] = true,
                    Part::One(_) => {}
                }
            }
            self.skip_any(&mut next);
            states = next;
        }
        Some(states)
    }

    fn skip_any(&self, states: &mut [bool]) {
        for (position, part) in self.parts.iter().enumerate() {
            if states[position] && *part == Part::Any {
                states[position + 1] = true;
            }
        }
    }

    /// Whether every path that `other` matches is surely matched by `self`. Says no when it cannot tell.
    pub(super) fn covers(&self, other: &Self) -> bool {
        if self == other {
            return true;
        }
        let is_literal = |part: &Part| matches!(part, Part::One(glob) if !glob.contains(['*', '?']));
        self.absolute == other.absolute
            && match self.parts.split_last() {
                Some((Part::Any, before)) if before.iter().all(is_literal) => other.parts.starts_with(before),
                _ => other.parts.iter().all(is_literal) && self.matches_parts(&other.parts),
            }
    }

    fn matches_parts(&self, literal: &[Part]) -> bool {
        let components = literal.iter().filter_map(|part| match part {
            Part::One(name) => Some(name.clone()),
            Part::Any => None,
        });
        self.matches(&Path(components.collect()), &Path(Vec::new()))
    }
}

/// `*` and `?` within one component. Linear in the product of the lengths at worst, which are bounded.
pub(crate) fn glob_matches(glob: &str, text: &str) -> bool {
    let (glob, text): (Vec<char>, Vec<char>) = (glob.chars().collect(), text.chars().collect());
    let (mut at, mut in_text) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while in_text < text.len() {
        if glob.get(at) == Some(&'*') {
            retry = Some((at + 1, in_text));
            at += 1;
        } else if glob.get(at).is_some_and(|wanted| *wanted == '?' || *wanted == text[in_text]) {
            at += 1;
            in_text += 1;
        } else if let Some((after_star, taken)) = retry {
            at = after_star;
            in_text = taken + 1;
            retry = Some((after_star, in_text));
        } else {
            return false;
        }
    }
    glob[at..].iter().all(|left| *left == '*')
}

/// An absolute path as components.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path(Vec<String>);

impl Path {
    /// Reads an absolute path; `None` for one that this room will not judge: `..` in it, since what that means depends
    /// on symbolic links, control characters, or an undue length.
    pub(super) fn absolute(text: &str) -> Option<Self> {
        Self::read(text.strip_prefix('/')?, Vec::new())
    }

    /// Reads what a tool was given: absolute, or relative to the workspace root.
    pub(super) fn given(text: &str, workspace: &Self) -> Option<Self> {
        match text.strip_prefix('/') {
            Some(rest) => Self::read(rest, Vec::new()),
            None => Self::read(text, workspace.0.clone()),
        }
    }

    fn read(text: &str, mut components: Vec<String>) -> Option<Self> {
        if text.len() > PERMISSION_PATH_BYTES_MAX || text.contains(char::is_control) {
            return None;
        }
        for component in text.split('/') {
            match component {
                "" | "." => {}
                ".." => return None,
                _ => components.push(component.to_string()),
            }
        }
        Some(Self(components))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace() -> Path {
        Path::absolute("/srv/op/work").expect("legal")
    }

    fn matches(pattern: &str, path: &str) -> bool {
        let pattern = PathPattern::parse(pattern).expect(pattern);
        pattern.matches(&Path::given(path, &workspace()).expect(path), &workspace())
    }

    #[test]
    fn patterns_match_whole_paths_below_the_workspace() {
        let cases: &[(&str, &str, bool)] = &[
            ("src/**", "src/a/b.rs", true),
            ("src/**", "src", true),
            ("src/", "src/a", true),
            ("src/**", "./src//a", true),
            ("src/**", "/srv/op/work/src/a", true),
            ("src/**", "srcs/a", false),
            ("src/**", "a/src/b", false),
            ("src/**", "/src/a", false),
            ("**/.env", ".env", true),
            ("**/.env", "a/b/.env", true),
            ("**/.env", "a/.env/b", false),
            ("*.rs", "a.rs", true),
            ("*.rs", "a/b.rs", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXc", false),
            ("**", "anything/at/all", true),
            ("**", "/etc/passwd", false),
            ("/etc/**", "/etc/passwd", true),
            ("/etc/**", "etc/passwd", false),
            ("/**", "x", true),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(matches(pattern, path), *expected, "{pattern} on {path}");
        }
    }

    #[test]
    fn a_search_reaches_what_may_lie_below_its_base() {
        let cases: &[(&str, &str, bool)] = &[
            ("secrets/**", ".", true),
            ("secrets/**", "secrets/deep", true),
            ("secrets/**", "src", false),
            ("a/*/c", "a/b", true),
            ("a/*/c", "a/b/c/d", false),
            ("**/.env", "src", true),
            ("secrets/**", "/srv", true),
            ("/etc/**", "/", true),
            ("/etc/**", "/srv/op/work", false),
        ];
        for (pattern, base, expected) in cases {
            let pattern_read = PathPattern::parse(pattern).expect(pattern);
            let base_read = Path::given(base, &workspace()).expect(base);
            assert_eq!(pattern_read.reaches(&base_read, &workspace()), *expected, "{pattern} below {base}");
        }
    }

    #[test]
    fn what_cannot_be_judged_is_not_read() {
        for path in ["../x", "src/../x", "a/..", "a\0b", "a\nb", &"x/".repeat(4_000)] {
            assert_eq!(Path::given(path, &workspace()), None, "{path:.20}");
        }
        for pattern in ["", "a/../b", "a//b", "a**b", "***", "a\n", &"x".repeat(5_000)] {
            assert_eq!(PathPattern::parse(pattern), None, "{pattern:.20}");
        }
    }

    #[test]
    fn covering_is_never_claimed_wrongly() {
        let cases: &[(&str, &str, bool)] = &[
            ("src/**", "src/a/**", true),
            ("src/**", "src/a.rs", true),
            ("src/**", "src/*.rs", true),
            ("**", "src/**", true),
            ("src/*.rs", "src/a.rs", true),
            ("src/*.rs", "src/**", false),
            ("src/a/**", "src/**", false),
            ("*/a", "src/*", false),
            ("/a/**", "a/b", false),
        ];
        for (broad, narrow, expected) in cases {
            let read = |text| PathPattern::parse(text).expect(text);
            assert_eq!(read(broad).covers(&read(narrow)), *expected, "{broad} covers {narrow}");
        }
    }
}
