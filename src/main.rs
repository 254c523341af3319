//! The binary.
//! Owns: nothing; the library has everything.
//! Never: decides anything.

fn main() -> std::process::ExitCode {
    kheish_daemon::cli::main()
}
