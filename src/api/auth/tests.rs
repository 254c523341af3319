//! The gate against real token files.
//! Owns: the promises on rotation, equal tokens, broken files and generations.
//! May touch: a directory of its own under the system's temporary one.
//! Never: waits for time to pass.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;
use crate::api::testing::TempDir;
use crate::clock::SystemClock;

const ADMIN: &str = "first-admin-token-0001";
const READ: &str = "first-read-only-token-0001";

/// Writes as the rotation runbook does: a new file with mode 600, then a rename over the old one.
fn rotate(path: &Path, content: &str) {
    let fresh = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh).unwrap();
    file.write_all(content.as_bytes()).unwrap();
    fs::rename(&fresh, path).unwrap();
}

struct Fixture {
    _dir: TempDir,
    admin: PathBuf,
    read_only: PathBuf,
}

impl Fixture {
    fn new() -> Self {
        let dir = TempDir::new("auth");
        let (admin, read_only) = (dir.path().join("admin"), dir.path().join("read-only"));
        rotate(&admin, &format!(" {ADMIN}\n"));
        rotate(&read_only, READ);
        Self { _dir: dir, admin, read_only }
    }

    fn open(&self) -> Result<Auth, AuthConfigError> {
        let config = AuthConfig::Bearer {
            admin: TokenSource::File(self.admin.clone()),
            read_only: Some(TokenSource::File(self.read_only.clone())),
            short_tokens: Vec::new(),
        };
        // A look for every request: what the files say is what counts here, not when they are looked at.
        Auth::open(config, Arc::new(SystemClock)).map(|auth| Auth { look: Look::new(0), ..auth })
    }
}

#[test]
fn a_new_token_is_accepted_between_two_looks_and_the_old_one_only_until_the_next() {
    let fixture = Fixture::new();
    let mut auth = fixture.open().unwrap();
    auth.look = Look::new(3_600_000);
    assert_eq!(role(&auth, ADMIN), Some(Role::Admin), "the look that is due");
    rotate(&fixture.admin, "second-admin-token-0002");
    assert_eq!(role(&auth, "second-admin-token-0002"), Some(Role::Admin), "nobody is refused on old knowledge");
    assert_eq!(role(&auth, ADMIN), None, "a look for one caller counts for all");
    rotate(&fixture.admin, "third-admin-token-00003");
    assert_eq!(role(&auth, "second-admin-token-0002"), Some(Role::Admin), "no look is due");
    auth.look = Look::new(0);
    assert_eq!(role(&auth, "second-admin-token-0002"), None);
}

fn role(auth: &Auth, token: &str) -> Option<Role> {
    auth.authenticate(Some(&format!("Bearer {token}"))).ok().map(|caller| caller.role)
}

#[test]
fn the_authorization_header_is_judged_by_form_before_content() {
    let fixture = Fixture::new();
    let auth = fixture.open().unwrap();
    assert_eq!(auth.authenticate(None), Err(Rejection::Missing));
    let long = format!("Bearer {}", "x".repeat(TOKEN_BYTES_MAX + 1));
    for malformed in ["", " ", "Bearer", "Bearer ", "Bearer  \t", ADMIN, "Basic YTpi", "Bearer\ttoken", &long] {
        assert_eq!(auth.authenticate(Some(malformed)), Err(Rejection::Malformed), "{malformed:?}");
    }
    for good in [format!("Bearer {ADMIN}"), format!("bEARER   {ADMIN}  "), format!("  bearer {ADMIN}")] {
        assert_eq!(auth.authenticate(Some(&good)).map(|caller| caller.role), Ok(Role::Admin), "{good:?}");
    }
    for wrong in [&ADMIN[1..], &format!("{ADMIN}x"), "Bearer", &format!("{ADMIN} {READ}"), &ADMIN.to_uppercase()] {
        let fingerprint = TokenDigest::of_presented(wrong).fingerprint();
        assert_eq!(auth.authenticate(Some(&format!("Bearer {wrong}"))), Err(Rejection::Invalid { fingerprint }));
    }
}

#[test]
fn a_rotated_token_holds_from_the_next_request_on_and_the_old_one_does_not() {
    let fixture = Fixture::new();
    let auth = fixture.open().unwrap();
    let mut old = ADMIN.to_string();
    // Same length each time and faster than the file system's clock ticks.
    for round in 0..500u64 {
        let new = format!("admin-token-round-{round:04}");
        rotate(&fixture.admin, &new);
        assert_eq!(role(&auth, &new), Some(Role::Admin), "round {round}");
        assert_eq!(role(&auth, &old), None, "round {round}");
        assert_eq!(auth.generation(Role::Admin), round + 2, "one generation for each token");
        old = new;
    }
    assert_eq!(role(&auth, READ), Some(Role::ReadOnly));
    assert_eq!(auth.generation(Role::ReadOnly), 1);
}

