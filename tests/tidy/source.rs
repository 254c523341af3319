//! Rust source as the rules see it: code with comments and literals blanked, and without test-only parts.
//! Owns: a small lexer. It keeps every newline, so that line numbers stay true.
//! Never: understands more of the language than the rules need.

use std::path::{Path, PathBuf};

/// One source file, read once.
pub struct Source {
    /// Path relative to the project, with `/`.
    pub path: String,
    /// The file as it is.
    pub text: String,
    /// The file with comments and the insides of string and character literals replaced by blanks.
    pub code: String,
    /// `code` with every `#[cfg(test)]` item blanked as well; empty for a file that is a test module.
    pub shipped: String,
}

impl Source {
    /// A source from its text; the samples of the rule tests come this way.
    pub fn from_text(path: &str, text: &str) -> Self {
        let code = blank_comments_and_literals(text);
        let shipped = blank_test_items(&code);
        Self { path: path.to_string(), text: text.to_string(), code, shipped }
    }
}

/// Reads every `.rs` file below `root`/`folder`; files that only a `#[cfg(test)] mod name;` names ship nothing.
pub fn read_sources(root: &Path, folder: &str) -> Vec<Source> {
    let mut sources: Vec<Source> = files_below(&root.join(folder))
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            Source::from_text(&relative(root, &path), &text)
        })
        .collect();
    let test_modules: Vec<String> = sources.iter().flat_map(test_module_prefixes).collect();
    for source in &mut sources {
        if test_modules
            .iter()
            .any(|prefix| source.path == format!("{prefix}.rs") || source.path.starts_with(&format!("{prefix}/")))
        {
            source.shipped.clear();
        }
    }
    sources
}

/// `path` below `root`, with `/`.
pub fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned()
}

/// All files below `folder`, sorted; build output and version control are left out.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return found };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("readable folder").path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        // `.git` is a file in a linked work tree.
        if matches!(name.as_str(), "target" | ".git" | ".kheish-daemon" | ".tmp") {
            continue;
        }
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// Whether `code[at..]` starts with `word` as a whole identifier.
pub fn is_word_at(code: &str, at: usize, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    code[at..].starts_with(word)
        && !code[..at].chars().next_back().is_some_and(part_of_name)
        && !code[at + word.len()..].chars().next().is_some_and(part_of_name)
}

/// The one-based line of byte `at`.
pub fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// Paths without `.rs` of the modules that `source` declares for tests only.
fn test_module_prefixes(source: &Source) -> Vec<String> {
    let folder = match source.path.rsplit_once('/') {
        Some((folder, "mod.rs" | "lib.rs" | "main.rs")) => folder.to_string(),
        _ => source.path.trim_end_matches(".rs").to_string(),
    };
    source
        .code
        .match_indices("#[cfg(test)]")
        .filter_map(|(at, attribute)| {
            let rest = &source.code[at + attribute.len()..];
            let end = rest.find(['{', ';'])?;
            let declaration = rest[..end].trim();
            let name = declaration.strip_prefix("mod ").or_else(|| declaration.strip_prefix("pub mod "))?;
            rest[end..].starts_with(';').then(|| format!("{folder}/{}", name.trim()))
        })
        .collect()
}

fn blank_comments_and_literals(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes.get(at + 1) == Some(&b'/') => at + line_length(&bytes[at..]),
            b'/' if bytes.get(at + 1) == Some(&b'*') => at + block_comment_length(&bytes[at..]),
            b'"' => at + string_length(&bytes[at..]),
            b'r' if !follows_name(bytes, at) => match raw_string_length(&bytes[at..]) {
                Some(length) => at + length,
                None => at,
            },
            b'\'' => at + char_length(&bytes[at..]),
            _ => at,
        };
        if end == at {
            at += 1;
            continue;
        }
        let keep_quotes = bytes[at] != b'/';
        for (offset, byte) in code[at..end].iter_mut().enumerate() {
            let quote = keep_quotes && (offset == 0 || offset == end - at - 1);
            if *byte != b'\n' && !quote {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8(code).expect("blanking whole literals keeps UTF-8")
}

fn follows_name(bytes: &[u8], at: usize) -> bool {
    at > 0 && (bytes[at - 1].is_ascii_alphanumeric() && bytes[at - 1] != b'b' || bytes[at - 1] == b'_')
}

fn line_length(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len())
}

