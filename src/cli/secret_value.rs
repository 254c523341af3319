//! Where a secret's value comes from.
//! Owns: the four sources, exactly one of which must be used, and what is stripped from the value.
//! May touch: the named file, the named variable, standard input.
//! Never: repeats the value; keeps a second copy of it longer than it must.

use std::fs::File;
use std::io::Read;

use super::environment::Environment;
use super::exit::CliError;
use crate::limits::{AUTH_STORE_PLAINTEXT_BYTES_MAX, CLI_SECRET_BYTES_MAX};
use crate::secret::Secret;

/// The sources as they were given.
#[derive(Debug, Default)]
pub struct Sources {
    /// `--value`.
    pub value: Option<String>,
    /// `--from-env`.
    pub from_env: Option<String>,
    /// `--from-file`.
    pub from_file: Option<String>,
    /// `--stdin`.
    pub stdin: bool,
}

const NEXT: &str = "use one of --stdin, --from-file, --from-env and --value";

impl Sources {
    /// Reads the value.
    ///
    /// # Errors
    /// Not exactly one source, an unreadable one, or a value that is blank or too long.
    pub fn read(self, env: &Environment, stdin: &mut dyn Read) -> Result<Secret, CliError> {
        let given = [self.value.is_some(), self.from_env.is_some(), self.from_file.is_some(), self.stdin]
            .into_iter()
            .filter(|given| *given)
            .count();
        if given != 1 {
            let cause = if given == 0 { "there is no source for it" } else { "there is more than one source for it" };
            return Err(CliError::invalid("the secret's value", cause, NEXT));
        }
        let secret = if let Some(value) = self.value {
            Secret::new(value.into_bytes())
        } else if let Some(name) = self.from_env {
            let value = env.get(&name)?.ok_or_else(|| {
                CliError::invalid(format!("--from-env {name}"), "the variable is not set", "set it, or name another")
            })?;
            Secret::new(value.as_bytes().to_vec())
        } else if let Some(path) = self.from_file {
            let mut file = File::open(&path).map_err(|error| CliError::File {
                path: path.clone().into(),
                cause: error.to_string(),
                next: "name a readable file",
            })?;
            read_line(&path, &mut file)?
        } else {
            read_line("standard input", stdin)?
        };
        if secret.expose().trim_ascii().is_empty() {
            return Err(CliError::invalid("the secret's value", "it is blank", NEXT));
        }
        if secret.len() > CLI_SECRET_BYTES_MAX {
            return Err(too_long("the secret's value"));
        }
        Ok(secret)
    }
}

/// Reads a document with many secrets, whole.
///
/// # Errors
/// Not exactly one source, or an unreadable or over-long one.
pub fn read_records(from_file: Option<&str>, from_stdin: bool, stdin: &mut dyn Read) -> Result<Secret, CliError> {
    const NEXT: &str = "use one of --from-file and --stdin";
    let (source, mut reader): (&str, Box<dyn Read + '_>) = match (from_file, from_stdin) {
        (Some(path), false) => {
            let file = File::open(path).map_err(|error| CliError::File {
                path: path.into(),
                cause: error.to_string(),
                next: "name a readable file",
            })?;
            (path, Box::new(file))
        }
        (None, true) => ("standard input", Box::new(stdin)),
        _ => return Err(CliError::invalid("the records", "there is not exactly one source for them", NEXT)),
    };
    // Room for the longest document, so that the buffer never moves and leaves a copy.
    let mut bytes = Vec::with_capacity(AUTH_STORE_PLAINTEXT_BYTES_MAX + 1);
    let outcome = reader.by_ref().take(AUTH_STORE_PLAINTEXT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
    let text = Secret::new(bytes);
    outcome.map_err(|error| CliError::invalid(source, error.to_string(), NEXT))?;
    if text.len() > AUTH_STORE_PLAINTEXT_BYTES_MAX {
        let cause = format!("more than {AUTH_STORE_PLAINTEXT_BYTES_MAX} bytes");
        return Err(CliError::invalid(source, cause, "import it in parts"));
    }
    Ok(text)
}

fn too_long(source: &str) -> CliError {
    CliError::invalid(source, format!("more than {CLI_SECRET_BYTES_MAX} bytes"), "give the bare secret")
}

/// Reads to the end and drops the one line end that editors and `echo` add.
fn read_line(source: &str, reader: &mut dyn Read) -> Result<Secret, CliError> {
    // Room for a value of full length and its line end, so that the buffer never moves and leaves a copy.
    let bytes_max = CLI_SECRET_BYTES_MAX + 2;
    let mut bytes = Vec::with_capacity(bytes_max + 1);
    let outcome = reader.take(bytes_max as u64 + 1).read_to_end(&mut bytes);
    let secret = Secret::new(bytes);
    outcome.map_err(|error| CliError::invalid(source, error.to_string(), NEXT))?;
    if secret.len() > bytes_max {
        return Err(too_long(source));
    }
    let text = secret.expose();
    let text = text.strip_suffix(b"\n").map_or(text, |rest| rest.strip_suffix(b"\r").unwrap_or(rest));
    Ok(Secret::new(text.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sources: Sources, env: &[(&str, &str)], stdin: &[u8], expected: Result<&[u8], &str>) {
        let mut stdin = stdin;
        match (sources.read(&Environment::of(env), &mut stdin), expected) {
            (Ok(secret), Ok(expected)) => assert_eq!(secret.expose(), expected),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (got, expected) => panic!("{got:?} instead of {expected:?}"),
        }
    }

    fn stdin() -> Sources {
        Sources { stdin: true, ..Sources::default() }
    }

    fn value(text: &str) -> Sources {
        Sources { value: Some(text.to_string()), ..Sources::default() }
    }

    #[test]
    fn exactly_one_line_end_is_stripped_from_a_file_and_nothing_from_an_argument() {
        check(stdin(), &[], b"sk-1\n", Ok(b"sk-1"));
        check(stdin(), &[], b"sk-1\r\n", Ok(b"sk-1"));
        check(stdin(), &[], b" sk-1 \n\n", Ok(b" sk-1 \n"));
        check(stdin(), &[], b"sk-1\r", Ok(b"sk-1\r"));
        check(stdin(), &[], b"sk-1", Ok(b"sk-1"));
        check(value(" a\n"), &[], b"", Ok(b" a\n"));
        let from_env = || Sources { from_env: Some("NAME".to_string()), ..Sources::default() };
        check(from_env(), &[("NAME", "-b \n")], b"", Ok(b"-b \n"));
        check(from_env(), &[], b"", Err("NAME: the variable is not set"));
    }

    #[test]
    fn exactly_one_source_with_something_in_it_is_wanted() {
        check(Sources::default(), &[], b"x", Err("there is no source"));
        check(Sources { stdin: true, ..value("a") }, &[], b"x", Err("more than one source"));
        check(stdin(), &[], b" \n", Err("it is blank"));
        check(value("\t"), &[], b"", Err("it is blank"));
        check(stdin(), &[], b"", Err("it is blank"));
    }

    #[test]
    fn the_longest_value_fits_with_its_line_end_and_one_more_byte_does_not() {
        let mut full = vec![b'x'; CLI_SECRET_BYTES_MAX];
        full.extend_from_slice(b"\r\n");
        check(stdin(), &[], &full, Ok(&full[..CLI_SECRET_BYTES_MAX]));
        full.insert(0, b'x');
        check(stdin(), &[], &full, Err("more than"));
        full.truncate(CLI_SECRET_BYTES_MAX + 1);
        check(stdin(), &[], &full, Err("more than"));
    }
}