#[test]
fn a_file_overwritten_in_place_within_one_clock_tick_is_noticed() {
    let fixture = Fixture::new();
    let auth = fixture.open().unwrap();
    for round in 0..500 {
        let new = format!("admin-token-round-{round:04}");
        fs::write(&fixture.admin, &new).unwrap();
        assert_eq!(role(&auth, &new), Some(Role::Admin), "round {round}");
    }
}

#[test]
fn a_settled_file_is_not_read_again_until_its_metadata_changes() {
    struct Later;
    impl Clock for Later {
        fn now_ms(&self) -> u64 {
            SystemClock.now_ms() + 10_000
        }
    }
    let fixture = Fixture::new();
    let config = AuthConfig::Bearer {
        admin: TokenSource::File(fixture.admin.clone()),
        read_only: None,
        short_tokens: Vec::new(),
    };
    let mut auth = Auth::open(config, Arc::new(Later)).unwrap();
    auth.look = Look::new(0);
    assert!(!auth.tokens.as_ref().unwrap().read().unwrap().is_stale());
    fs::set_permissions(&fixture.admin, fs::Permissions::from_mode(0o400)).unwrap();
    assert!(auth.tokens.as_ref().unwrap().read().unwrap().is_stale(), "a changed mode is a change");
    assert_eq!(role(&auth, ADMIN), Some(Role::Admin));
    assert!(!auth.tokens.as_ref().unwrap().read().unwrap().is_stale());
    assert_eq!(auth.generation(Role::Admin), 1, "the same token again is no new generation");
}

#[test]
fn a_broken_file_closes_its_role_only_and_recovers_by_itself() {
    let fixture = Fixture::new();
    let auth = fixture.open().unwrap();
    let caller = auth.authenticate(Some(&format!("Bearer {ADMIN}"))).unwrap();
    let long = "x".repeat(TOKEN_BYTES_MAX + 1);
    for broken in ["", " \n\t", "two words", "t\u{e9}", "a\u{0}b", &long] {
        rotate(&fixture.admin, broken);
        assert_eq!(role(&auth, ADMIN), None, "{broken:?}");
        assert_eq!(role(&auth, broken), None, "{broken:?}");
        assert_eq!(role(&auth, READ), Some(Role::ReadOnly), "{broken:?}");
        assert!(!auth.is_current(&caller));
        rotate(&fixture.admin, ADMIN);
        assert_eq!(role(&auth, ADMIN), Some(Role::Admin));
    }
    fs::remove_file(&fixture.admin).unwrap();
    assert_eq!(role(&auth, ADMIN), None);
    fs::create_dir(&fixture.admin).unwrap();
    assert_eq!(role(&auth, ADMIN), None);
    assert_eq!(auth.view().auth_token_file_error_count, 1);
    fs::remove_dir(&fixture.admin).unwrap();
    rotate(&fixture.admin, ADMIN);
    assert_eq!((role(&auth, ADMIN), role(&auth, READ)), (Some(Role::Admin), Some(Role::ReadOnly)));
    assert!(!auth.is_current(&caller), "a token that was gone in between starts a new generation");
}

#[test]
fn a_token_written_equal_to_the_other_roles_is_refused_and_the_other_stays_what_it_was() {
    let fixture = Fixture::new();
    let auth = fixture.open().unwrap();
    rotate(&fixture.read_only, &format!("{ADMIN}\n"));
    for _ in 0..3 {
        assert_eq!(role(&auth, ADMIN), Some(Role::Admin), "the admin token was not touched");
        assert_eq!(role(&auth, READ), None);
    }
    let view = auth.view();
    assert!(view.auth_duplicate_token && view.auth_effective_admin_token_available);
    assert!(!view.auth_effective_read_only_token_available);
    rotate(&fixture.read_only, READ);
    assert_eq!((role(&auth, ADMIN), role(&auth, READ)), (Some(Role::Admin), Some(Role::ReadOnly)));
    assert_eq!((auth.generation(Role::Admin), auth.generation(Role::ReadOnly)), (1, 3), "no admin's stream ended");

    rotate(&fixture.admin, READ);
    assert_eq!(role(&auth, READ), Some(Role::ReadOnly), "a read-only token never becomes admin by a mistake");
    assert_eq!(role(&auth, ADMIN), None, "the token that was replaced is gone");
    assert!(!auth.view().auth_effective_admin_token_available);
    rotate(&fixture.admin, ADMIN);
    assert_eq!((role(&auth, ADMIN), role(&auth, READ)), (Some(Role::Admin), Some(Role::ReadOnly)));

    // Both written between two looks: nobody knows which was meant.
    rotate(&fixture.read_only, "one-token-for-both-roles");
    rotate(&fixture.admin, "one-token-for-both-roles");
    assert_eq!((role(&auth, "one-token-for-both-roles"), role(&auth, ADMIN), role(&auth, READ)), (None, None, None));
    assert!(matches!(fixture.open(), Err(AuthConfigError::EqualTokens)));
}