fn block_comment_length(bytes: &[u8]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" if depth == 1 => return at + 2,
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    bytes.len()
}

fn string_length(bytes: &[u8]) -> usize {
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn raw_string_length(bytes: &[u8]) -> Option<usize> {
    let hashes = bytes[1..].iter().take_while(|byte| **byte == b'#').count();
    if bytes.get(1 + hashes) != Some(&b'"') {
        return None;
    }
    let closing = [b"\"".as_slice(), "#".repeat(hashes).as_bytes()].concat();
    let body = 2 + hashes;
    let end = bytes[body..].windows(closing.len()).position(|window| window == closing)?;
    Some(body + end + closing.len())
}

/// Length of a character literal, or 0 where the quote starts a lifetime.
fn char_length(bytes: &[u8]) -> usize {
    if bytes.get(1) == Some(&b'\\') {
        return bytes[2..].iter().skip(1).position(|byte| *byte == b'\'').map_or(0, |end| end + 4);
    }
    let width = match bytes.get(1) {
        Some(byte) if *byte >= 0xf0 => 4,
        Some(byte) if *byte >= 0xe0 => 3,
        Some(byte) if *byte >= 0xc0 => 2,
        _ => 1,
    };
    if bytes.get(1 + width) == Some(&b'\'') { width + 2 } else { 0 }
}

fn blank_test_items(code: &str) -> String {
    let mut shipped = code.as_bytes().to_vec();
    for (start, _) in code.match_indices("#[cfg(test)]") {
        let end = item_end(code, start);
        for byte in &mut shipped[start..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
    }
    String::from_utf8(shipped).expect("blanking whole items keeps UTF-8")
}

/// Where the item that starts at `start` ends: after its `;` or after the brace that closes its first one.
fn item_end(code: &str, start: usize) -> usize {
    let mut depth = 0usize;
    for (offset, byte) in code[start..].bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth <= 1 => return start + offset + 1,
            b'}' => depth -= 1,
            b';' if depth == 0 => return start + offset + 1,
            _ => {}
        }
    }
    code.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_hide_nothing_and_show_nothing() {
        let text = "let a = \"unsafe \\\" {\"; // unsafe\n/* unsafe /* deep */ unsafe */ let b = r#\"un\"safe\"#;\n\
                    let c = '\\''; let d: &'static str = b; let e = '\"'; let f = 'é'; unsafe {}";
        let code = Source::from_text("src/a.rs", text).code;
        let found: Vec<usize> = code.match_indices("unsafe").map(|(at, _)| line_of(&code, at)).collect();
        assert_eq!(found, [3], "{code}");
        assert_eq!(code.len(), text.len());
    }

    #[test]
    fn test_items_are_left_out_of_what_ships() {
        let text =
            "fn a() { x(); }\n#[cfg(test)]\nmod tests { fn b() { y(); } }\n#[cfg(test)]\nuse z;\nfn c() { w(); }";
        let shipped = Source::from_text("src/a.rs", text).shipped;
        assert!(shipped.contains("x()") && shipped.contains("w()"), "{shipped}");
        assert!(!shipped.contains("y()") && !shipped.contains("use z"), "{shipped}");
    }

    #[test]
    fn a_module_declared_for_tests_only_is_known_by_its_file() {
        let inner = Source::from_text("src/core/mod.rs", "#[cfg(test)]\nmod simulation;\n#[cfg(test)]\nmod b { }\n");
        assert_eq!(test_module_prefixes(&inner), ["src/core/simulation"]);
        let leaf = Source::from_text("src/net.rs", "#[cfg(test)]\npub mod fake;\n");
        assert_eq!(test_module_prefixes(&leaf), ["src/net/fake"]);
    }
}
