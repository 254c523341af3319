//! `scripts/rerun-failed.sh` with a real test program that fails as it is told: what fails once is called unstable, what fails
//! again fails the run, and what does not say which test it was is never excused.
//! Owns: the program, built on the spot. Says SKIPPED where there is no rustc.

#[path = "support/scratch.rs"]
mod scratch;
#[path = "support/skip.rs"]
mod skip;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use scratch::Scratch;

/// Each test counts its runs in a file and fails in those that the variable lists; `crash` takes the program with it.
const PROGRAM: &str = r#"
fn run(name: &str) {
    let count = std::path::Path::new(&std::env::var("COUNTS").unwrap()).join(name);
    let number = std::fs::read_to_string(&count).map_or(1, |text| text.len() + 1);
    std::fs::write(&count, "x".repeat(number)).unwrap();
    let plan = std::env::var(name).unwrap_or_default();
    if plan == "crash" {
        std::process::abort();
    }
    println!("    an_indented_line_of_output");
    assert!(!plan.split(',').any(|fails| fails == number.to_string()), "failures:\n    not_a_test\n");
}
#[test] fn one() { run("one") }
mod inner { #[test] fn two() { super::run("two") } }
"#;

/// Stands in for cargo: the same words around the same program.
const CARGO: &str = r#"
target=
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    if [ "$1" = --test ]; then target=$2; fi
    shift
done
[ $# -eq 0 ] || shift
echo "     Running tests/planted.rs ($PROGRAM)" >&2
"$PROGRAM" "$@" && exit 0
echo "error: test failed, to rerun pass \`--test ${target:-planted}\`" >&2
exit 101
"#;

struct Stage {
    scratch: Scratch,
    program: PathBuf,
}

fn stage(test: &str) -> Option<Stage> {
    let scratch = Scratch::new(test);
    let source = scratch.path().join("planted.rs");
    fs::write(&source, PROGRAM).expect("a scratch file");
    let program = scratch.path().join("planted");
    let built = Command::new("rustc").args(["--test", "-o"]).arg(&program).arg(&source).output();
    match built {
        Err(error) => {
            skip::skip(test, &format!("no rustc: {error}"));
            return None;
        }
        Ok(output) => assert!(output.status.success(), "{output:?}"),
    }
    let cargo = scratch.path().join("cargo");
    fs::write(&cargo, CARGO).expect("a scratch file");
    Some(Stage { scratch, program })
}

impl Stage {
    /// Runs the tests as `make test` does, each by its plan.
    fn run(&self, one: &str, two: &str, rerun: &str) -> (Option<i32>, String) {
        let counts = self.scratch.path().join("counts");
        drop(fs::remove_dir_all(&counts));
        fs::create_dir(&counts).expect("a scratch folder");
        let output: Output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/run-tests.sh"))
            // By its shell: a file that was just written cannot be run while another test forks.
            .arg("sh")
            .arg(self.scratch.path().join("cargo"))
            .args(["test", "--locked", "--no-fail-fast"])
            .env("PROGRAM", &self.program)
            .env("COUNTS", &counts)
            .env("KHEISH_TESTS_RERUN", rerun)
            .env("RUST_BACKTRACE", "0")
            .envs([("one", one), ("two", two)])
            .output()
            .expect("bash is there");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    }

    /// How often each test was run.
    fn counts(&self) -> (usize, usize) {
        let count = |name: &str| fs::read(self.scratch.path().join("counts").join(name)).map_or(0, |bytes| bytes.len());
        (count("one"), count("two"))
    }
}

#[test]
fn a_test_that_fails_once_is_unstable_and_one_that_fails_again_fails_the_run() {
    let Some(stage) = stage("rerun") else { return };
    let unstable = |text: &str| text.lines().filter(|line| line.starts_with("UNSTABLE: ")).count();

    let (code, text) = stage.run("", "", "1");
    assert_eq!((code, unstable(&text), stage.counts()), (Some(0), 0, (1, 1)), "{text}");

    let (code, text) = stage.run("", "1", "1");
    assert_eq!((code, stage.counts()), (Some(0), (1, 4)), "{text}");
    assert!(text.contains("\nUNSTABLE: inner::two\n") && text.contains("\nunstable: 1 ("), "{text}");

    let (code, text) = stage.run("1", "1", "1");
    assert_eq!((code, unstable(&text), stage.counts()), (Some(0), 2, (4, 4)), "{text}");

    for again in ["1,2", "1,3", "1,4"] {
        let (code, text) = stage.run(again, "", "1");
        assert_eq!((code, unstable(&text)), (Some(1), 0), "{again}: {text}");
        assert!(text.contains("one failed again, in round "), "{text}");
    }
    // Nobody asked for it: the first failure counts.
    let (code, text) = stage.run("1", "", "");
    assert_eq!((code, stage.counts()), (Some(101), (1, 1)), "{text}");
}

#[test]
fn a_program_that_does_not_say_which_test_it_was_is_not_excused() {
    let Some(stage) = stage("rerun-crash") else { return };
    let (code, text) = stage.run("crash", "", "1");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("--test planted failed and does not say which test it was"), "{text}");
    // Something else than a test: a build that fails, for example.
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/rerun-failed.sh");
    let said = stage.scratch.path().join("said");
    fs::write(&said, "error: could not compile `x`\n").expect("a scratch file");
    let output = Command::new(&script).arg(&said).arg("true").output().expect("bash is there");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    // Too many.
    let names: String = (0..9).map(|number| format!("    test_{number}\n")).collect();
    let many = format!(
        "failures:\n\nfailures:\n{names}\ntest result: FAILED. 0 passed\nerror: test failed, to rerun pass `--lib`\n"
    );
    fs::write(&said, many).expect("a scratch file");
    let output = Command::new(&script).arg(&said).arg("true").output().expect("bash is there");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("9 tests failed"), "{output:?}");
}