#[test]
fn start_is_refused_when_a_token_file_is_exposed_or_unusable() {
    let fixture = Fixture::new();
    for mode in [0o604, 0o602, 0o666, 0o622] {
        fs::set_permissions(&fixture.read_only, fs::Permissions::from_mode(mode)).unwrap();
        let error = fixture.open().err().expect("refused");
        assert!(
            matches!(
                &error,
                AuthConfigError::TokenFile { role: Role::ReadOnly, error: TokenFileError::Exposed { .. }, .. }
            ),
            "{mode:o}: {error}"
        );
        assert!(error.to_string().contains("; next: chmod 600"), "{error}");
    }
    fs::set_permissions(&fixture.read_only, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(fixture.open().is_ok());
    rotate(&fixture.admin, "");
    let error = fixture.open().err().expect("refused").to_string();
    assert!(error.starts_with("cannot use the admin token file ") && error.contains("is empty; next: "), "{error}");
    fs::remove_file(&fixture.admin).unwrap();
    assert!(matches!(
        fixture.open(),
        Err(AuthConfigError::TokenFile { error: TokenFileError::Unreadable(std::io::ErrorKind::NotFound), .. })
    ));
}

#[test]
fn exposure_after_start_is_reported_and_does_not_lock_the_operator_out() {
    let fixture = Fixture::new();
    let auth = fixture.open().unwrap();
    fs::set_permissions(&fixture.admin, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(role(&auth, ADMIN), Some(Role::Admin));
    let view = auth.view();
    assert_eq!(view.auth_token_file_error_count, 0);
    let error = view.auth_token_files[0].error.as_deref().unwrap();
    assert!(error.starts_with("its mode 644 lets others"), "{error}");
}

#[test]
fn while_auth_is_off_everyone_is_admin_and_the_operator_is_told() {
    let auth = Auth::open(AuthConfig::Off { tokens_ignored: true }, Arc::new(SystemClock)).unwrap();
    for header in [None, Some("Bearer x"), Some("nonsense")] {
        let caller = auth.authenticate(header).unwrap();
        assert_eq!(caller, Caller { role: Role::Admin, fingerprint: None, generation: 0 });
        assert!(auth.is_current(&caller));
    }
    assert_eq!(auth.notices().len(), 2);
    assert_eq!(auth.view(), AuthView::default());
}

#[test]
fn nothing_printable_holds_a_token() {
    let fixture = Fixture::new();
    let auth = fixture.open().unwrap();
    let caller = auth.authenticate(Some(&format!("Bearer {ADMIN}"))).unwrap();
    let text = format!("{caller:?} {:?} {:?}", auth.view(), TokenDigest::of_presented(ADMIN));
    assert!(!text.contains(ADMIN), "{text}");
    assert_eq!(caller.fingerprint.unwrap().to_string().len(), 8);
}

#[test]
fn rotation_under_load_refuses_no_valid_token_and_lets_no_old_one_in() {
    let fixture = Fixture::new();
    let auth = fixture.open().unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::SeqCst) {
                    assert_eq!(role(&auth, READ), Some(Role::ReadOnly), "a valid token was refused");
                }
            });
        }
        let mut old = ADMIN.to_string();
        for round in 0..300 {
            let new = format!("admin-token-round-{round:04}");
            rotate(&fixture.admin, &new);
            let verdict = (role(&auth, &new), role(&auth, &old));
            if verdict != (Some(Role::Admin), None) {
                done.store(true, std::sync::atomic::Ordering::SeqCst);
                panic!("round {round}: {verdict:?}");
            }
            old = new;
        }
        done.store(true, std::sync::atomic::Ordering::SeqCst);
    });
}
